"""Subscriptions whose handlers are called by tasks of a loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from .access import Access
from .dispatcher import Dispatcher, Job
from .event import Delivery, Event
from .line import Line
from .options import BatchHandler, Handler, Options, Selection, check_handler, emit, log, set_aside


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
            elif inspect.isasyncgen(result) or inspect.isgenerator(result):
                raise TypeError(f"the handler returned a {type(result).__name__}, of which nothing ran")
        except asyncio.CancelledError as raised:
            # Of this call, or of something that the handler waited for, which
            # is a failure like any.
            error, stopped = raised, getattr(asyncio.current_task(), "cancelling", lambda: True)()
        except Exception as raised:
            error = raised
        except BaseException as raised:  # it ends the loop
            error, stopped = raised, True
            raise
        finally:
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
        if handler is not None:
            check_handler(handler)
        self._handler = handler
        self._lists = bool(options.get("batch"))
        self._calls: Calls | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event
        self._arrived: asyncio.Event
        self._started: set[asyncio.Future[Any]] = set()

    def emit(self, name: str, *details: Any) -> None:
        if name in self.options:
            self._in_loop(lambda: self._emit(name, details))

    def _emit(self, name: str, details: tuple[Any, ...]) -> None:
        result = emit(self.options, name, *details)
        if inspect.isawaitable(result):
            self._keep_until_done(name, asyncio.ensure_future(result))

    def _keep_until_done(self, name: str, future: asyncio.Future[Any]) -> None:
        def done(future: asyncio.Future[Any]) -> None:
            self._started.discard(future)
            if not future.cancelled() and future.exception():
                log.error("%s failed", name, exc_info=future.exception())

        self._started.add(future)
        future.add_done_callback(done)

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
            set_aside(self.options, self.name or "ephemeral", event, error)

    def start(self) -> Subscription:
        """Works beside you, in the running loop; what ends it for good is raised
        by ``wait`` and told by ``logging``."""
        if not self._loop:
            self._loop = asyncio.get_running_loop()
            self._over = asyncio.Event()
            self._arrived = asyncio.Event()
            if self._handler is not None:
                self.call()
            else:
                self.dispatcher.woken = lambda: self._in_loop(self._arrived.set)
            self.begin()
            if self.over.is_set():  # it was left before it began
                self._at_end()
        return self

    def call(self) -> None:
        """Has the handler called by the running loop, whatever brings events."""
        if not self._calls:
            self._calls = Calls(self.dispatcher, self._handler, self._lists, self._rejected)

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
        self.leave()
        if not self._calls or asyncio.current_task() not in self._calls.tasks:
            await self._over.wait()

    def overdue(self) -> None:
        self._in_loop(self._cancel)

    def _cancel(self) -> None:
        for task in self._calls.tasks if self._calls else ():
            task.cancel()

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
