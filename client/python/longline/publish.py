"""Publishing: those who publish to a channel at once share requests."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any, TypedDict

from .access import Access, encode, quote
from .errors import BadRequestError, ProtocolError, TooLargeError, UnavailableError

MOST = 1000
LARGEST = (4 << 20) - (64 << 10)
ATTEMPTS = 6


class _NewEvent(TypedDict):
    type: str


class NewEvent(_NewEvent, total=False):
    """An event to publish; ``id``, ``source`` and ``time`` are filled in. Any
    other name is an extension attribute."""

    data: Any
    data_base64: str
    id: str
    source: str
    subject: str
    time: str | datetime
    partitionkey: str
    datacontenttype: str
    dataschema: str


class _Published(TypedDict):
    id: str
    cursor: str


class Published(_Published, total=False):
    """``duplicate``: an event of this source and id was there already, under
    this cursor."""

    duplicate: bool


def letter_of(event: Mapping[str, Any]) -> str:
    """Writes an event to be published; an id makes trying again harmless."""
    if not isinstance(event, Mapping) or not event.get("type"):
        raise BadRequestError(f"an event to publish is a mapping with a type; got {str(event)[:60]!r}")
    made: dict[str, Any] = {"id": str(uuid.uuid4()), **event}
    when = made.get("time")
    if isinstance(when, datetime):
        made["time"] = when.astimezone().isoformat()
    try:
        text = encode(made)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequestError(f"the event is no JSON: {error}") from error
    if size > LARGEST:
        raise TooLargeError(f"an event has {size} bytes")
    return text


def post(access: Access, channel: str, letters: list[str]) -> list[Published]:
    """One request; all of the events or none."""
    answer = access.request("POST", f"/v1/channels/{quote(channel)}/events", f"[{','.join(letters)}]", attempts=ATTEMPTS)
    events: Any = answer.get("events") if isinstance(answer, dict) else None
    if not isinstance(events, list) or not all(isinstance(one, dict) for one in events):
        raise ProtocolError("the answer says nothing of the events: is it a gateway's?")
    if len(events) != len(letters):
        raise ProtocolError(f"the gateway answered for {len(events)} events of {len(letters)}")
    made: list[Published] = events
    return made


def pages(letters: list[str]) -> list[list[str]]:
    """As many requests as it takes."""
    made: list[list[str]] = []
    size = 0
    for letter in letters:
        bytes_more = len(letter.encode()) + 1
        if not made or len(made[-1]) == MOST or size + bytes_more > LARGEST:
            made.append([])
            size = 0
        made[-1].append(letter)
        size += bytes_more
    return made


class Mail:
    """One caller's events, which go together."""

    __slots__ = ("letters", "size", "future")

    def __init__(self, letters: list[str]) -> None:
        self.letters = letters
        self.size = sum(len(letter.encode()) + 1 for letter in letters)
        # What was published; or those whom this caller is to post for.
        self.future: Future[list[Published] | list[Mail]] = Future()


class Outboxes:
    """Gathers a channel's events while a request is on its way; the next one
    takes all that came meanwhile, and is posted by the first of those who wait.
    Safe for concurrent use."""

    def __init__(self, post: Callable[[str, list[str]], list[Published]]) -> None:
        self._post = post
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Mail]] = {}

    def publish(self, channel: str, letters: list[str]) -> list[Published]:
        mail = Mail(letters)
        if self.join(channel, mail):
            together: list[Mail] = [mail]
        else:
            try:
                result = mail.future.result()
            except BaseException:
                self._give_up(channel, mail)
                raise
            if not result or not isinstance(result[0], Mail):
                return result  # type: ignore[return-value]
            together = result  # type: ignore[assignment]
            mail.future = Future()
        self.send(channel, together)
        return mail.future.result()  # type: ignore[return-value]

    def join(self, channel: str, mail: Mail) -> bool:
        """Whether the caller is to post at once, since nobody does."""
        with self._lock:
            waiting = self._waiting.get(channel)
            if waiting is None:
                self._waiting[channel] = []
                return True
            waiting.append(mail)
            return False

    def send(self, channel: str, together: list[Mail]) -> None:
        """Posts for several callers; if that is refused, for each alone, so
        that nobody pays for another's mistake. Then passes the turn on."""
        try:
            self._deliver(channel, together)
        finally:
            self._pass_on(channel)

    def _deliver(self, channel: str, together: list[Mail]) -> None:
        try:
            published = self._post(channel, [letter for mail in together for letter in mail.letters])
        except BaseException as error:  # a KeyboardInterrupt is the others' end, too
            if len(together) > 1 and isinstance(error, (BadRequestError, TooLargeError)):
                for mail in together:
                    self._deliver(channel, [mail])
                return
            for mail in together:
                mail.future.set_exception(error if isinstance(error, Exception) else UnavailableError("who posted was interrupted"))
            if not isinstance(error, Exception):
                raise
            return
        at = 0
        for mail in together:
            mail.future.set_result(published[at : at + len(mail.letters)])
            at += len(mail.letters)

    def _pass_on(self, channel: str) -> None:
        with self._lock:
            waiting = self._waiting[channel]
            if not waiting:
                del self._waiting[channel]
                return
            n = letters = size = 0
            for mail in waiting:
                letters += len(mail.letters)
                size += mail.size
                if n and (letters > MOST or size > LARGEST):
                    break
                n += 1
            together, self._waiting[channel] = waiting[:n], waiting[n:]
            together[0].future.set_result(together)

    def _give_up(self, channel: str, mail: Mail) -> None:
        """Called by who waits no more, e.g. since a signal's handler raised: a
        turn must not be given to nobody."""
        with self._lock:
            waiting = self._waiting.get(channel, [])
            if mail in waiting:
                waiting.remove(mail)
            if not mail.future.done() or mail.future.exception():
                return
        turn: Any = mail.future.result()
        others = [other for other in turn if isinstance(other, Mail) and other is not mail]
        if others:
            others[0].future.set_result(others)
        elif turn and turn[0] is mail:
            self._pass_on(channel)
