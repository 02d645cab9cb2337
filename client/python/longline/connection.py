"""One connection by Server-Sent Events: frames come in, what the client has to
say goes by POST."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

from . import errors
from .access import Access, problem, told
from .event import Event, decode, parse_json
from .stream import Parser

Control = dict[str, Any]

OPS = "longline."
PATIENCE = 5.0
"""How late what is expected may come, in seconds."""
HEARTBEAT = 25.0


class Connection:
    """Opened by one thread, which reads; ended by any."""

    def __init__(self, access: Access, query: str) -> None:
        self._access = access
        self._connection = access.connect(access.timeout)
        self._socket = self._connection.sock
        self._error: errors.LonglineError | None = None
        self.parser = Parser()
        self._response: http.client.HTTPResponse | None = None
        # Whoever drips bytes is no more patient than who is silent.
        self._patience = threading.Timer(access.timeout, self.end, [errors.ConnectionError("the gateway did not greet in time")])
        self._patience.daemon = True
        self._patience.start()
        try:
            self._open(query)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._error or errors.ConnectionError(f"no connection: {told(error)}") from error
        except BaseException:
            self.close()
            raise

    def _open(self, query: str) -> None:
        headers = self._access.headers(fresh=True)
        headers["accept"] = "text/event-stream, application/problem+json"
        headers["cache-control"] = "no-store"
        self._connection.request("GET", self._access.target("/v1/sse" + query), headers=headers)
        response = self._response = self._connection.getresponse()
        kind = (response.getheader("content-type") or "").split(";")[0].strip().lower()
        if response.status != 200:
            raise problem(response.status, response.getheader, response.read(65536), headers["x-request-id"])
        if kind != "text/event-stream":
            raise errors.ProtocolError(f"{kind or 'the answer'} is no event stream: is it a gateway's?")

    def chunks(self) -> Iterator[list[Event | Control]]:
        """The frames that each chunk of bytes completes; it ends by a LonglineError."""
        assert self._response
        while True:
            try:
                chunk = self._response.read1(65536)
            except TimeoutError:
                raise self._error or errors.ConnectionError("the gateway is silent") from None
            except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
                raise self._error or errors.ConnectionError(f"the stream broke: {told(error)}") from error
            if not chunk:
                wait = self.parser.retry
                raise self._error or errors.ConnectionError(
                    "the stream ended", retry_after=None if wait is None else min(wait / 1000, 30)
                )
            frames: list[Event | Control] = []
            for kind, data, _ in self.parser.push(chunk):
                if kind.startswith(OPS):
                    said = parse_json(data)
                    if not isinstance(said, dict):
                        raise errors.ProtocolError(f"{kind} is no object: {data[:80]!r}")
                    frames.append({**said, "op": kind[len(OPS) :]})
                else:
                    frames.append(decode(data))
            # An id without data: the position moved over what was left out.
            if not frames and self.parser.last_event_id:
                frames.append({"op": "position", "cursor": self.parser.last_event_id})
            yield frames

    def greeted(self, hello: Control) -> None:
        """From now on it is known how long silence may last: a heartbeat is left
        out where something was said since the one before."""
        self._patience.cancel()
        heartbeat = hello.get("heartbeat_ms") or HEARTBEAT * 1000
        self._socket.settimeout(2 * heartbeat / 1000 + PATIENCE)

    def end(self, error: errors.LonglineError) -> None:
        """Ends it, from whichever thread, by that error."""
        self._error = self._error or error
        try:
            # The plain socket's: TLS would not let go of a thread that reads.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone

    def close(self) -> None:
        """Called by who reads, at the end."""
        self._patience.cancel()
        if self._response:
            self._response.close()
        self._connection.close()
        try:
            self._socket.close()
        except (OSError, AttributeError):
            pass
