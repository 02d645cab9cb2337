"""The incoming queue: hands events to the handler at the handler's pace, in
order, in parallel where order allows, each event once.

    connection ──add──▶ lane "alice"  ▇▇▇ ─┐
    connection ──add──▶ lane "bob"    ▇    ├─ ready ─▶ take ─▶ a call of the handler ─▶ settle
    callback ────add──▶ lane "carol"  ▇▇  ─┘                       └─ failed: lane backs off, then ready again

It calls nobody and keeps no time by itself: engines of threads or tasks take
events, call the handler and say how that ended.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .bell import Bell
from .errors import Reject, UnavailableError
from .event import Delivery, Event
from .retry import SUSPECT, Health, History, Pace, Retry

WITNESSES = 8
"""Events left untried for as long as others fail, or may, and the window is
nearly used up: without any, nothing tells a poisonous event, behind which all
the window is done, from a handler in trouble."""

Identity = tuple[str, str, str]


class Entry(Protocol):
    """Where an event's end is noted that came by a connection or a pull."""

    def finish(self) -> None: ...
    def reject(self, reason: str, attempts: int) -> None: ...


class Lane:
    """Events that are handled one after another: in a call (``taken`` of
    them), backing off, or among the ready."""

    __slots__ = ("key", "jobs", "taken", "due", "obeys", "ready", "probing", "probed")

    def __init__(self, key: str | None) -> None:
        self.key = key  # where it is found by one
        self.jobs: deque[Job] = deque()
        self.taken = 0
        self.due = 0.0  # it backs off until then; 0: it doesn't
        self.obeys = False  # for as long as the handler said
        self.ready = False
        self.probing = 0  # where the job came from that is tried before the head
        self.probed = False  # since the head was tried


class Job:
    """An event on its way through the handler."""

    __slots__ = ("event", "identity", "lane", "since", "again", "transport", "replay", "history", "failing", "entries", "replies")

    def __init__(self, event: Event, identity: Identity, again: bool, transport: str, replay: bool) -> None:
        self.event = event
        self.identity = identity
        self.again = again
        self.transport = transport
        self.replay = replay
        self.since = 0.0
        self.lane: Lane
        self.history: History | None = None
        self.failing = False
        self.entries: list[Entry] = []  # whom it came for; empty once they have gone
        self.replies: list[Callable[[BaseException | None], None]] = []


class Past:
    """What became of an event: handled, rejected for a reason, or, with
    neither, tried in vain."""

    __slots__ = ("handled", "refused", "history")

    def __init__(self, handled: bool, refused: str, history: History | None) -> None:
        self.handled = handled
        self.refused = refused
        self.history = history


class Dispatcher:
    """Safe for concurrent use. ``woken`` is called, with the lock held, when
    there may be something to take."""

    def __init__(
        self,
        *,
        concurrency: int = 1,
        rate: float = 0,
        batch: int = 0,
        batch_wait: float = 0,
        retry: Retry = Retry(),
        remember: int = 10_000,
        warn: Callable[[str, object], None] = lambda message, detail: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.RLock()
        self._changed = Bell()
        self.woken: Callable[[], None] = lambda: None
        self.window = 0  # how many events may be unacknowledged, and how many are: for what is spared
        self.unacknowledged: Callable[[], int] = lambda: 0
        self.busy = 0  # calls in progress
        self.wait: float | None = None  # after a take that gave nothing: when to ask again, if nobody is woken
        self._concurrency = concurrency
        self._batch = batch or 1
        self._fill = batch_wait
        self._pace = Pace(rate)
        self._retry = retry
        self._remember = remember
        self._warn = warn
        self._clock = clock
        self._health = Health()
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._away: set[Lane] = set()  # in a call or backing off
        self._timers: list[tuple[float, int, Lane]] = []
        self._made = 0  # timers, to tell those of one moment apart
        self._waiting = 0  # jobs in ready lanes
        self._size = 0
        self._failing = 0  # jobs that failed and stay
        self._jobs: dict[Identity, Job] = {}
        self._past: dict[Identity, Past] = {}
        self._open = True

    @property
    def size(self) -> int:
        """Events that are waiting, backing off or being handled."""
        return self._size

    def until(self, size: int, timeout: float | None = None) -> bool:
        """Waits until at most ``size`` events are left, or it is closed; says
        whether they are."""
        self._changed.wait_for(lambda: self._size <= size or not self._open, timeout)
        return self._size <= size

    def idle(self, timeout: float | None = None) -> bool:
        """Waits until no call is in progress; says whether there is none."""
        return self._changed.wait_for(lambda: not self.busy, timeout)

    def resting(self) -> bool:
        """Whether nothing is to be done now: all that is left backs off, or the
        handler is left in peace."""
        with self.lock:
            now = self._clock()
            self._release(now)
            return not self.busy and (not self._ready or self._health.until > now)

    def add(self, event: Event, entry: Entry, again: bool, transport: str, replay: bool = False) -> None:
        """Takes an event of a connection or a pull. ``again``: it may have been
        handled before; then it isn't, where that is known."""
        with self.lock:
            if not self._open:
                return
            job, past = self._admit(event, again, transport, replay)
            if job:
                job.entries.append(entry)
            elif past and past.handled:
                entry.finish()
            elif past:
                entry.reject(past.refused, past.history.tries if past.history else 1)

    def ask(self, event: Event, again: bool, reply: Callable[[BaseException | None], None]) -> None:
        """Takes an event of a callback; ``reply`` gets what the one call for it
        raised, or None. Trying again is the gateway's."""
        with self.lock:
            rest = self._health.until - self._clock()
            if not self._open:
                return reply(UnavailableError("the subscription is closed", retry_after=1))
            if rest > 0:
                # It waits better than we do: it can call somebody else.
                return reply(UnavailableError("the handler is failing and left in peace", retry_after=rest))
            job, past = self._admit(event, again, "callback", False)
            if job:
                job.replies.append(reply)
            elif past:
                reply(None if past.handled else Reject(past.refused))

    def _admit(self, event: Event, again: bool, transport: str, replay: bool) -> tuple[Job | None, Past | None]:
        """The event's job, a new one or the one it has already, or else what
        became of it before."""
        identity = (event.channel, event.source, event.id)
        past = None
        if self._remember:
            known = self._jobs.get(identity)
            if known:
                return known, None
            past = self._past.get(identity)
            if past and again and (past.handled or past.refused):
                return None, past
        job = Job(event, identity, again, transport, replay)
        if past:
            job.history = past.history if not (past.handled or past.refused) else None
        if self._remember:
            self._jobs[identity] = job
        if self._batch > 1:
            job.since = self._clock()
        # With one call at a time all go through one lane; events without a key have one each.
        key: str | None = event.partitionkey or None if self._concurrency > 1 else ""
        lane = None if key is None else self._lanes.get(key)
        if lane is None:
            lane = Lane(key)
            if key is not None:
                self._lanes[key] = lane
        job.lane = lane
        lane.jobs.append(job)
        self._size += 1
        if lane.ready:
            self._waiting += 1
        else:
            self._queue(lane)
        self.woken()
        return job, None

    def _queue(self, lane: Lane) -> None:
        """Puts a lane where it belongs when it is neither in a call nor backing
        off any more, or got its first job."""
        if lane.ready or lane.taken or lane.due:
            return
        self._away.discard(lane)
        if not lane.jobs:
            if lane.key is not None:
                self._lanes.pop(lane.key, None)
            return
        lane.ready = True
        self._ready.append(lane)
        self._waiting += len(lane.jobs)

    def take(self, single: bool = False) -> tuple[list[Event], Delivery, list[Job]] | None:
        """The next call's events, as many as may be together; the call counts
        as begun. None where there is none now: ``wait`` says when to look
        again. ``single``: one event, whatever the batch."""
        with self.lock:
            now = self._clock()
            self._release(now)
            self.wait = self._timers[0][0] - now if self._timers else None
            if not self._ready or self.busy >= self._health.limit(self._concurrency):
                return None
            rest = max(self._health.until - now, self._pace.rest(now))
            if self._batch > 1 and self._waiting < self._batch:
                rest = max(rest, self._ready[0].jobs[0].since + self._fill - now)
            if rest > 0:
                self.wait = rest if self.wait is None else min(rest, self.wait)
                return None
            jobs = self._gather(1 if single else self._batch)
            if not jobs:
                return None
            self._pace.take()
            self.busy += 1
            attempt = max(j.history.tries if j.history else 0 for j in jobs) + 1
            about = Delivery(attempt, any(j.again for j in jobs), jobs[0].transport, jobs[0].replay)
            if self._ready:
                self.woken()
            return [j.event for j in jobs], about, jobs

    def _release(self, now: float) -> None:
        while self._timers and (self._timers[0][0] <= now or not self._timers[0][2].due):
            due, _, lane = heapq.heappop(self._timers)
            if lane.due == due:  # it may have been hastened, or emptied
                lane.due = 0.0
                self._queue(lane)

    def _gather(self, room: int) -> list[Job]:
        jobs: list[Job] = []
        if self._sparing():
            room = 1
            if not self._witness():
                return jobs
        while self._ready and len(jobs) < room:
            lane = self._ready[0]
            if not jobs:
                self._probe(lane)
            n = 0
            for job in lane.jobs:
                together = min(room, self._company(job))
                if len(jobs) + n >= together or lane.probing and n:
                    break
                room = together
                n += 1
            if not n:
                break
            for i in range(n):
                jobs.append(lane.jobs[i])
            self._waiting -= len(lane.jobs)
            lane.taken, lane.ready = n, False
            self._away.add(lane)
            self._ready.popleft()
            if lane.probing:
                break
        return jobs

    def _sparing(self) -> bool:
        """Whether untried events are to be spared. Where one call is made at a
        time, all behind the failing event is untried; a window that is small
        for so many calls is not made smaller."""
        if self._concurrency == 1 or not self.window:
            return False
        ample = self.window >= 4 * (self._concurrency * self._batch + WITNESSES)
        if not self._failing and not (self.busy and ample):
            return False
        if self.unacknowledged() < self.window - min(WITNESSES, self.window // 2):
            return False
        return sum(len(lane.jobs) for lane in self._ready if not lane.jobs[0].history) < WITNESSES + self._batch

    def _witness(self) -> bool:
        """Brings to the front what is to be tried although events are spared:
        one that failed, or before a suspect, a witness."""
        at = next((i for i, lane in enumerate(self._ready) if lane.jobs[0].history), -1)
        if at < 0:
            return False
        lane = self._ready[at]
        other = -1
        if not lane.probed and self._suspects(lane.jobs[0]):
            other = next((i for i, one in enumerate(self._ready) if not one.jobs[0].history), -1)
        lane.probed = other >= 0
        at = other if other >= 0 else at
        first = self._ready[at]
        del self._ready[at]
        self._ready.appendleft(first)
        return True

    def _suspects(self, job: Job) -> bool:
        h = job.history
        return h is not None and h.tries >= SUSPECT and h.passes == self._health.passes

    def _probe(self, lane: Lane) -> None:
        """Puts another event before the lane's head, if that is suspect:
        whether that one passes tells a poisonous event from a handler in
        trouble. It has another key, and none of its own before it, so that
        each key's order stands."""
        if self._concurrency > 1:
            return
        if lane.probed or not self._suspects(lane.jobs[0]):
            lane.probed = False
            return
        seen = {lane.jobs[0].event.partitionkey} - {""}
        others = []
        for i, job in enumerate(lane.jobs):
            key = job.event.partitionkey
            if i and key not in seen:
                others.append(i)
            if key:
                seen.add(key)
        if not others:
            return
        at = random.choice(others)  # any of them, since that one may be poisonous, too
        job = lane.jobs[at]
        del lane.jobs[at]
        lane.jobs.appendleft(job)
        lane.probing, lane.probed = at, True

    def _company(self, job: Job) -> int:
        """An event goes alone on its last try, and with ever fewer where others
        pass meanwhile, so that it pays for nobody else's fault."""
        h = job.history
        if not h:
            return self._batch
        if self._retry.attempts and h.tries + 1 >= self._retry.attempts:
            return 1
        return h.company or self._batch

    def settle(self, jobs: list[Job], error: BaseException | None, stopped: bool = False) -> list[tuple[Event, BaseException]]:
        """Ends a call: its events are done, or their lanes back off until the
        next try. A call that was ``stopped`` counts as no try, and where all of
        it ends, what it had is left. Returns what is rejected, and why."""
        refused: list[tuple[Event, BaseException]] = []
        with self.lock:
            now = self._clock()
            self.busy -= 1
            rejects = isinstance(error, Reject)
            if error is None:
                self._health.passes += 1
            if error is not None and not rejects:
                if not stopped:
                    self._health.failed(self._retry, jobs[0].event.cursor or jobs[0].event.id, now)
            elif self._health.answered(self._concurrency):
                self._hasten(now)
            tries = 0
            lanes = {id(j.lane): j.lane for j in jobs}
            for lane in lanes.values():
                n = lane.taken
                mine = [lane.jobs.popleft() for _ in range(n)]
                kept = []
                for job in mine:
                    why = error
                    if isinstance(error, Reject) and error.ids is not None and job.event.id not in error.ids:
                        why = None
                    if self._stays(job, why, rejects, stopped, len(jobs), now):
                        kept.append(job)
                        tries = max(tries, job.history.tries if job.history else 0)
                    elif why is not None and (rejects or job.entries) and not stopped:
                        refused.append((job.event, why))
                lane.taken = 0
                if kept and lane.probing:  # back behind those that it was put before
                    lane.jobs.insert(min(lane.probing, len(lane.jobs)), kept[0])
                else:
                    lane.jobs.extendleft(reversed(kept))
                lane.probing = 0
                if kept:
                    head = lane.jobs[0].history or History()
                    self._back_off(lane, self._retry.wait(max(head.tries, 1), head.since, now), _asked(error), now)
                else:
                    self._queue(lane)
            if tries:
                self._warn("the handler failed, will try again", error)
            self._changed.ring()
            self.woken()
        return refused

    def _stays(self, job: Job, why: BaseException | None, rejects: bool, stopped: bool, together: int, now: float) -> bool:
        """Tells those who wait for an event what became of it. A failed event
        of a subscription stays, to be tried again."""
        refused = why if rejects else None
        failed = why is not None and not rejects
        stays = failed and bool(job.entries) and (not stopped or self._open)
        if stays and not stopped:
            job.history = job.history or History()
            poison = job.history.failed(self._health.passes, together, now)
            if poison or self._retry.attempts and job.history.tries >= self._retry.attempts:
                refused, failed, stays = why, False, False
        for reply in job.replies:
            reply(why)
        job.replies = []
        if stays:
            if not job.failing and not stopped:
                job.failing = True
                self._failing += 1
            return True
        self._leave(job)
        if refused is None and failed:
            # Stopped, or a callback's alone: it comes again, and is known by its tries.
            self._note(job, Past(False, "", job.history))
            return False
        past = Past(refused is None, _reason(refused), job.history)
        self._note(job, past)
        for entry in job.entries:
            if refused is None:
                entry.finish()
            else:
                entry.reject(past.refused, past.history.tries if past.history else 1)
        return False

    def _note(self, job: Job, past: Past) -> None:
        if not self._remember:
            return
        self._jobs.pop(job.identity, None)
        self._past.pop(job.identity, None)
        if past.handled or past.refused or past.history:
            self._past[job.identity] = past
            if len(self._past) > self._remember:
                del self._past[next(iter(self._past))]

    def _leave(self, job: Job) -> None:
        self._size -= 1
        if job.failing:
            job.failing = False
            self._failing -= 1

    def _back_off(self, lane: Lane, wait: float, asked: float, now: float) -> None:
        lane.obeys = asked > 0
        self._away.add(lane)
        self._set(lane, now + max(wait, asked))

    def _set(self, lane: Lane, due: float) -> None:
        lane.due = due
        self._made += 1
        heapq.heappush(self._timers, (due, self._made, lane))

    def _hasten(self, now: float) -> None:
        """Has the lanes that back off try soon, since the handler is well
        again. Their waits had grown with a trouble that was not theirs."""
        for lane in self._away:
            if lane.due and not lane.obeys:
                self._set(lane, now + random.random() * self._retry.min)

    def drop(self, orphan: bool = False, which: Callable[[Entry], bool] = lambda entry: True) -> None:
        """Forgets what a connection brought, or what of it ``which`` says, and
        no call has begun: it comes again. Calls in progress go on; ``orphan``:
        what they settle can't be acknowledged any more."""
        with self.lock:
            lanes = [*self._ready, *self._away]
            self._ready.clear()
            self._waiting = 0
            for lane in lanes:
                lane.ready = False
                kept: deque[Job] = deque()
                for i, job in enumerate(lane.jobs):
                    mine = bool(job.entries) and any(which(e) for e in job.entries)
                    if mine and (orphan or i >= lane.taken):
                        job.entries = [e for e in job.entries if not which(e)]
                    if i < lane.taken or job.replies or job.entries or not mine:
                        kept.append(job)
                    else:
                        self._leave(job)
                        self._note(job, Past(False, "", job.history))
                lane.jobs = kept
                if not kept:
                    lane.due = 0.0
                self._queue(lane)
            self._changed.ring()
            self.woken()

    def forget(self) -> None:
        """Has events that come again handled again, since somebody asked for them."""
        with self.lock:
            self._past.clear()

    def open(self) -> None:
        with self.lock:
            self._open = True

    def close(self) -> None:
        """Takes no more events, and drops those that no call has begun."""
        with self.lock:
            self._open = False
            self.drop()


def _asked(error: BaseException | None) -> float:
    """How long an error says to wait, in seconds."""
    wait = getattr(error, "retry_after", None)
    return float(wait) if isinstance(wait, (int, float)) else 0.0


def _reason(error: BaseException | None) -> str:
    return "" if error is None else (str(error) or type(error).__name__)[:1000]
