"""The same for asyncio: handlers are coroutine functions, subscriptions are
awaited and iterated over. Reading the connection stays with a thread, so a busy
loop doesn't lose it; everything you are called by runs in your loop."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from . import admin
from .access import Token
from .asgi import asgi_callback
from .client import Client as Blocking
from .options import Options, Selection
from .publish import Mail, NewEvent, Outboxes, Published, letter_of, pages, post
from .tasks import Subscription

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Channels", "Client", "Subscription", "Subscriptions", "Tokens", "asgi_callback"]

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
        # A loop's each: who waits for a turn to post is gone with the loop.
        self._outboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Outboxes] = weakref.WeakKeyDictionary()

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
        loop, mail = asyncio.get_running_loop(), Mail(letters)
        outboxes = self._outboxes.get(loop)
        if outboxes is None:
            outboxes = self._outboxes[loop] = Outboxes(lambda channel, letters: post(self.access, channel, letters))
        # Shielded: whoever is cancelled may be the one to post for others.
        work = self._send(outboxes, channel, [mail], mail) if outboxes.join(channel, mail) else self._turn(outboxes, channel, mail)
        return await asyncio.shield(asyncio.ensure_future(work))

    async def _turn(self, outboxes: Outboxes, channel: str, mail: Mail) -> list[Published]:
        result: Any = await asyncio.wrap_future(mail.future)
        if not result or not isinstance(result[0], Mail):
            return result  # type: ignore[no-any-return]
        mail.future = type(mail.future)()
        return await self._send(outboxes, channel, result, mail)

    async def _send(self, outboxes: Outboxes, channel: str, together: list[Mail], mail: Mail) -> list[Published]:
        await asyncio.to_thread(outboxes.send, channel, together)
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
