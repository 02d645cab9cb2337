"""The same for asyncio: handlers are coroutine functions, subscriptions are
awaited and iterated over. Reading the connection stays with a thread, so a busy
loop doesn't lose it; everything you are called by runs in your loop."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from . import admin, callback
from .access import Access, Token
from .client import Client as Blocking
from .dispatcher import Dispatcher, Job
from .errors import LonglineError, ProtocolError, SignatureError
from .event import Delivery, Event
from .line import Line
from .options import BatchHandler, Handler, Options, Rarely, Selection, check, log
from .publish import Mail, NewEvent, Outboxes, Published, letter_of, pages, post

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


def _threaded(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A blocking method as a coroutine."""

    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(lambda: method(self._blocking, *args, **kwargs))

    call.__doc__ = method.__doc__
    return call


def _listed(method: Callable[Concatenate[S, P], Iterable[T]]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, list[T]]]:
    """A method that goes through pages as a coroutine that returns all of them."""

    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> list[T]:
        return await asyncio.to_thread(lambda: list(method(self._blocking, *args, **kwargs)))

    call.__doc__ = method.__doc__
    return call


class Subscriptions:
    """Durable subscriptions: ``client.subscriptions``."""

    def __init__(self, blocking: admin.Subscriptions) -> None:
        self._blocking = blocking

    get = _threaded(admin.Subscriptions.get)
    put = _threaded(admin.Subscriptions.put)
    create = _threaded(admin.Subscriptions.create)
    patch = _threaded(admin.Subscriptions.patch)
    delete = _threaded(admin.Subscriptions.delete)
    list = _listed(admin.Subscriptions.list)
    seek = _threaded(admin.Subscriptions.seek)
    pause = _threaded(admin.Subscriptions.pause)
    resume = _threaded(admin.Subscriptions.resume)
    ack = _threaded(admin.Subscriptions.ack)
    reject = _threaded(admin.Subscriptions.reject)
    test = _threaded(admin.Subscriptions.test)
    rotate_secret = _threaded(admin.Subscriptions.rotate_secret)
    dead = _threaded(admin.Subscriptions.dead)
    redrive = _threaded(admin.Subscriptions.redrive)
    clear_dead = _threaded(admin.Subscriptions.clear_dead)
    attempts = _listed(admin.Subscriptions.attempts)
    trace = _threaded(admin.Subscriptions.trace)
    resend = _threaded(admin.Subscriptions.resend)
    replay = _threaded(admin.Subscriptions.replay)


class Channels:
    """Channels and their logs: ``client.channels``."""

    def __init__(self, blocking: admin.Channels) -> None:
        self._blocking = blocking

    get = _threaded(admin.Channels.get)
    list = _listed(admin.Channels.list)
    read = _threaded(admin.Channels.read)
    delete = _threaded(admin.Channels.delete)


class Tokens:
    def __init__(self, blocking: admin.Tokens) -> None:
        self._blocking = blocking

    revoke = _threaded(admin.Tokens.revoke)


class Calls:
    """Calls a handler of a loop's, at most as many at once as concurrency
    allows. Belongs to the loop; only ``wake`` is for any thread."""

    def __init__(self, dispatcher: Dispatcher, handler: Any, lists: bool, rejected: Callable[[Event, BaseException], Any]) -> None:
        self._dispatcher = dispatcher
        self._handler = handler
        self._lists = lists
        self._rejected = rejected
        self._loop = asyncio.get_running_loop()
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.stopped = False
        dispatcher.woken = self.wake

    def wake(self) -> None:
        with self._dispatcher.lock:
            if self._woken or self.stopped:
                return
            self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._pump)
        except RuntimeError:
            pass  # the loop is closed

    def _pump(self) -> None:
        with self._dispatcher.lock:
            self._woken = False
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while not self.stopped:
            call = self._dispatcher.take()
            if not call:
                if self._dispatcher.wait is not None:
                    self._timer = self._loop.call_later(max(self._dispatcher.wait, 0), self._pump)
                return
            task = self._loop.create_task(self._call(*call))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _call(self, events: list[Event], about: Delivery, jobs: list[Job]) -> None:
        error: BaseException | None = None
        stopped = False
        try:
            result = self._handler(events if self._lists else events[0], about)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as raised:
            error, stopped = raised, True
        except Exception as raised:
            error = raised
        for event, why in self._dispatcher.settle(jobs, error, stopped):
            self._rejected(event, why)

    def stop(self) -> None:
        self.stopped = True
        if self._timer:
            self._timer.cancel()


class Subscription(Line):
    """As ``longline.Subscription``, in a loop: ``await run()``, ``async with``,
    or ``async for``. Cancelling ``run`` closes it."""

    def __init__(
        self, access: Access, name: str, selection: Selection | None, handler: Handler | BatchHandler | None, options: Options
    ) -> None:
        super().__init__(access, name, selection, options)
        if handler is not None and not callable(handler):
            raise TypeError(f"the handler is {handler!r}, want a function")
        self._handler = handler
        self._lists = bool(options.get("batch"))
        self._calls: Calls | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event
        self._arrived: asyncio.Event
        self._started: set[asyncio.Future[Any]] = set()

    def emit(self, name: str, *details: Any) -> None:
        call: Any = self.options.get(name)
        if call:
            self._in_loop(lambda: self._emit(name, call, details))

    def _emit(self, name: str, call: Any, details: tuple[Any, ...]) -> None:
        try:
            result = call(*details)
            if inspect.isawaitable(result):
                future = asyncio.ensure_future(result)
                self._started.add(future)
                future.add_done_callback(self._started.discard)
        except Exception:
            log.exception("%s failed", name)

    def _in_loop(self, call: Callable[[], Any]) -> None:
        try:
            assert self._loop
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the loop is closed

    def _rejected(self, event: Event, error: BaseException) -> None:
        if "on_reject" in self.options:
            self.emit("on_reject", event, error)
        else:
            self.trouble.warn(f"an event was set aside ({event.id})", error)

    def start(self) -> Subscription:
        """Works beside you, in the running loop; what ends it for good is raised
        by ``wait`` and told by ``logging``."""
        if not self._loop:
            self._loop = asyncio.get_running_loop()
            self._over = asyncio.Event()
            self._arrived = asyncio.Event()
            if self._handler is not None:
                self._calls = Calls(self.dispatcher, self._handler, self._lists, self._rejected)
            else:
                self.dispatcher.woken = lambda: self._in_loop(self._arrived.set)
            self.begin()
        return self

    async def run(self) -> None:
        """Works until it is closed; raises the LonglineError that ended it
        otherwise."""
        if self._handler is None:
            raise TypeError("there is no handler: iterate over the subscription")
        self.awaited = True
        self.start()
        await self.wait()

    async def wait(self) -> None:
        self.start()
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            await self.close()
            raise
        if self.error:
            raise self.error

    async def close(self) -> None:
        """Takes no more events, lets calls in progress end (for ``grace``, then
        they are cancelled), acknowledges what they did, and leaves. Called by
        the handler itself, it waits for nothing."""
        self.start()
        finishing = asyncio.ensure_future(asyncio.to_thread(self.finish))
        self._started.add(finishing)
        finishing.add_done_callback(self._started.discard)
        if self._calls and asyncio.current_task() in self._calls.tasks:
            return
        if not await asyncio.shield(finishing) and self._calls:
            for task in self._calls.tasks:
                task.cancel()
        await self._over.wait()

    def ended(self) -> None:
        self._in_loop(self._at_end)

    def _at_end(self) -> None:
        if self._calls:
            self._calls.stop()
        self._over.set()
        self._arrived.set()

    async def __aenter__(self) -> Subscription:
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        if self._handler is not None:
            raise TypeError("there is a handler: nothing is left to iterate over")
        self.awaited = True
        self.start()
        try:
            while not self._stop.is_set():
                self._arrived.clear()
                call = self.dispatcher.take()
                if not call:
                    try:
                        await asyncio.wait_for(self._arrived.wait(), self.dispatcher.wait)
                    except asyncio.TimeoutError:
                        pass
                    continue
                events, _, jobs = call
                try:
                    yield events if self._lists else events[0]
                except BaseException as left:
                    # Who leaves the loop isn't done with this one: it comes again.
                    self.dispatcher.settle(jobs, left, stopped=True)
                    raise
                self.dispatcher.settle(jobs, None)
        finally:
            await self.close()
        if self.error:
            raise self.error


class Client:
    """As ``longline.Client``, for a loop; ``blocking`` is the one with threads."""

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
        self.blocking = Blocking(
            url, token, timeout=timeout, min_backoff=min_backoff, max_backoff=max_backoff, ssl_context=ssl_context
        )
        self.access = self.blocking.access
        self.subscriptions = Subscriptions(self.blocking.subscriptions)
        self.channels = Channels(self.blocking.channels)
        self.tokens = Tokens(self.blocking.tokens)
        self._outboxes = Outboxes(lambda channel, letters: post(self.access, channel, letters))

    @overload
    async def publish(self, channel: str, events: NewEvent) -> Published: ...
    @overload
    async def publish(self, channel: str, events: Sequence[NewEvent]) -> list[Published]: ...
    async def publish(self, channel: str, events: Any) -> Any:
        """Publishes; returns when the events are durable. Tasks that publish to
        a channel at once share requests."""
        if isinstance(events, Mapping):
            return (await self._post(channel, [letter_of(events)]))[0]
        published: list[Published] = []
        for page in pages([letter_of(event) for event in events]):
            published += await self._post(channel, page)
        return published

    async def _post(self, channel: str, letters: list[str]) -> list[Published]:
        mail = Mail(letters)
        if self._outboxes.join(channel, mail):
            together: list[Mail] = [mail]
        else:
            # Shielded: whoever is cancelled may be the one to post for others.
            result = await asyncio.shield(asyncio.ensure_future(self._turn(channel, mail)))
            return result
        return await asyncio.shield(asyncio.ensure_future(self._send(channel, together, mail)))

    async def _turn(self, channel: str, mail: Mail) -> list[Published]:
        result: Any = await asyncio.wrap_future(mail.future)
        if not result or not isinstance(result[0], Mail):
            return result  # type: ignore[no-any-return]
        mail.future = type(mail.future)()
        return await self._send(channel, result, mail)

    async def _send(self, channel: str, together: list[Mail], mail: Mail) -> list[Published]:
        await asyncio.to_thread(self._outboxes.send, channel, together)
        return mail.future.result()  # type: ignore[return-value]

    def subscribe(
        self,
        channels: Sequence[str],
        handler: Callable[..., Awaitable[Any]] | None = None,
        *,
        types: Sequence[str] = (),
        filter: str = "",
        since: str | datetime = "",
        lag: str = "",
        **options: Unpack[Options],
    ) -> Subscription:
        """Events of channels from now, or from ``since``; see
        ``longline.Client.subscribe``."""
        return Subscription(self.access, "", Selection(channels, types, filter, since, lag), handler, options)

    def attach(
        self, name: str, handler: Callable[..., Awaitable[Any]] | None = None, **options: Unpack[Options]
    ) -> Subscription:
        """Attaches to a durable subscription; see ``longline.Client.attach``."""
        return Subscription(self.access, name, None, handler, options)

    async def request(self, method: str, path: str, body: Any = None, *, attempts: int = 1) -> Any:
        """Any other part of the gateway's HTTP API."""
        return await asyncio.to_thread(self.blocking.request, method, path, body, attempts=attempts)

    async def close(self) -> None:
        self.blocking.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


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
    dispatcher: Dispatcher | None = target.dispatcher if isinstance(target, Subscription) else None

    def ready() -> Dispatcher:
        nonlocal dispatcher
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
