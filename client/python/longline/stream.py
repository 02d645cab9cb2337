"""The event stream format (WHATWG HTML §9.2.6), without any I/O."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from .errors import TooLargeError
from .event import MAX_FRAME

_LINE_END = re.compile("\r\n|\r|\n")


class Message(NamedTuple):
    """What a stream said. ``type`` is "message" where it names none, ``id`` the
    last event id at that moment."""

    type: str
    data: str
    id: str


class Parser:
    """Parses a stream cut anywhere: inside a line ending, inside a character,
    inside the byte order mark. Called by one thread at a time."""

    def __init__(self, last_event_id: str = "", limit: int = MAX_FRAME) -> None:
        self.last_event_id = last_event_id
        """The id to reconnect with."""
        self.retry: int | None = None
        """Milliseconds to wait before that, if the stream said so."""
        self._limit = limit
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._first = True
        self._after_cr = False
        self._rest = ""
        self._id = last_event_id
        self._type = ""
        self._data: list[str] = []
        self._size = 0

    def push(self, chunk: bytes) -> list[Message]:
        """Takes the next bytes; returns the messages that they complete."""
        text = self._decode(chunk)
        messages: list[Message] = []
        if not text:
            return messages
        if self._first:
            self._first = False
            if text[0] == "\ufeff":
                text = text[1:]
        # The CR ended the line already; an LF behind it belongs to it.
        if self._after_cr and text.startswith("\n"):
            text = text[1:]
        self._after_cr = text.endswith("\r")
        lines = (self._rest + text).split("\n") if "\r" not in text else _LINE_END.split(self._rest + text)
        self._rest = lines.pop()
        for line in lines:
            self._line(line, messages)
        if len(self._rest) + self._size > self._limit:
            raise TooLargeError(f"more than {self._limit} characters")
        return messages

    def _line(self, line: str, messages: list[Message]) -> None:
        if not line:
            self.last_event_id = self._id
            # "data:" alone is an empty line, which is not nothing.
            if self._data:
                messages.append(Message(self._type or "message", "\n".join(self._data), self._id))
                self._data = []
                self._size = 0
            self._type = ""
            return
        field, colon, value = line.partition(":")
        if value[:1] == " ":
            value = value[1:]
        if field == "data":
            self._data.append(value)
            self._size += len(value) + 1
        elif field == "event":
            self._type = value
        elif field == "id":
            if "\0" not in value:
                self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
