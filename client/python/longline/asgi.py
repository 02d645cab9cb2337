"""Callbacks taken by an ASGI application, whose handler is a coroutine function."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from . import callback
from .dispatcher import Dispatcher
from .errors import LonglineError, ProtocolError, SignatureError
from .options import Options, Rarely, check, check_handler
from .tasks import Calls, Subscription


def asgi_callback(
    target: Subscription | Callable[..., Awaitable[Any]],
    secret: callback.Secret,
    *,
    app: callback.ASGIApp | None = None,
    path: str = "",
    options: Options = {},
) -> callback.ASGIApp:
    """An ASGI application that takes callbacks; with ``app`` a middleware, which
    takes those of ``path`` and leaves all else to the app. ``target`` is the
    subscription whose handler shall be fed, or a handler."""
    callback.parse_secrets(secret)
    check(options)
    dispatcher: Dispatcher | None = None
    if not isinstance(target, Subscription):
        check_handler(target)
    elif target._handler is None:
        raise TypeError("the subscription has no handler")

    def ready() -> Dispatcher:
        nonlocal dispatcher
        if isinstance(target, Subscription):
            target.call()  # it need not be attached
            return target.dispatcher
        if dispatcher is None:  # the loop is running only now
            dispatcher = Dispatcher(
                concurrency=options.get("concurrency") or 8, rate=options.get("rate", 0),
                remember=options.get("remember", 10_000), warn=Rarely("callback").warn,
            )  # fmt: skip
            Calls(dispatcher, target, False, lambda event, error: None)
        return dispatcher

    async def answer(headers: Mapping[str, str], body: bytes) -> callback.Answer:
        try:
            payload = callback.verify_callback(headers, body, secret)
        except LonglineError as error:
            status = 401 if isinstance(error, SignatureError) else 400 if isinstance(error, ProtocolError) else 500
            return callback.Answer(status, {"content-type": "text/plain; charset=utf-8"}, str(error).encode())
        events = payload if isinstance(payload, list) else [payload]
        attempt = headers.get("longline-attempt", "")
        again = headers.get("longline-redelivery") == "true" or attempt.isdigit() and int(attempt) > 1
        loop = asyncio.get_running_loop()
        results: list[Any] = []
        for event in events:
            future = loop.create_future()
            results.append(future)
            if event.type == "longline.test":
                future.set_result(None)
                continue
            ready().ask(event, again, _into(loop, future))
        return callback.answer_for(events, [await f for f in results], isinstance(payload, list))

    async def serve(scope: callback.Scope, receive: callback.Receive, send: callback.Send) -> None:
        if scope["type"] != "http" or path and scope["path"] != path:
            if app:
                return await app(scope, receive, send)
            if scope["type"] != "http":
                return
            result = callback.Answer(404, {}, b"not here")
        elif scope["method"] != "POST":
            result = callback.Answer(405, {"allow": "POST"}, b"POST only")
        else:
            body, more = b"", True
            while more and len(body) <= callback.MAX_BODY:
                message = await receive()
                if message["type"] != "http.request":
                    return  # the peer is gone
                body += message.get("body", b"")
                more = message.get("more_body", False)
            headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
            if len(body) > callback.MAX_BODY:
                result = callback.Answer(413, {}, b"the body is too large")
            else:
                result = await answer(headers, body)
        pairs = [(k.encode(), v.encode()) for k, v in result.headers.items()]
        await send({"type": "http.response.start", "status": result.status, "headers": pairs})
        await send({"type": "http.response.body", "body": result.body})

    return serve


def _into(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> Callable[[BaseException | None], None]:
    def give(error: BaseException | None) -> None:
        if not future.done():
            future.set_result(error)

    def reply(error: BaseException | None) -> None:
        loop.call_soon_threadsafe(give, error)

    return reply
