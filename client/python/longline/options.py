"""What a subscription is told: options with the same words as in the other
SDKs."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from .errors import LonglineError
from .event import Delivery, Event, Gap, Partitions
from .retry import Retry

if TYPE_CHECKING:
    from typing import Literal

    Phase = Literal["connecting", "live", "standby", "waiting", "closed"]
    Lag = Literal["catchup", "conflate", "latest", "close"]

log = logging.getLogger("longline")

Handler = Callable[[Event, Delivery], Any]
BatchHandler = Callable[[list[Event], Delivery], Any]


@dataclass(frozen=True)
class State:
    """How a subscription is: ``connecting``, ``live``, ``standby`` (another
    consumer is attached, this one is next), ``waiting`` (it connects again after
    ``retry`` seconds, because of ``error``) or ``closed``."""

    phase: Phase
    connection: str = ""
    recovered: bool = False
    error: LonglineError | None = None
    retry: float = 0.0
    partitions: list[int] = field(default_factory=list)
    of: int = 0


class Options(TypedDict, total=False):
    """Options of ``subscribe``, ``attach`` and ``pull``.

    - ``concurrency`` (1): calls of the handler at once. With 1 all events come in
      order; with more, those of one key still do, one at a time.
    - ``rate``: calls that may begin per second, in bursts of one second's worth.
    - ``batch``: the handler gets lists of up to so many events; ``batch_wait``
      (0): seconds that an event waits for company.
    - ``retry``: how a handler that failed is asked again: without end by default.
    - ``window``: events that may be received and not done (ephemeral: 1,024;
      durable: as the subscription says).
    - ``consumer``: who this is; another one stands by until this one is gone, the
      same one takes over. By default one's own for each attachment.
    - ``remember`` (10,000; ephemeral 0): events known as handled, so that what may
      come twice is handled once.
    - ``grace`` (10): seconds that calls in progress have when it is closed.
    - ``fail_fast``: end with an error if the first attempt to connect fails.
    - ``on_state``, ``on_gap``, ``on_partitions``: told by the thread that reads,
      which they hold up. ``on_reject``: an event was set aside, and why.
    """

    concurrency: int
    rate: float
    batch: int
    batch_wait: float
    retry: Retry
    window: int
    consumer: str
    remember: int
    grace: float
    fail_fast: bool
    on_state: Callable[[State], Any]
    on_gap: Callable[[Gap], Any]
    on_reject: Callable[[Event, BaseException], Any]
    on_partitions: Callable[[Partitions], Any]


_NAMES = frozenset(Options.__annotations__)
_COUNTS = ("concurrency", "batch", "window", "remember")
_SECONDS = ("rate", "batch_wait", "grace")


def check(options: Options) -> None:
    """Refuses what isn't known, since a typing error must not pass in silence."""
    for name, value in options.items():
        if name not in _NAMES:
            raise TypeError(f"unknown option {name!r}, want {', '.join(sorted(_NAMES))}")
        if name in _COUNTS:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise TypeError(f"{name} is {value!r}, want a whole number that isn't negative")
        elif name in _SECONDS:
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise TypeError(f"{name} is {value!r}, want a number that isn't negative")
        elif name == "retry" and not isinstance(value, Retry):
            raise TypeError(f"retry is {value!r}, want a Retry")
        elif name.startswith("on_") and not callable(value):
            raise TypeError(f"{name} is {value!r}, want a function")


def check_handler(handler: Any) -> None:
    """Refuses what can't be called with an event and its delivery, and what
    would return at once, with nothing handled."""
    if not callable(handler):
        raise TypeError(f"the handler is {handler!r}, want a function")
    function = handler if inspect.isroutine(handler) or isinstance(handler, functools.partial) else type(handler).__call__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("the handler is a generator function: it would run when nobody asks")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # a built-in one that doesn't tell
    try:
        signature.bind(None, None)
    except TypeError:
        raise TypeError(f"the handler takes {signature}, want (event, delivery)") from None


def is_coroutine_function(handler: Any) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(type(handler), "__call__", None))


def set_aside(options: Options, about: str, event: Event, error: BaseException) -> None:
    """Tells of an event that was set aside; where nobody asked to be told, the
    log. It may fail as it likes."""
    if "on_reject" in options:
        emit(options, "on_reject", event, error)
    else:
        log.warning("%s: an event was set aside (%s): %s", about, event.id, error or type(error).__name__)


def emit(options: Options, name: str, *details: Any) -> Any:
    """Calls one of the ``on_…``, and returns what it does."""
    call: Any = options.get(name)
    try:
        return call(*details) if call else None
    except Exception:
        log.exception("%s failed", name)
        return None


@dataclass(frozen=True)
class Selection:
    """What an ephemeral subscription brings: ``types`` are patterns, ``filter``
    CEL over ``event``; ``since`` is a position, "earliest", "latest" or a time,
    ``lag`` what happens when this side can't keep up."""

    channels: Sequence[str]
    types: Sequence[str] = ()
    filter: str = ""
    since: str | datetime = ""
    lag: Lag | str = ""

    def since_text(self) -> str:
        if isinstance(self.since, datetime):
            return self.since.astimezone().isoformat()
        if not isinstance(self.since, str):
            raise TypeError(f"since is {self.since!r}, want a position, a time, earliest or latest")
        return self.since


class Rarely:
    """Tells of trouble at once and then, while it goes on, once a minute for
    each kind."""

    EVERY = 60.0

    def __init__(self, about: str) -> None:
        self._about = about
        self._told: dict[str, float] = {}

    def warn(self, message: str, detail: object) -> None:
        now = time.monotonic()
        if now < self._told.get(message, 0.0):
            return
        self._told[message] = now + self.EVERY
        log.warning("%s: %s: %s", self._about, message, detail or type(detail).__name__)
