"""What was received and what of it is done, per channel (in a group: per
channel and partition) in the order of delivery. Only the contiguous prefix of
what is done is acknowledged."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from .event import Cursor, parse_cursor, parse_position


MANY = 100
"""So many events done are worth an acknowledgement at once: the window may be
waiting for it."""


class Ack(NamedTuple):
    position: str
    partition: int | None


class Refusal(NamedTuple):
    cursor: str
    reason: str
    attempts: int


class Track:
    __slots__ = ("channel", "partition", "received", "done", "queue", "due", "gone")

    def __init__(self, channel: str, partition: int | None) -> None:
        self.channel = channel
        self.partition = partition
        self.received: Cursor | None = None  # up to here we have it all
        self.done: Cursor | None = None  # up to here all is done
        self.queue: deque[TrackedEvent] = deque()  # what stands behind that
        self.due: Cursor | None = None  # of the last event of the prefix, not yet acknowledged
        self.gone = False  # the partition is another's: nothing is to be said


class TrackedEvent:
    """An event that was received. ``late``: a dead letter that was put back,
    or an event that is resent, which comes behind events that are after it."""

    __slots__ = ("tracker", "track", "cursor", "is_done", "late", "step")

    def __init__(self, tracker: AckTracker, track: Track, cursor: Cursor, late: bool, step: bool) -> None:
        self.tracker = tracker
        self.track = track
        self.cursor = cursor
        self.is_done = step
        self.late = late
        self.step = step  # over what won't come: nothing to acknowledge

    def finish(self) -> None:
        self.tracker._finish(self, None)

    def reject(self, reason: str, attempts: int) -> None:
        self.tracker._finish(self, Refusal(str(self.cursor), reason, max(attempts, 1)))


class AckTracker:
    """An ephemeral subscription has one for its life; a durable one has one for
    each connection, since an acknowledgement of what this connection did not
    deliver is an error. Safe for concurrent use; ``changed`` is called, with no
    lock of ours held, when there is something to say, and whether that is much."""

    def __init__(self, mute: bool = False, changed: Callable[[bool], None] = lambda many: None) -> None:
        self.mute = mute  # nobody asks what is due
        self._changed = changed
        self._lock = threading.Lock()
        self._tracks: dict[tuple[str, int | None], Track] = {}
        self._refusals: list[Refusal] = []
        self._singles: list[Ack] = []
        self._unacknowledged = 0
        self._unsaid = 0  # events done since due was last asked

    def add(self, cursor: str, partition: int | None) -> TrackedEvent:
        at = parse_cursor(cursor)
        with self._lock:
            track = self._track(at.channel, partition)
            last = track.received
            late = last is not None and last.epoch == at.epoch and at.offset <= last.offset
            entry = TrackedEvent(self, track, at, late, False)
            self._unacknowledged += 1
            if not late:
                track.received = at
                track.queue.append(entry)
            return entry

    def step(self, position: str) -> None:
        """Notes that the position moved without events."""
        for at in parse_position(position):
            with self._lock:
                track = self._track(at.channel, None)
                track.received = at
                track.queue.append(TrackedEvent(self, track, at, False, True))
                self._settle(track)

    def _track(self, channel: str, partition: int | None) -> Track:
        track = self._tracks.get((channel, partition))
        if not track:
            track = self._tracks[channel, partition] = Track(channel, partition)
        return track

    def gain(self, partition: int) -> None:
        """Begins a partition anew, which this connection has from now on."""
        with self._lock:
            for name, track in list(self._tracks.items()):
                if track.partition == partition:
                    track.gone = True
                    self._unacknowledged -= sum(not e.step for e in track.queue)
                    del self._tracks[name]

    def _finish(self, entry: TrackedEvent, refusal: Refusal | None) -> None:
        with self._lock:
            if entry.is_done:
                return
            entry.is_done = True
            if entry.track.gone:
                return
            if entry.late:
                self._unacknowledged -= 1
            if refusal and not self.mute:
                self._refusals.append(refusal)
            if not entry.late:
                self._settle(entry.track)
            elif not refusal:
                self._singles.append(Ack(str(entry.cursor), entry.track.partition))
            self._unsaid += 1
            many = self._unsaid >= MANY
        self._changed(many)

    def _settle(self, track: Track) -> None:
        queue = track.queue
        while queue and queue[0].is_done:
            entry = queue.popleft()
            track.done = entry.cursor
            if not entry.step:
                track.due = entry.cursor
                self._unacknowledged -= 1

    def due(self) -> tuple[list[Refusal], list[Ack]]:
        """What is to be told to the gateway, which is forgotten: the refusals,
        which go first since an acknowledgement would cover them, then what to
        acknowledge."""
        with self._lock:
            self._unsaid = 0
            refusals, self._refusals = self._refusals, []
            acks, self._singles = self._singles, []
            positions: dict[int | None, list[str]] = {}
            for track in self._tracks.values():
                if track.due:
                    positions.setdefault(track.partition, []).append(str(track.due))
                    track.due = None
            return refusals, acks + [Ack(",".join(cursors), p) for p, cursors in positions.items()]

    @property
    def unacknowledged(self) -> int:
        """How many events were received that no acknowledgement covers."""
        return self._unacknowledged

    def received(self) -> str:
        return self._position(lambda track: track.received)

    def done(self) -> str:
        return self._position(lambda track: track.done)

    def _position(self, of: Callable[[Track], Cursor | None]) -> str:
        with self._lock:
            cursors = [of(t) for t in self._tracks.values() if t.partition is None]
        return ",".join(sorted(str(c) for c in cursors if c))
