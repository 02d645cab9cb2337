"""A Longline gateway, for programs with threads."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from .access import Access, Token
from .admin import Channels, Subscriptions, Tokens
from .options import BatchHandler, Handler, Options, Selection
from .publish import NewEvent, Outboxes, Published, letter_of, pages, post
from .pull import Pulled, Puller, pull
from .subscription import Subscription

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Client:
    """Talks to one gateway, or to several behind one address. Safe for many
    threads.

    ``url`` is the gateway's, ``token`` a JWT or what returns one, which is asked
    before each connection and before the last one expires; an UnauthorizedError
    that it raises ends the subscription, anything else is tried again.
    ``timeout`` is in seconds, for a connection to be made and greeted and for
    each request. Proxies are taken from the environment.
    """

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
        self.access = Access(
            url, token, timeout=timeout, min_backoff=min_backoff, max_backoff=max_backoff, ssl_context=ssl_context
        )
        self.subscriptions = Subscriptions(self.access)
        self.channels = Channels(self.access)
        self.tokens = Tokens(self.access)
        self._outboxes = Outboxes(lambda channel, letters: post(self.access, channel, letters))

    @overload
    def publish(self, channel: str, events: NewEvent) -> Published: ...
    @overload
    def publish(self, channel: str, events: Sequence[NewEvent]) -> list[Published]: ...
    def publish(self, channel: str, events: Any) -> Any:
        """Publishes; returns when the events are durable. Trying again, which
        it does by itself, publishes nothing twice. Those who publish to a
        channel at once share requests. Of a list, all are appended in order and
        up to 1,000 events or 4 MiB all or none."""
        if isinstance(events, Mapping):
            return self._outboxes.publish(channel, [letter_of(events)])[0]
        published: list[Published] = []
        for page in pages([letter_of(event) for event in events]):
            published += self._outboxes.publish(channel, page)
        return published

    def publish_to(self, channels: Iterable[str], event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Publishes one event, which needs an id, to several channels, which are
        not atomic together; the answer has each one's result."""
        answer = self.access.request("POST", "/v1/events", {**event, "channels": [*channels]}, attempts=6)
        results: list[dict[str, Any]] = answer["events"]
        return results

    def subscribe(
        self,
        channels: Sequence[str],
        handler: Handler | BatchHandler | None = None,
        *,
        types: Sequence[str] = (),
        filter: str = "",
        since: str | datetime = "",
        lag: str = "",
        **options: Unpack[Options],
    ) -> Subscription:
        """Events of channels from now, or from ``since``. It remembers its
        position across reconnects, not across restarts: for that keep its
        ``position``, or use ``attach``. Without a handler, iterate over it."""
        selection = Selection(channels, types, filter, since, lag)
        return Subscription(self.access, "", selection, handler, options)

    def attach(
        self, name: str, handler: Handler | BatchHandler | None = None, **options: Unpack[Options]
    ) -> Subscription:
        """Attaches to a durable subscription: an event is acknowledged when the
        handler has returned. One that fails is handed over again, without end;
        one for which it raises ``Reject`` goes to the dead letters. Without a
        handler, iterate over it."""
        return Subscription(self.access, name, None, handler, options)

    def pull(
        self,
        name: str,
        handler: Handler | BatchHandler,
        *,
        page: int = 100,
        wait: float = 20.0,
        hold: float = 30.0,
        **options: Unpack[Options],
    ) -> Puller:
        """A worker that asks for ``page`` events at a time, waits ``wait``
        seconds for them and holds the subscription for ``hold`` between two
        questions."""
        return Puller(self.access, name, handler, options, page=page, wait=wait, hold=hold)

    def pull_once(
        self, name: str, *, max: int = 100, wait: float = 0, ack: str = "", consumer: str = "", hold: float = 30
    ) -> Pulled:
        """One question, for those who acknowledge by themselves."""
        return pull(self.access, name, max=max, wait=wait, ack=ack, consumer=consumer, hold=hold)

    def request(self, method: str, path: str, body: Any = None, *, attempts: int = 1) -> Any:
        """Any other part of the gateway's HTTP API."""
        return self.access.request(method, path, body, attempts=attempts)

    def close(self) -> None:
        """Closes kept connections; subscriptions are closed by themselves."""
        self.access.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
