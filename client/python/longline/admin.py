"""Administration, typed: what the gateway's HTTP API offers beside events.
Names and shapes are the API's own."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypedDict

from .access import Access, query, quote
from .errors import ConflictError
from .event import Event, parse_event


class Batch(TypedDict, total=False):
    max_events: int
    max_wait: str


class Callback(TypedDict, total=False):
    """How a subscription's events leave by HTTP; times are texts such as
    "10s". ``secret`` and ``headers`` never come back."""

    url: str
    mode: str
    grace: str
    secret: str
    headers: dict[str, str]
    rate: float
    concurrency: int
    order: str
    batch: Batch
    timeout: str
    method: str
    format: str
    body: str
    outcome: str
    auth: dict[str, Any]
    signature: dict[str, str]


class Group(TypedDict):
    partitions: int


class Settings(TypedDict, total=False):
    """What a subscription is; ``channels`` are needed."""

    channels: Sequence[str]
    types: Sequence[str]
    filter: str
    start: str
    window: int
    group: Group
    expires_after: str
    description: str
    labels: dict[str, str]
    callback: Callback


class Status(TypedDict, total=False):
    """Where a subscription stands; ``state`` is live, pull, waiting, callback,
    offline, paused or disabled."""

    state: str
    consumer: str
    node: str
    transport: str
    since: str
    lag: dict[str, int]
    dead: int
    callback: dict[str, Any]
    members: list[dict[str, Any]]
    partitions: list[dict[str, Any]]


class Info(Settings, total=False):
    name: str
    cursor: str
    status: Status


class Attempt(TypedDict, total=False):
    time: str
    status: int
    latency_ms: float
    error: str
    body: str
    method: str
    url: str
    cursors: list[str]
    ids: list[str]


class Trace(TypedDict, total=False):
    """``state`` is acknowledged, in_flight, waiting, dead, gap, skipped or
    not_matched."""

    cursor: str
    state: str
    since: str
    reason: str
    attempts: list[Attempt]


class Test(TypedDict, total=False):
    request: dict[str, Any] | None
    status: int
    latency_ms: float
    error: str
    body: str


class ChannelInfo(TypedDict):
    """``first`` and ``head`` are offsets."""

    channel: str
    epoch: str
    first: int
    head: int
    events: int
    bytes: int
    connections: int


class DeadLetter:
    """An event that was set aside, by whom and when."""

    def __init__(self, letter: Mapping[str, Any]) -> None:
        self.event: Event = parse_event(letter["event"])
        self.reason: str = letter.get("reason", "")
        self.attempts: int = letter.get("attempts", 1)
        self.time: str = letter.get("time", "")

    def __repr__(self) -> str:
        return f"DeadLetter({self.event!r}: {self.reason})"


class Page:
    """Events of a channel's log, and the position behind them."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.events: list[Event] = [parse_event(e) for e in answer["events"]]
        self.cursor: str = answer["cursor"]


def since_text(since: str | datetime) -> str:
    return since if isinstance(since, str) else since.astimezone().isoformat()


class Subscriptions:
    """Durable subscriptions: ``client.subscriptions``."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def _call(self, method: str, name: str, path: str = "", body: Any = None, **more: Any) -> Any:
        return self._access.request(method, f"/v1/subscriptions/{quote(name)}{path}", body, **more)

    def get(self, name: str) -> Info:
        info: Info = self._call("GET", name)
        return info

    def put(self, name: str, settings: Settings) -> Info:
        """Creates or replaces; the answer has the callback's secret where one
        was made, this once."""
        info: Info = self._call("PUT", name, body=settings)
        return info

    def create(self, name: str, settings: Settings) -> bool:
        """Creates, unless there is one of that name, which then stays as it is:
        what a program does at its start. Says whether it was created."""
        try:
            self._call("PUT", name, body=settings, headers={"if-none-match": "*"}, repeatable=False)
        except ConflictError:
            return False
        return True

    def patch(self, name: str, changes: Mapping[str, Any]) -> Info:
        """Changes what is named, and nothing else (RFC 7396: None removes)."""
        info: Info = self._call("PATCH", name, body=changes)
        return info

    def delete(self, name: str) -> None:
        self._call("DELETE", name)

    def list(self, *, prefix: str = "", state: str = "", label: str = "", limit: int | None = None) -> Iterator[Info]:
        """All of them, page by page as they are asked for. ``label`` is
        ``name=value``."""
        cursor = ""
        while True:
            answer = self._access.request(
                "GET", "/v1/subscriptions" + query(prefix=prefix, state=state, label=label, limit=limit, cursor=cursor)
            )
            yield from answer["subscriptions"]
            cursor = answer.get("next", "")
            if not cursor:
                return

    def seek(self, name: str, to: str | datetime) -> None:
        """Moves the cursor, back or forward: a position, "earliest", "latest"
        or a time."""
        self._call("POST", name, "/seek", {"to": since_text(to)}, repeatable=True)

    def pause(self, name: str) -> None:
        self._call("POST", name, "/pause", repeatable=True)

    def resume(self, name: str) -> None:
        self._call("POST", name, "/resume", repeatable=True)

    def ack(self, name: str, cursor: str, *, connection: str = "", partition: int | None = None) -> str:
        """Acknowledges for whoever is attached; the answer is where it stands."""
        body: dict[str, Any] = {"cursor": cursor}
        if connection:
            body["connection"] = connection
        if partition is not None:
            body["partition"] = partition
        return str(self._call("POST", name, "/ack", body, repeatable=True)["cursor"])

    def reject(
        self, name: str, cursor: str, reason: str = "", *, attempts: int = 1, connection: str = "", consumer: str = ""
    ) -> None:
        """Makes a dead letter of an event that was delivered and is
        unacknowledged. Of a group it needs the connection, or the consumer of
        who pulls."""
        body: dict[str, Any] = {"cursor": cursor, "reason": reason[:1000], "attempts": attempts}
        if connection:
            body["connection"] = connection
        if consumer:
            body["consumer"] = consumer
        self._call("POST", name, "/reject", body, repeatable=True)

    def test(self, name: str, event: Mapping[str, Any] | None = None) -> Test:
        """Sends one ``longline.test`` event by the callback, now. ``event`` may
        give it subject, partitionkey and data."""
        result: Test = self._call("POST", name, "/test", event, timeout=60.0)
        return result

    def rotate_secret(self, name: str) -> str:
        """Makes another secret; the old one signs too for 24 hours."""
        return str(self._call("POST", name, "/rotate-secret")["secret"])

    def dead(self, name: str, *, since: str = "", limit: int | None = None) -> builtins.list[DeadLetter]:
        """Dead letters, oldest first, of which there may be more behind the
        last one's cursor."""
        answer = self._call("GET", name, "/dead" + query(since=since, limit=limit))
        return [DeadLetter(letter) for letter in answer["dead"]]

    def redrive(
        self, name: str, *, cursors: Iterable[str] = (), ids: Iterable[str] = (), all: bool = False
    ) -> int:
        """Has dead letters delivered again; says how many."""
        body: dict[str, Any] = {"all": True} if all else {"cursors": [*cursors]} if cursors else {"ids": [*ids]}
        return int(self._call("POST", name, "/dead/redrive", body)["redriven"])

    def clear_dead(self, name: str) -> None:
        self._call("DELETE", name, "/dead")

    def attempts(
        self, name: str, *, since: str | datetime = "", status: str = "", cursor: str = "", limit: int | None = None
    ) -> Iterator[Attempt]:
        """Attempts of the callback, newest first, page by page. ``status`` is
        one, a class like "5xx", or "0" for no answer."""
        page = ""
        while True:
            q = query(since=since_text(since), status=status, cursor=cursor, limit=limit, page=page)
            answer = self._call("GET", name, "/attempts" + q)
            yield from answer["attempts"]
            page = answer.get("next", "")
            if not page:
                return

    def trace(self, name: str, *, cursor: str = "", id: str = "") -> Trace:
        """What became of one event."""
        result: Trace = self._call("GET", name, "/trace" + query(cursor=cursor, id=id))
        return result

    def resend(self, name: str, cursors: Iterable[str]) -> int:
        """Has events delivered again, once; the cursor stays. Says how many."""
        return int(self._call("POST", name, "/resend", {"cursors": [*cursors]})["resent"])

    def replay(
        self, name: str, from_: str | datetime, to: str | datetime, *, types: Sequence[str] = (), filter: str = "",
        callback: bool = False,
    ) -> str:  # fmt: skip
        """Has what is after ``from_`` up to and including ``to`` delivered
        again, by a subscription of its own whose name is returned: by the same
        ``callback``, or for you to attach to."""
        body: dict[str, Any] = {"from": since_text(from_), "to": since_text(to), "callback": callback}
        if types:
            body["types"] = [*types]
        if filter:
            body["filter"] = filter
        return str(self._call("POST", name, "/replay", body)["name"])


class Channels:
    """Channels and their logs: ``client.channels``."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def get(self, channel: str) -> ChannelInfo:
        info: ChannelInfo = self._access.request("GET", f"/v1/channels/{quote(channel)}")
        return info

    def list(self, *, prefix: str = "", limit: int | None = None) -> Iterator[str]:
        """Names, page by page; for admins."""
        page = ""
        while True:
            answer = self._access.request("GET", "/v1/channels" + query(prefix=prefix, limit=limit, page=page))
            for one in answer["channels"]:
                yield one if isinstance(one, str) else one["channel"]
            page = answer.get("next", "")
            if not page:
                return

    def read(
        self, channel: str, *, since: str | datetime = "", types: Sequence[str] = (), filter: str = "",
        limit: int | None = None,
    ) -> Page:  # fmt: skip
        """A page of the log. Raises GoneError where the cursor's events are no
        longer the log's."""
        q = query(since=since_text(since), types=",".join(types), filter=filter, limit=limit)
        return Page(self._access.request("GET", f"/v1/channels/{quote(channel)}/events{q}"))

    def delete(self, channel: str) -> None:
        """Drops the log; for admins."""
        self._access.request("DELETE", f"/v1/channels/{quote(channel)}")


class Tokens:
    """Revocation, for admins: ``client.tokens``. To make one, ``mint_token``."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def revoke(self, *, jti: str = "", sub: str = "", before: str | datetime = "") -> None:
        """Ends a token, or those of ``sub`` that were issued before then (now)."""
        body: dict[str, Any] = {"jti": jti}
        if not jti:
            body = {"sub": sub, "before": since_text(before or datetime.now(timezone.utc))}
        self._access.request("POST", "/v1/tokens/revoke", body, repeatable=True)
