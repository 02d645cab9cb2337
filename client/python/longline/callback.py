"""Callbacks: verified, and answered by calling a handler once per event.
Trying again is the gateway's, at its own pace."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .bell import Bell
from .dispatcher import Dispatcher
from .errors import ProtocolError, Reject, SignatureError
from .event import Event, parse_event, parse_json
from .options import Handler, Options, Rarely, check
from .subscription import Subscription, Workers

MAX_BODY = 16 << 20
Secret = str | Sequence[str]


def verify_callback(
    headers: Mapping[str, str], body: bytes, secret: Secret, *, tolerance: float = 300, now: float | None = None
) -> Event | list[Event]:
    """Verifies a callback (Standard Webhooks, HMAC-SHA256) and returns what it
    carries: an event, or of a batch a list. ``headers`` may be spelled in any
    case; ``body`` are the bytes as they came, not parsed and written again;
    ``secret`` is "whsec_…", or several while it is being rotated.

    Raises SignatureError where none of them signed it within ``tolerance``
    seconds, and ProtocolError where what was signed is no event.
    """
    keys = parse_secrets(secret)
    lower = {name.lower(): value for name, value in headers.items()}
    webhook_id, stamp, given = (lower.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not (webhook_id and stamp and given):
        raise SignatureError("webhook-id, webhook-timestamp and webhook-signature are needed")
    if not (stamp.isascii() and stamp.isdigit()) or len(stamp) > 15:
        raise SignatureError("webhook-timestamp is not a number of seconds")
    age = (time.time() if now is None else now) - int(stamp)
    if abs(age) > tolerance:
        raise SignatureError(f"the callback was signed {age:.0f} s ago")
    content = f"{webhook_id}.{stamp}.".encode("utf-8", "surrogateescape") + body
    # The gateway signs with two secrets at most; nobody shall make us try thousands.
    signatures = [s.encode("utf-8", "surrogateescape") for s in given.split(" ")[:8]]
    ok = False
    for key in keys:
        want = b"v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())
        for signature in signatures:
            ok = hmac.compare_digest(signature, want) or ok
    if not ok:
        raise SignatureError("webhook-signature is not of this body by this secret")
    try:
        value = parse_json(body.decode())
    except UnicodeDecodeError as error:
        raise ProtocolError("the callback is not UTF-8") from error
    if isinstance(value, list):
        return [parse_event(one) for one in value]
    return parse_event(value, body.decode())


def parse_secrets(secret: Secret) -> list[bytes]:
    keys = []
    for text in [secret] if isinstance(secret, str) else secret:
        try:
            key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError, AttributeError):
            key = b""
        if not key:
            raise ValueError('a secret is not "whsec_" and base64, as the subscription was given it')
        keys.append(key)
    if not keys:
        raise ValueError('there is no secret: want "whsec_…", as the subscription was given it')
    return keys


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Answerer:
    """What is to be answered to a callback, whatever serves HTTP. ``target`` is
    the subscription whose handler shall be fed, or a handler, whose calls
    ``options`` govern."""

    def __init__(self, target: Subscription | Handler, secret: Secret, options: Options) -> None:
        parse_secrets(secret)  # now, not when the first event comes
        check(options)
        self._secret = secret
        if isinstance(target, Subscription):
            if not target.workers:
                raise TypeError("the subscription has no handler")
            self._dispatcher = target.dispatcher
            return
        concurrency = options.get("concurrency") or 8
        self._dispatcher = Dispatcher(
            concurrency=concurrency, rate=options.get("rate", 0), remember=options.get("remember", 10_000),
            warn=Rarely("callback").warn,
        )  # fmt: skip
        Workers(self._dispatcher, target, concurrency, False)

    def answer(self, headers: Mapping[str, str], body: bytes, timeout: float = 300) -> Answer:
        """Handles the events, which takes as long as the handler does."""
        try:
            payload = verify_callback(headers, body, self._secret)
        except SignatureError as error:
            # It counts as the endpoint's trouble: a wrong secret here must cost no event.
            return _text(401, str(error))
        except ProtocolError as error:
            return _text(400, str(error))
        events = payload if isinstance(payload, list) else [payload]
        lower = {name.lower(): value for name, value in headers.items()}
        attempt = lower.get("longline-attempt", "")
        again = lower.get("longline-redelivery") == "true" or attempt.isdigit() and int(attempt) > 1
        results: list[BaseException | None] = [None] * len(events)
        answered = Bell()
        asked: set[int] = set()
        for i, event in enumerate(events):
            if event.type == "longline.test":
                continue
            asked.add(i)
            self._dispatcher.ask(event, again, _into(results, i, asked, answered))
        if not answered.wait_for(lambda: not asked, timeout):
            return _text(503, "the handler is slow", {"retry-after": "1"})
        return answer_for(events, results, isinstance(payload, list))


def _into(results: list[BaseException | None], i: int, asked: set[int], answered: Bell) -> Callable[[BaseException | None], None]:
    def reply(error: BaseException | None) -> None:
        results[i] = error
        asked.discard(i)
        answered.ring()

    return reply


def answer_for(events: list[Event], results: Sequence[BaseException | None], batch: bool) -> Answer:
    """The answer, from what the handler's calls raised."""
    for error in results:
        if error is not None and not isinstance(error, Reject):
            wait = getattr(error, "retry_after", None)
            if wait:
                return _text(503, "not handled, try again", {"retry-after": str(-(-int(wait * 1000) // 1000))})
            return _text(500, "not handled, try again")  # what went wrong is for our log
    rejected = [e.id for e, error in zip(events, results) if error is not None and _means(error, e)]
    if not rejected:
        return Answer(204, {}, b"")
    if batch:
        return Answer(200, {"content-type": "application/json"}, json.dumps({"rejected": rejected}).encode())
    return _text(422, "the handler rejected the event")


def _means(error: BaseException, event: Event) -> bool:
    return not isinstance(error, Reject) or error.ids is None or event.id in error.ids


def _text(status: int, text: str, headers: Mapping[str, str] = {}) -> Answer:
    return Answer(status, {"content-type": "text/plain; charset=utf-8", **headers}, text.encode())


_STATUS = {
    200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
    413: "Content Too Large", 422: "Unprocessable Content", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip

StartResponse = Callable[..., Any]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


def wsgi_callback(
    target: Subscription | Handler, secret: Secret, *, app: WSGIApp | None = None, path: str = "", options: Options = {}
) -> WSGIApp:
    """A WSGI application that takes callbacks; with ``app`` a middleware, which
    takes those of ``path`` and leaves all else to the app. It must come before
    whatever parses bodies."""
    answerer = Answerer(target, secret, options)

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if path and environ.get("PATH_INFO") != path:
            if app:
                return app(environ, start_response)
            answer = _text(404, "not here")
        elif environ["REQUEST_METHOD"] != "POST":
            answer = _text(405, "POST only", {"allow": "POST"})
        else:
            length = environ.get("CONTENT_LENGTH") or "0"
            if not length.isdigit() or int(length) > MAX_BODY:
                answer = _text(413, "the body is too large")
            else:
                headers = {k[5:].replace("_", "-"): v for k, v in environ.items() if k.startswith("HTTP_")}
                answer = answerer.answer(headers, environ["wsgi.input"].read(int(length)))
        length_of = {"content-length": str(len(answer.body))} if answer.status != 204 else {}
        start_response(f"{answer.status} {_STATUS[answer.status]}", [*{**answer.headers, **length_of}.items()])
        return [answer.body]

    return serve


Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
