"""Pull: for those who can hold no connection and take no callback. The same
dispatcher, retry and dead letters as by a connection; a page is acknowledged by
the next question, once all of it is done."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from . import errors
from .access import Access, query, quote
from .backoff import jitter
from .bell import Bell, Flag
from .dispatcher import Dispatcher
from .event import Cursor, Event, Gap, parse_event, parse_position
from .line import MALFORMED
from .options import BatchHandler, Handler, Options, Rarely, check, emit, log, set_aside
from .retry import Retry
from .subscription import Workers
from .tracker import AckTracker, Refusal


class Pulled:
    """A page of a subscription's events. ``cursor`` is what acknowledges it."""

    def __init__(self, answer: dict[str, Any]) -> None:
        try:
            self.events: list[Event] = [parse_event(e) for e in answer["events"]]
            self.cursor: str = answer["cursor"]
            self.gaps = [Gap(g["channel"], g["from"], g["to"], g["reason"]) for g in answer.get("gaps", ())]
            self.redelivery: str = (answer.get("redelivery") or {}).get("cursor", "")
            self.held_until: str = answer.get("held_until", "")
        except (TypeError, KeyError, AttributeError) as error:
            raise errors.ProtocolError("the answer is no page of events: is it a gateway's?") from error


def pull(
    access: Access, name: str, *, max: int = 100, wait: float = 0, ack: str = "", consumer: str = "", hold: float = 30
) -> Pulled:
    """One question: acknowledges ``ack``, waits up to ``wait`` seconds for
    events and holds the subscription for ``hold``. ConflictError: another
    consumer has it."""
    q = query(max=max, wait=f"{wait:g}s", ack=ack, consumer=consumer, hold=f"{hold:g}s")
    return Pulled(
        access.request("GET", f"/v1/subscriptions/{quote(name)}/events{q}", timeout=wait + access.timeout, repeatable=not ack)
    )


class Puller:
    """A worker that pulls until it is closed. Make one by ``Client.pull``."""

    def __init__(
        self, access: Access, name: str, handler: Handler | BatchHandler, options: Options, *, page: int, wait: float, hold: float
    ) -> None:
        check(options)
        self.name = name
        self.options = options
        self._access = access
        self._page, self._wait, self._hold = page, wait, hold
        self._consumer = options.get("consumer") or uuid.uuid4().hex
        self.trouble = Rarely(name)
        self.dispatcher = Dispatcher(
            concurrency=options.get("concurrency") or 1, rate=options.get("rate", 0), batch=options.get("batch", 0),
            batch_wait=options.get("batch_wait", 0), retry=options.get("retry", Retry()),
            remember=options.get("remember", 10_000), warn=self.trouble.warn,
        )  # fmt: skip
        self.workers = Workers(self.dispatcher, handler, options.get("concurrency") or 1, bool(options.get("batch")))
        self.workers.rejected = self._rejected
        self._stop = Flag()
        self._running = threading.Lock()
        self._runner = 0  # which thread does
        self._ended = Bell()
        self._sure: dict[str, Cursor] = {}  # by channel: acknowledged, and answered
        self._refused: list[Refusal] = []  # and not set aside yet

    def run(self, *, until_empty: bool = False) -> int:
        """Works until it is closed, or with ``until_empty`` as long as there is
        something to do now, as a job of cron's does: what failed is left for
        the next time. Returns how many events were acknowledged; raises the
        LonglineError that ended it."""
        with self._running:
            self._runner = threading.get_ident()
            if not self._stop.is_set():  # it may have run before, as a job does again and again
                self.dispatcher.open()
                self.workers.open()
            try:
                return self._work(until_empty)
            except BaseException:
                self._stop.set()
                raise
            finally:
                self.dispatcher.close()
                self.workers.stop()
                self._runner = 0
                self._ended.ring()

    def close(self) -> None:
        """Takes no more events, lets calls in progress end and gives the
        subscription up. Called by the handler itself, or by a signal's in the
        thread that runs it, it waits for nothing."""
        self._stop.set()
        if self._runner == threading.get_ident():
            return
        self.dispatcher.close()
        if not self.workers.am_i():
            self._ended.wait_for(lambda: not self._runner)

    def _work(self, until_empty: bool) -> int:
        done, failed, ack = 0, 0, ""
        while not self._stop.is_set():
            try:
                # An acknowledgement waits for nothing: its answer says that it counts.
                page = pull(
                    self._access, self.name, max=self._page, wait=0 if until_empty or ack else self._wait, ack=ack,
                    consumer=self._consumer, hold=self._hold,
                )  # fmt: skip
                failed = 0
                self._sure.update((c.channel, c) for c in parse_position(ack))
            except errors.LonglineError as error:
                taken = isinstance(error, errors.ConflictError)
                malformed = isinstance(error, errors.ProtocolError) and failed + 1 >= MALFORMED
                if not error.retry and not taken or malformed or taken and until_empty and error.retry_after is None:
                    raise
                self.trouble.warn("another consumer has it, will try again" if taken else "the pull failed, will try again", error)
                wait = error.retry_after
                self._stop.wait(jitter(self._access.min_backoff, self._access.max_backoff, failed) if wait is None else wait)
                failed += 1
                ack = ""
                continue
            if not page.events and not page.gaps:
                ack = ""
                if until_empty:
                    break
                continue
            ack, left = self._handle(page, until_empty)
            done += len(page.events) - left
            if left and until_empty:
                break
        self._leave(ack)
        return done

    def _handle(self, page: Pulled, until_empty: bool) -> tuple[str, int]:
        """Has a page handled, with ``until_empty`` only what can be now; returns
        what to acknowledge, and how many events that leaves."""
        for gap in page.gaps:
            self.trouble.warn("events were missed", gap)
            emit(self.options, "on_gap", gap)
        tracker = AckTracker()
        self._refused.clear()
        again = {c.channel: c for c in parse_position(page.redelivery)}
        for event in page.events:
            entry = tracker.add(event.cursor, None)
            until, sure = again.get(event.channel), self._sure.get(event.channel)
            twice = until is not None and (until.epoch != entry.cursor.epoch or entry.cursor.offset <= until.offset)
            if sure and sure.epoch == entry.cursor.epoch and entry.cursor.offset <= sure.offset:
                twice = False  # it was acknowledged: somebody asked for it again
            self.dispatcher.add(event, entry, twice and not entry.late, "pull")
        renewed = time.monotonic()
        while not self.dispatcher.until(0, 0.2):
            if self._stop.is_set():
                self.dispatcher.close()
                self.dispatcher.idle(self.options.get("grace", 10.0))
                break
            if until_empty and self.dispatcher.resting():
                self.dispatcher.drop(orphan=True)
                break
            if time.monotonic() - renewed > self._hold / 3:
                # What is done so far; and it stays ours.
                renewed = time.monotonic()
                self._say(tracker)
        if not self._refuse(tracker):
            return "", len(page.events)
        if not tracker.unacknowledged:
            return page.cursor, 0
        return tracker.done(), tracker.unacknowledged

    def _refuse(self, tracker: AckTracker) -> bool:
        """Has what was refused set aside. Returns whether it is: else nothing may
        be acknowledged, since that covers it."""
        self._refused += tracker.due()[0]
        while self._refused:
            r = self._refused[0]
            body = {"cursor": r.cursor, "reason": r.reason, "attempts": r.attempts, "consumer": self._consumer}
            try:
                self._access.request(
                    "POST", f"/v1/subscriptions/{quote(self.name)}/reject", body, attempts=6, stop=self._stop
                )
            except errors.LonglineError as error:
                self.trouble.warn("the dead letter was not taken", error)
                if error.retry:
                    return False
            del self._refused[0]
        return True

    def _say(self, tracker: AckTracker) -> None:
        if not self._refuse(tracker):
            return
        position = tracker.done()
        try:
            if position:
                self._access.request("POST", f"/v1/subscriptions/{quote(self.name)}/ack", {"cursor": position}, repeatable=True)
        except errors.LonglineError as error:
            self.trouble.warn("an acknowledgement was refused", error)

    def _leave(self, ack: str) -> None:
        """Acknowledges the rest and lets the subscription go."""
        path = f"/v1/subscriptions/{quote(self.name)}"
        try:
            if ack:
                self._access.request("POST", path + "/ack", {"cursor": ack}, attempts=3)
            self._access.request("DELETE", path + "/events" + query(consumer=self._consumer))
        except errors.LonglineError as error:
            log.info("%s: not given up, it ends by itself: %s", self.name, error)

    def _rejected(self, event: Event, error: BaseException) -> None:
        set_aside(self.options, self.name, event, error)
