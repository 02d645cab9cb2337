"""Subscriptions whose handlers are called by threads."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from typing import Any

from .access import Access
from .bell import Flag
from .dispatcher import Dispatcher, Job
from .event import Delivery, Event
from .line import Line
from .options import BatchHandler, Handler, Options, Selection, check_handler, is_coroutine_function, log, set_aside


class Workers:
    """Threads that call a handler: as many as concurrency allows and there is
    work for. They are daemons: a handler that hangs doesn't keep a process."""

    def __init__(self, dispatcher: Dispatcher, handler: Handler | BatchHandler, concurrency: int, lists: bool) -> None:
        if is_coroutine_function(handler):
            raise TypeError("the handler is a coroutine function: that is for longline.aio")
        check_handler(handler)
        self.rejected: Any = lambda event, error: None
        self._dispatcher = dispatcher
        self._handler: Any = handler
        self._lists = lists
        self._most = concurrency
        self._work = threading.Condition(dispatcher.lock)
        self._idle = 0
        self._threads = 0
        self._stopped = False
        self._mine = threading.local()
        dispatcher.woken = self._wake

    def _wake(self) -> None:
        if self._idle:
            self._work.notify()
        elif self._threads < self._most and not self._stopped:
            self._threads += 1
            threading.Thread(target=self._run, name="longline handler", daemon=True).start()

    def stop(self) -> None:
        with self._dispatcher.lock:
            self._stopped = True
            self._work.notify_all()

    def open(self) -> None:
        """Works again after a stop."""
        with self._dispatcher.lock:
            self._stopped = False

    def am_i(self) -> bool:
        """Whether the caller is one of these threads, that is the handler."""
        return bool(getattr(self._mine, "working", False))

    def _run(self) -> None:
        self._mine.working = True
        while True:
            call = self._next()
            if not call:
                return
            events, about, jobs = call
            error: BaseException | None = None
            try:
                result = self._handler(events if self._lists else events[0], about)
                if inspect.isawaitable(result) or inspect.isgenerator(result):
                    # Nothing ran, so nothing is handled.
                    close = getattr(result, "close", None)
                    if close:
                        close()
                    raise TypeError(f"the handler returned a {type(result).__name__}: coroutines are for longline.aio")
            except BaseException as raised:
                error = raised
            for event, why in self._dispatcher.settle(jobs, error):
                self.rejected(event, why)

    def _next(self) -> tuple[list[Event], Delivery, list[Job]] | None:
        d = self._dispatcher
        with d.lock:
            while not self._stopped:
                call = d.take()
                if call:
                    return call
                self._idle += 1
                self._work.wait(d.wait)
                self._idle -= 1
            self._threads -= 1
            return None


class Subscription(Line):
    """Events as they come, by a handler or by ``for``. Make one by
    ``Client.subscribe`` or ``Client.attach``.

    ``run`` works until it is closed, ``start`` works beside you (as does
    ``with``), and iterating handles one event after another: asking for the
    next one says that the last one is done.
    """

    def __init__(
        self,
        access: Access,
        name: str,
        selection: Selection | None,
        handler: Handler | BatchHandler | None,
        options: Options,
    ) -> None:
        super().__init__(access, name, selection, options)
        self._lists = bool(options.get("batch"))
        self.workers: Workers | None = None
        self._arrived = Flag()
        self._iterates = 0  # which thread does
        if handler is not None:
            self.workers = Workers(self.dispatcher, handler, self.concurrency, self._lists)
            self.workers.rejected = self.rejected
        else:
            self.dispatcher.woken = self._arrived.set

    def rejected(self, event: Event, error: BaseException) -> None:
        set_aside(self.options, self.name or "ephemeral", event, error)

    def start(self) -> Subscription:
        """Works in the background. What ends it for good is raised by ``wait``
        and ``close``, and told by ``logging`` as an error."""
        if not self.workers:
            raise TypeError("there is no handler: iterate over the subscription")
        self.begin()
        return self

    def run(self) -> None:
        """Works until it is closed, then returns; raises the LonglineError that
        ended it otherwise. KeyboardInterrupt closes it."""
        self.awaited = True
        self.start()
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end; raises what ended it. Says whether it came."""
        try:
            ended = self.over.wait(timeout)
        except BaseException:
            self.close()
            raise
        if ended and self.error:
            raise self.error
        return ended

    def close(self) -> None:
        """Takes no more events, lets calls in progress end (for ``grace``),
        acknowledges what they did, and leaves. Called by the handler itself, or
        where it is iterated over, it waits for nothing. Safe for any thread, for
        handlers of signals, and to be called again."""
        if self.workers and self.workers.am_i() or threading.get_ident() == self._iterates:
            self.leave()
        else:
            self.left()

    def overdue(self) -> None:
        log.warning("%s: a handler did not end within its grace and is left behind", self.label)

    def ended(self) -> None:
        if self.workers:
            self.workers.stop()
        self._arrived.set()

    def __enter__(self) -> Subscription:
        if self.workers:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        if self.workers:
            raise TypeError("there is a handler: nothing is left to iterate over")
        self.awaited = True
        self._iterates = threading.get_ident()
        try:
            self.begin()
            while True:
                call = self._next()
                if not call:
                    break
                events, _, jobs = call
                try:
                    yield events if self._lists else events[0]
                except BaseException:
                    # Who leaves the loop isn't done with this one: it comes again.
                    self.dispatcher.settle(jobs, _Left(), stopped=True)
                    raise
                self.dispatcher.settle(jobs, None)
        finally:
            self._iterates = 0
            self.close()
        if self.error:
            raise self.error

    def _next(self) -> tuple[list[Event], Delivery, list[Job]] | None:
        while not self._stop.is_set():
            self._arrived.clear()
            call = self.dispatcher.take()
            if call:
                return call
            self._arrived.wait(self.dispatcher.wait)
        return None


class _Left(Exception):
    """The loop was left."""
