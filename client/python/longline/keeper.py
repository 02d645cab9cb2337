"""The life of a subscription: begun, kept, left.

    keeper ──▶ acknowledges what is done … told to stop ──▶ lets calls end ──▶ acknowledges ──▶ hangs up ──▶ over
       └─▶ reader ──▶ connects, takes what comes, connects again …                                │
                                                                       close ──▶ stop ──▶ waits for over

Whoever closes it only says so and waits: all that takes a lock is done by the
two threads, which no signal interrupts.
"""

from __future__ import annotations

import _thread
import threading
import time
from typing import Any

from . import errors
from .access import Access, quote, told
from .bell import Flag
from .connection import PATIENCE, Connection
from .dispatcher import Dispatcher
from .options import Options, Rarely, State, emit, log
from .tracker import AckTracker

ACK_EVERY = 0.05


class Keeper:
    """Base of what keeps a line. Safe for many threads."""

    def __init__(self, access: Access, name: str, options: Options, dispatcher: Dispatcher, trouble: Rarely, mute: bool) -> None:
        self.name = name
        self.options = options
        self.dispatcher = dispatcher
        self.trouble = trouble
        self.label = name or "ephemeral"
        self.over = Flag()
        self.error: errors.LonglineError | None = None
        self.awaited = False  # somebody is there to raise the error to
        self._access = access
        self._stop = Flag()
        self._begun = False
        self._own: set[int] = set()  # its threads
        self._lock = threading.Lock()  # guards the connection, which the reader makes and others end
        self._connection: Connection | None = None
        self._id = ""  # the gateway's name for the connection
        self._acks = Flag()  # there is something to acknowledge
        self._many = Flag()  # so much that it should not wait
        self._ended = Flag()  # the present connection is over, or soon will be
        self._acking = threading.Lock()  # one acknowledges at a time
        self._tracker = AckTracker(mute=mute, changed=self._done)

    @property
    def grace(self) -> float:
        return self.options.get("grace", 10.0)

    def begin(self) -> None:
        """Starts its threads, once."""
        if self._begun or self._stop.is_set():
            return
        # Thread.start takes steps, between which a signal's handler may raise.
        _thread.start_new_thread(self._start, ())

    def _start(self) -> None:
        try:
            threading.Thread(target=self._keep, name=f"longline {self.label}", daemon=True).start()
        except RuntimeError as failed:  # there are too many threads
            self.error = self.error or errors.LonglineError(f"it could not begin: {told(failed)}")
            self._stop.set()
            self._finish()

    def leave(self) -> None:
        """Takes no more events, has running calls end, what they did
        acknowledged, and hangs up; returns at once. Needs no lock."""
        self._stop.set()
        self._ended.set()
        self._many.set()
        self._acks.set()
        if not self._begun:
            self.over.set()

    def left(self) -> bool:
        """Leaves, and waits for that, unless it is one of its threads that asks;
        says whether it is over."""
        self.leave()
        return threading.get_ident() in self._own or self.over.wait(self.grace + 2 * self._access.timeout + PATIENCE)

    def _keep(self) -> None:
        with self._lock:
            if self._begun:
                return
            self._begun = True
        if self._stop.is_set():
            return self._finish()
        self._own.add(threading.get_ident())
        try:
            reader = threading.Thread(target=self._read, name=f"longline {self.label} reader", daemon=True)
            reader.start()
            while not self._stop.is_set():
                self._acks.wait()
                self._acks.clear()
                self._many.clear()
                self._flush()
                if not self._stop.is_set():
                    self._many.wait(ACK_EVERY)
            self.dispatcher.close()
            if not self._quiet():
                self.overdue()
            self._flush(last=True)
            with self._lock:
                connection = self._connection
            if connection:
                connection.end(errors.ConnectionError("closed"))
            reader.join(PATIENCE)
        except Exception as failed:  # ours; it must not end in silence
            log.exception("the keeper failed")
            self.error = errors.LonglineError(f"the keeper failed: {told(failed)}")
        finally:
            self._tell(State("closed", error=self.error))
            if self.error and not self.awaited:
                log.error("%s: ended: %s", self.label, self.error)
            self._finish()

    def _finish(self) -> None:
        self.over.set()
        self.ended()

    def _quiet(self) -> bool:
        """Waits for the calls in progress; says whether they ended in time."""
        until = time.monotonic() + self.grace
        while not self.dispatcher.idle(min(0.5, max(until - time.monotonic(), 0))):
            self._flush(last=True)
            if time.monotonic() >= until:
                return False
        return True

    def overdue(self) -> None:
        """Called by the keeper when calls did not end within ``grace``."""

    def ended(self) -> None:
        """Called at the end, by a thread of its own; an engine may have something to do."""

    def _read(self) -> None:
        self._own.add(threading.get_ident())
        try:
            self.error = self._stay()
        except BaseException as failed:  # ours; it must not end in silence
            log.exception("the reader failed")
            self.error = errors.LonglineError(f"the reader failed: {told(failed)}")
        self.leave()

    def _stay(self) -> errors.LonglineError | None:
        """The reader's: connects, over and over, until it is closed or there is
        no use."""
        raise NotImplementedError

    def _tell(self, state: State) -> None:
        log.info("%s: %s", self.label, state.phase)
        self.emit("on_state", state)

    def emit(self, name: str, *details: Any) -> None:
        """Calls one of the ``on_…``; an engine may have its own way."""
        emit(self.options, name, *details)

    def _done(self, many: bool) -> None:
        self._acks.set()
        if many:
            self._many.set()

    def _flush(self, last: bool = False) -> None:
        """Says what is done. ``last``: the connection is gone, or has begun
        anew, so one try is enough."""
        if not self.name:
            return
        with self._acking:
            tracker = self._tracker
            refusals, acks = tracker.due()
            said: list[tuple[str, dict[str, Any]]] = []
            for r in refusals:
                said.append(("reject", {"cursor": r.cursor, "reason": r.reason, "attempts": r.attempts, "connection": self._id}))
            for a in acks:
                partition = {} if a.partition is None else {"partition": a.partition}
                said.append(("ack", {"cursor": a.position, "connection": self._id, **partition}))
            for op, body in said:
                if not self._post(op, body, last):
                    return  # nobody is there to hear the rest, which comes again

    def _post(self, op: str, body: dict[str, Any], last: bool) -> bool:
        """Says one thing; returns whether there is use in saying more."""
        once = last or self._stop.is_set() or self._ended.is_set()
        try:
            path = f"/v1/subscriptions/{quote(self.name)}/{op}"
            self._access.request("POST", path, body, attempts=1 if once else 0, repeatable=True, stop=self._ended)
        except errors.ConflictError:
            pass  # who doesn't own it any longer will hear of it
        except Exception as error:  # a token that can't be had is none of ours
            if op == "reject":
                self.trouble.warn("the dead letter was not taken", error)
            with self._lock:
                connection = self._connection
            if isinstance(error, errors.ConnectionError):
                return False
            if not once and connection:
                self.trouble.warn("an acknowledgement was not taken, connecting again", error)
                connection.end(errors.ConnectionError("an acknowledgement was not taken"))
            # What is behind a refused event would acknowledge it, too.
            return op != "reject" or not (isinstance(error, errors.LonglineError) and error.retry)
        return True
