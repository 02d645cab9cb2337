"""The way to a gateway: its address, the token, and HTTP requests with both."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from . import errors
from .backoff import jitter
from .bell import Flag
from .event import parse_json

log = logging.getLogger("longline")

Token = str | Callable[[], str]


class Access:
    """Makes requests over connections that are kept. Safe for many threads."""

    def __init__(
        self,
        url: str,
        token: Token = "",
        *,
        timeout: float = 10.0,
        min_backoff: float = 0.5,
        max_backoff: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise errors.BadRequestError(f"the gateway is {url!r}, want an http or https URL")
        self.timeout = timeout
        self.min_backoff = min_backoff
        self.max_backoff = max_backoff
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._ssl = ssl_context
        self._proxy = None
        if not urllib.request.proxy_bypass(f"{self._host}:{self._port}"):
            self._proxy = urllib.request.getproxies().get(parts.scheme)
        self._token = token
        if not isinstance(token, str) and not callable(token):
            raise errors.BadRequestError(f"the token is a {type(token).__name__}, want a text or a function that returns one")
        self._cached = _clean(token) if isinstance(token, str) else ""
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._process = os.getpid()  # whose they are

    @property
    def renewable(self) -> bool:
        """Whether a new token can be had."""
        return not isinstance(self._token, str)

    def token(self, fresh: bool = False) -> str:
        """The token to use now, or ""."""
        if not isinstance(self._token, str) and (fresh or not self._cached):
            self._cached = _clean(self._token())
        return self._cached

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """A connection of one's own, to the gateway or the proxy before it."""
        host, port, via = self._host, self._port, None
        if self._proxy:
            via = urllib.parse.urlsplit(self._proxy if "//" in self._proxy else "//" + self._proxy)
            host, port = via.hostname or host, via.port or 80
        if self._secure:
            self._ssl = self._ssl or ssl.create_default_context()
            made: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._ssl)
        else:
            made = http.client.HTTPConnection(host, port, timeout=timeout)
        if via and self._secure:
            made.set_tunnel(self._host, self._port, self._proxied())
        made.connect()
        # A request is one write or two, and nobody should wait for the second.
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _proxied(self) -> dict[str, str]:
        """What the proxy wants to know, by its URL's user and password."""
        via = urllib.parse.urlsplit(self._proxy if "//" in self._proxy else "//" + self._proxy) if self._proxy else None
        if not via or not via.username:
            return {}
        who = f"{urllib.parse.unquote(via.username)}:{urllib.parse.unquote(via.password or '')}"
        return {"proxy-authorization": "Basic " + b64encode(who.encode()).decode()}

    def target(self, path: str) -> str:
        """What a request line names: a path, or through a proxy all of it."""
        whole = self._prefix + path
        return self._origin + whole if self._proxy and not self._secure else whole

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        attempts: int = 1,
        repeatable: bool | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stop: Flag | None = None,
    ) -> Any:
        """Makes a request and returns the answer's JSON, if there is any.

        ``body`` is sent as JSON; text and bytes go as they are. ``attempts``
        beyond 1 are for what may be done twice (0: until it works or ``stop``
        is set), as is ``repeatable`` (by default what isn't a POST): such
        requests take a connection that was used before. Raises a LonglineError.
        """
        payload = body if body is None or isinstance(body, (bytes, str)) else encode(body)
        if isinstance(payload, str):
            payload = payload.encode()
        may_repeat = attempts != 1 or method != "POST" if repeatable is None else repeatable
        attempt, fresh = 0, False
        while True:
            try:
                return self._once(method, path, payload, may_repeat, headers, timeout or self.timeout, fresh)
            except errors.LonglineError as error:
                # The gateway knows better than our clock whether a token is over.
                if isinstance(error, errors.UnauthorizedError) and self.renewable and not fresh:
                    fresh = True
                    continue
                attempt += 1
                if not error.retry or attempt == attempts or stop and stop.is_set():
                    raise
                wait = error.retry_after
                if wait is None:
                    wait = jitter(self.min_backoff, self.max_backoff, attempt - 1)
                (stop or Flag()).wait(wait)

    def _once(
        self, method: str, path: str, payload: bytes | None, may_repeat: bool, more: Mapping[str, str] | None,
        timeout: float, fresh: bool,
    ) -> Any:  # fmt: skip
        headers = self.headers(fresh)
        headers["accept"] = "application/json, application/problem+json"
        if payload is not None:
            headers["content-type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers.update(more or {})
        request_id = headers["x-request-id"]
        while True:
            used = None
            if may_repeat:
                with self._lock:
                    if self._process != os.getpid():  # after a fork they are the parent's
                        self._idle, self._process = [], os.getpid()
                    used = self._idle.pop() if self._idle else None
            connection, response = used, None
            until = time.monotonic() + timeout
            try:
                connection = connection or self.connect(timeout)
                connection.sock.settimeout(timeout)
                connection.request(method, self.target(path), payload, headers)
                sock = connection.sock
                response = connection.getresponse()
                answer = _read(response, sock, until)
            except (OSError, http.client.HTTPException) as error:
                for opened in response, connection:
                    if opened:
                        opened.close()
                if used and not isinstance(error, TimeoutError):
                    continue  # it had been closed while nobody used it
                raise errors.ConnectionError(f"{method} {path}: {told(error)}", request_id=request_id) from error
            if response.will_close or connection.sock is None:
                connection.close()
            else:
                with self._lock:
                    if len(self._idle) < 8:
                        self._idle.append(connection)
                        connection = None
                if connection:
                    connection.close()
            if 200 <= response.status < 300:
                return self._answer(answer, request_id)
            raise problem(response.status, response.headers.get, answer, request_id)

    def _answer(self, answer: bytes, request_id: str) -> Any:
        if not answer.strip():
            return None
        try:
            return parse_json(answer.decode())
        except (errors.ProtocolError, ValueError) as error:
            raise errors.ProtocolError("the answer is no JSON: is it a gateway's?", request_id=request_id) from error

    def headers(self, fresh: bool = False) -> dict[str, str]:
        token = self.token(fresh)
        headers = {"x-request-id": os.urandom(8).hex(), **({} if self._secure else self._proxied())}
        if token:
            headers["authorization"] = f"Bearer {token}"
        return headers

    def close(self) -> None:
        """Closes connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _read(response: http.client.HTTPResponse, sock: socket.socket, until: float) -> bytes:
    """The whole answer, by then, however slowly it drips."""
    parts = []
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        sock.settimeout(left)
        part = response.read1(1 << 16)
        if not part:
            break
        parts.append(part)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    response.read()  # of nothing: only then the connection may be used again
    return b"".join(parts)


def _clean(token: Any) -> str:
    """A token as it goes into a header: a file's has a line's end behind it.
    What is none isn't told, since it may be a secret."""
    if not isinstance(token, str):
        raise errors.UnauthorizedError(f"the token is a {type(token).__name__}, want a text")
    token = token.strip()
    if not all("!" <= c <= "~" for c in token):
        raise errors.UnauthorizedError("the token has characters that no token has")
    return token


def encode(value: Any) -> str:
    """Writes JSON. Raises TypeError or ValueError for what can't be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def query(**fields: Any) -> str:
    """A query of what is set, with its question mark."""
    text = urllib.parse.urlencode({k: v for k, v in fields.items() if v not in (None, "")})
    return "?" + text if text else ""


def told(error: BaseException) -> str:
    return str(error) or type(error).__name__


def problem(status: int, header: Callable[[str], str | None], body: bytes, request_id: str) -> errors.LonglineError:
    """The error for an answer that is no success, read from its problem
    document (RFC 9457) where it has one."""
    code = detail = ""
    if 300 <= status < 400:
        detail = f"answered {status}, to {header('location') or 'nowhere'}: redirects are not followed, want the gateway's own URL"
    if "problem+json" in (header("content-type") or ""):
        try:
            said = json.loads(body)
            code, detail = str(said.get("code", "")), str(said.get("detail") or said.get("title") or "")
        except (ValueError, AttributeError, RecursionError):
            pass
    return errors.for_status(
        status, code, detail or f"answered {status}", wait_of(header("retry-after")), header("x-request-id") or request_id
    )


def wait_of(text: str | None) -> float | None:
    """Reads Retry-After's two forms (RFC 9110 §10.2.3)."""
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), 86400.0)
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0), 86400.0)
    except (TypeError, ValueError):
        return None


def expiry(token: str) -> float | None:
    """When a token says that it expires, without a look at its signature."""
    try:
        claims = token.split(".")[1]
        return float(json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None
