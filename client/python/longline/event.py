"""Events, cursors, positions: what stands on the wire, without any I/O."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from .errors import ProtocolError, TooLargeError

MAX_FRAME = 16 << 20
"""As many characters as one event may have: beyond anything a gateway sends."""

_KNOWN = frozenset(
    (
        "specversion", "id", "source", "type", "time", "subject", "partitionkey", "channel", "cursor",
        "datacontenttype", "dataschema", "data", "data_base64",
    )
)  # fmt: skip


class Event:
    """A CloudEvents 1.0 event as the gateway sends it.

    ``data`` is the publisher's JSON as Python values, ``binary`` the bytes
    where it published some, ``extensions`` the attributes of its own, ``raw``
    the text as it came. ``channel`` and ``cursor`` are empty on a
    ``longline.test`` event alone.
    """

    __slots__ = ("id", "source", "type", "subject", "partitionkey", "channel", "cursor", "data", "raw", "_all")

    id: str
    source: str
    type: str
    subject: str
    partitionkey: str
    channel: str
    cursor: str
    data: Any
    raw: str

    def __init__(self, attributes: dict[str, Any], raw: str = "") -> None:
        get = attributes.get
        self.id = attributes["id"]
        self.source = attributes["source"]
        self.type = attributes["type"]
        self.subject = get("subject", "")
        self.partitionkey = get("partitionkey", "")
        self.channel = get("channel", "")
        self.cursor = get("cursor", "")
        self.data = get("data")
        self.raw = raw
        self._all = attributes

    @property
    def attributes(self) -> dict[str, Any]:
        """All of it, as the JSON object it came as."""
        return self._all

    @property
    def time(self) -> datetime | None:
        """When it happened, in UTC if the publisher didn't say otherwise."""
        text = self._all.get("time")
        return parse_time(text) if text else None

    @property
    def datacontenttype(self) -> str:
        return str(self._all.get("datacontenttype", ""))

    @property
    def dataschema(self) -> str:
        return str(self._all.get("dataschema", ""))

    @property
    def binary(self) -> bytes | None:
        text = self._all.get("data_base64")
        return None if text is None else base64.b64decode(text)

    @property
    def extensions(self) -> dict[str, Any]:
        return {name: value for name, value in self._all.items() if name not in _KNOWN}

    def __repr__(self) -> str:
        return f"Event({self.type} {self.cursor or self.id})"


@dataclass(frozen=True)
class Delivery:
    """How an event came to the handler. Of a batch: the highest attempt, and
    ``redelivered`` if any of its events is."""

    attempt: int = 1
    redelivered: bool = False
    """It may have been handled before, by another process or by this one."""
    transport: str = ""
    """"sse", "pull" or "callback"."""
    replay: bool = False
    """Somebody asked for it once more, by a replay of a range."""


@dataclass(frozen=True)
class Gap:
    """Events after ``from_`` up to and including ``to`` won't come."""

    channel: str
    from_: str
    to: str
    reason: str


@dataclass(frozen=True)
class Partitions:
    """Those of a group that events come of, out of ``of``; the other
    ``members`` have the rest."""

    partitions: list[int]
    of: int
    members: int = 0


def parse_time(text: str) -> datetime:
    """Reads RFC 3339; fractions beyond microseconds are cut."""
    text = text.strip()
    if text[-1:] in "zZ":
        text = text[:-1] + "+00:00"
    text = re.sub(r"\.(\d+)", lambda m: "." + m[1][:6].ljust(6, "0"), text)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ProtocolError(f"no time: {text[:40]}") from error


def parse_json(text: str) -> Any:
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError:  # a number of more digits than Python takes for an int
            return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 4000 else float(digits))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON: {text[:80]!r}") from error


def parse_event(value: Any, raw: str = "") -> Event:
    """Makes an event of its decoded JSON."""
    if not isinstance(value, dict) or value.get("specversion") != "1.0":
        raise ProtocolError("no event: specversion is not 1.0")
    for name in ("id", "source", "type"):
        if not isinstance(value.get(name), str) or not value[name]:
            raise ProtocolError(f"no event: it lacks {name}")
    return Event(value, raw)


def decode(text: str) -> Event | dict[str, Any]:
    """Decodes a frame: an event, or a control frame, which has an ``op``."""
    if len(text) > MAX_FRAME:
        raise TooLargeError(f"more than {MAX_FRAME} characters")
    value = parse_json(text)
    if isinstance(value, dict) and isinstance(value.get("op"), str) and value["op"] and "specversion" not in value:
        return value
    return parse_event(value, text)


class Cursor(NamedTuple):
    """A place in a channel, behind the event with that offset."""

    channel: str
    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.channel}@{self.epoch}-{self.offset}"


_CURSOR = re.compile(r"((?:[A-Za-z0-9_:-]+\.)*[A-Za-z0-9_:-]+)@([a-z0-9]+)-(0|[1-9][0-9]*)")


def parse_cursor(text: str) -> Cursor:
    match = _CURSOR.fullmatch(text)
    if not match or len(match[1]) > 128 or len(match[3]) > 20:
        raise ProtocolError(f"no cursor: {text[:80]!r}")
    return Cursor(match[1], match[2], int(match[3]))


def parse_position(text: str) -> Iterator[Cursor]:
    """The cursors of a position, which are joined by commas; none for ""."""
    if text:
        for one in text.split(","):
            yield parse_cursor(one)


def partition_of(event: Event, n: int) -> int:
    """Which of a group's ``n`` partitions an event belongs to: 64-bit FNV-1a
    of its partitionkey, or of source, NUL and id, modulo n."""
    h = 0xCBF29CE484222325
    for byte in (event.partitionkey or f"{event.source}\0{event.id}").encode():
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h % n
