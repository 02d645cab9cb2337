"""What brings a subscription's events, by whichever engine they are handled:
connects, takes what comes, comes back."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from . import errors
from .access import Access, expiry, query, quote, told
from .backoff import jitter
from .connection import Connection, Control
from .dispatcher import Dispatcher
from .event import Cursor, Event, Gap, Partitions, parse_position, partition_of
from .keeper import Keeper
from .options import Options, Rarely, Selection, State, check
from .retry import Retry
from .tracker import AckTracker, TrackedEvent

STEADY = 5.0
"""A connection that lasted so long was a good one: waiting starts over."""
SLOW = 10.0
"""How long a full window is waited for before hanging up: what waits is kept in
the log."""
MALFORMED = 3
"""So many connections in a row that end by what can't be read, and no more."""


class Line(Keeper):
    """Base of the subscriptions of threads and of asyncio."""

    def __init__(self, access: Access, name: str, selection: Selection | None, options: Options) -> None:
        check(options)
        if not name and not (selection and selection.channels):
            raise TypeError("no name of a subscription and no channels")
        if selection:
            for what, value in ("channels", selection.channels), ("types", selection.types):
                if isinstance(value, str) or not all(isinstance(one, str) for one in value):
                    raise TypeError(f"{what} is {value!r}, want a list of texts")
            selection.since_text()
        self._selection = selection
        self._consumer = options.get("consumer") or uuid.uuid4().hex
        self._window = options.get("window") or (1024 if selection else 0)
        batch, concurrency = options.get("batch", 0), options.get("concurrency") or 1
        if not self._window and batch:
            self._window = 2 * batch * concurrency
        self.concurrency = concurrency
        trouble = Rarely(name or ",".join(selection.channels if selection else ()))
        dispatcher = Dispatcher(
            concurrency=concurrency,
            rate=options.get("rate", 0),
            batch=batch,
            batch_wait=options.get("batch_wait", 0),
            retry=options.get("retry", Retry()),
            remember=options.get("remember", 0 if selection else 10_000),
            warn=trouble.warn,
        )
        dispatcher.unacknowledged = lambda: self._tracker.unacknowledged
        super().__init__(access, name, options, dispatcher, trouble, mute=bool(selection))
        # Owned by the reader.
        self._again: dict[str, Cursor] = {}
        self._greeted = False
        self._hello: Control = {}
        self._of = 0
        self._partitions: list[int] = []
        self._placed = ""  # when the cursor was last put somewhere by hand, as hello says
        self._goodbye = False
        self._delivered = False
        self._renewal: threading.Timer | None = None
        self._renewals = 0  # in a row, each soon after the other

    @property
    def position(self) -> str:
        """Everything up to here was handled: a ``since`` to go on from. In a
        group, ask the gateway."""
        return self._tracker.done()

    def _stay(self) -> errors.LonglineError | None:
        """Connects, over and over, until it is closed or there is no use."""
        attempt = refused = malformed = 0
        first = True
        while not self._stop.is_set():
            if self._selection:
                if self.dispatcher.size > self._window:
                    self.dispatcher.until(self._window // 2)
            self._tell(State("connecting"))
            began = time.monotonic()
            self._greeted = self._goodbye = False
            error = self._once()
            if self._stop.is_set():
                return None
            if self._greeted:
                refused = 0
                lasted = time.monotonic() - began
                if lasted > STEADY:
                    attempt = malformed = 0
                    self._renewals = max(self._renewals - 1, 0)
            elif first and self.options.get("fail_fast"):
                return error
            first = False
            wait = error.retry_after
            if isinstance(error, errors.UnauthorizedError) and self._access.renewable and not refused:
                refused += 1  # a token may have run out since: another one, once
                wait = 0.0
            elif not error.retry:
                return error
            elif isinstance(error, errors.ProtocolError):
                malformed += 1
                if malformed >= MALFORMED:
                    return error
            if wait is None:
                wait = jitter(self._access.min_backoff, self._access.max_backoff, attempt)
                attempt += 1
            # A gateway that says goodbye is no trouble.
            if wait > 0 and not self._goodbye:
                self.trouble.warn("no connection to the gateway, will try again", error)
            self._tell(State("waiting", error=error, retry=wait))
            self._stop.wait(wait)
        return None

    def _once(self) -> errors.LonglineError:
        """One connection; returns how it ended."""
        connection = None
        try:
            try:
                connection = Connection(self._access, self._query())
            except errors.LonglineError as error:
                return error
            except Exception as error:
                return errors.ConnectionError(f"no connection: {told(error)}")
            with self._lock:
                self._connection = connection
            self._ended.clear()
            if self._stop.is_set():
                return errors.ConnectionError("closed")
            for frames in connection.chunks():
                for frame in frames:
                    try:
                        if isinstance(frame, Event):
                            self._take(frame)
                        else:
                            self._control(frame, connection)
                    except (TypeError, ValueError, AttributeError, OverflowError) as error:
                        raise errors.ProtocolError(f"what came can't be read: {told(error)}: {str(frame)[:80]}") from error
                if self._selection and self.dispatcher.size > self._window:
                    if not self.dispatcher.until(self._window, SLOW):
                        raise errors.ConnectionError("the handler is slower than the events come", retry_after=0)
            raise AssertionError("unreachable")
        except errors.LonglineError as error:
            return error
        finally:
            with self._lock:
                self._connection = None
                if self._renewal:
                    self._renewal.cancel()
            self._ended.set()  # whoever still acknowledges for it tries no more
            if connection:
                if self.name and not self._stop.is_set():
                    self._flush(last=True)
                    self.dispatcher.drop(orphan=True)
                connection.close()

    def _query(self) -> str:
        if self.name:
            # Received isn't done: a reconnect must acknowledge nothing.
            return query(subscription=self.name, consumer=self._consumer, window=self._window or "", ack="manual")
        s = self._selection
        assert s
        text = query(types=",".join(s.types), filter=s.filter, lag=s.lag, since=self._since())
        channels = "&".join("channel=" + quote(c) for c in s.channels)
        return f"?{channels}{text.replace('?', '&', 1)}"

    def _since(self) -> str:
        assert self._selection
        received, since = self._tracker.received(), self._selection.since_text()
        if not received or "@" not in since:
            return received or since
        # Channels that nothing is known of yet begin where the selection says.
        known = {c.channel for c in parse_position(received)}
        return ",".join([received, *(str(c) for c in parse_position(since) if c.channel not in known)])

    def _take(self, event: Event) -> None:
        if self._stop.is_set():
            return
        self._delivered = True
        entry = self._tracker.add(event.cursor, partition_of(event, self._of) if self._of else None)
        # A dead letter was put back to be handled, whatever became of it before.
        again = not entry.late and bool(self._again) and self._twice(event, entry)
        self.dispatcher.add(event, entry, again, "sse", bool(self._hello.get("replay")))

    def _twice(self, event: Event, entry: TrackedEvent) -> bool:
        until, at = self._again.get(event.channel), entry.cursor
        if not until:
            return False
        # A log that forked keeps its offsets, so that they tell without the epoch.
        if at.offset >= until.offset and not self._of:  # partitions have an order each
            del self._again[event.channel]
        return at.offset <= until.offset

    def _may_come_twice(self, position: str) -> None:
        for c in parse_position(position):
            had = self._again.get(c.channel)
            if not had or had.offset < c.offset:
                self._again[c.channel] = c

    def _control(self, frame: Control, connection: Connection) -> None:
        op = frame["op"]
        if op == "hello":
            self._greet(frame, connection)
        elif op == "standby":
            self._greeted = True
            connection.greeted(frame)
            self._tell(State("standby"))
        elif op == "gap":
            gap = Gap(frame.get("channel", ""), frame.get("from", ""), frame.get("to", ""), frame.get("reason", ""))
            self.trouble.warn("events were missed", gap)
            if not self._of:
                self._tracker.step(gap.to)
            self.emit("on_gap", gap)
        elif op == "position":
            if not self.name:
                self._tracker.step(frame.get("cursor", ""))
        elif op == "redelivery":
            self._may_come_twice(frame.get("cursor", ""))
            if self.name and self._delivered and not self._of:
                # The gateway lost hold of the subscription and has it again:
                # what is not acknowledged comes another time.
                self._begin("")
        elif op == "partitions" and self._of:
            self._assigned(frame)
        elif op == "bye":
            self._goodbye = True
            wait = frame.get("retry_ms")
            raise errors.for_close(
                int(frame.get("code") or 0), str(frame.get("reason", "")), frame.get("reconnect"),
                None if wait is None else min(max(wait / 1000, 0.0), 86400.0),
            )  # fmt: skip

    def _greet(self, hello: Control, connection: Connection) -> None:
        before, cursor = self._tracker.received(), str(hello.get("cursor", ""))
        self._greeted, self._hello, self._id = True, hello, str(hello.get("connection", ""))
        self._of, self._partitions = int(hello.get("of") or 0), list(hello.get("partitions") or [])
        connection.greeted(hello)
        if not self.name:
            self._tracker.step(cursor)
        else:
            placed, self._placed = self._placed, str(hello.get("placed", ""))
            if placed and placed != self._placed:
                # Somebody asked for what comes now: nothing may be left out as known.
                self.dispatcher.forget()
                self._again = {}
            elif not self._of:
                # What the last connection brought may come again, whether the
                # gateway knows or was killed.
                self._may_come_twice(before)
            self._begin("" if self._of else cursor)
            self.dispatcher.window = int(hello.get("window") or 0)
        self._renew_later(connection)
        self._live()

    def _live(self) -> None:
        h = self._hello
        self._tell(State("live", self._id, bool(h.get("recovered")), partitions=self._partitions, of=self._of))
        if self._of:
            self.emit("on_partitions", Partitions(self._partitions, self._of, int(h.get("members") or 0)))

    def _assigned(self, frame: Control) -> None:
        """Has a group's partitions come and go: of those that went nothing more
        is begun, those that came begin anew."""
        before, mine = self._partitions, list(frame.get("partitions") or [])
        self._partitions = mine
        self._hello = {**self._hello, "members": frame.get("members")}
        self.dispatcher.drop(which=lambda e: isinstance(e, TrackedEvent) and e.track.partition not in mine)
        for p in mine:
            if p not in before:
                self._tracker.gain(p)
        self._live()

    def _begin(self, position: str) -> None:
        """Has what is delivered from now on acknowledged by itself."""
        self._flush(last=True)
        self.dispatcher.drop(orphan=True)
        with self._acking:
            self._tracker = AckTracker(changed=self._done)
        self._tracker.step(position)
        self._delivered = False

    # Tokens.

    def _renew_later(self, connection: Connection, wait: float | None = None) -> None:
        ends = expiry(self._access.token()) if self._access.renewable else None
        if ends is None:
            return
        left = ends - time.time()
        if wait is None:
            # Never at once again and again, where our clock is not the gateway's.
            wait = max(left - min(max(left / 10, 10), 300), left / 2, min(0.2 * 2**self._renewals, 60.0))
        timer = threading.Timer(wait, self._renew, (connection, left - wait))
        timer.daemon = True
        with self._lock:
            if self._connection is not connection:
                return  # it ended meanwhile
            if self._renewal:
                self._renewal.cancel()
            self._renewal = timer
            timer.start()

    def _renew(self, connection: Connection, left: float) -> None:
        """Gets another token; a stream can't be told, so another takes its place."""
        before = self._access.token()
        try:
            after = self._access.token(fresh=True)
        except Exception as error:
            self.trouble.warn("no new token, will try again", error)
            after = before
        if after == before:
            return self._renew_later(connection, max(left / 2, 1.0))
        with self._lock:
            present = self._connection is connection
        if present:
            self._goodbye = True
            self._renewals = min(self._renewals + 1, 10)
            connection.end(errors.ConnectionError("token renewed", retry_after=0))
