"""How events are tried again that the handler failed at: the rules that the
gateway's callbacks follow, too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .backoff import jitter

SOON = 600.0
SOON_WAIT = 15.0
"""For the first ten minutes of trouble a handler is asked every 15 s or so: one
call costs little, and who is well again should not have to wait."""
TROUBLE = 5
"""After so many failures in a row, of more than one event, the handler is asked
for one event at a time."""
SUSPECT = 8
POISON = 3
"""After SUSPECT failures of one event others are looked at: if one passes and
the event fails again, POISON times over, the event is to blame."""


@dataclass(frozen=True)
class Retry:
    """``attempts`` is how often an event is handed to the handler before it is
    rejected; 0 is without end: a CRM that is away for a night costs no event.
    What ``Reject`` says of an event holds at once, and one that fails again and
    again while others pass is rejected as well. ``min`` and ``max`` bound the
    waits between tries, in seconds."""

    attempts: int = 0
    min: float = 1.0
    max: float = 600.0

    def __post_init__(self) -> None:
        for name in ("attempts", "min", "max"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise TypeError(f"{name} is {value!r}, want a number that isn't negative")

    def wait(self, failures: int, since: float, now: float) -> float:
        """The wait after so many failures, the first of them at ``since``."""
        most = min(self.max, SOON_WAIT) if now - since < SOON else self.max
        return jitter(self.min, most, failures - 1)


class History:
    """What is known of an event that was tried in vain."""

    __slots__ = ("tries", "since", "passes", "vouched", "company")

    def __init__(self) -> None:
        self.tries = 0
        self.since = 0.0  # when the first was
        self.passes = 0  # the health's at the last
        self.vouched = 0  # how often in a row another event passed between two of its failures
        self.company = 0  # how many events it may be called with; 0: any

    def failed(self, passes: int, together: int, now: float) -> bool:
        """Notes another failure, in a call of so many; says whether the event
        is to blame."""
        suspect = self.tries >= SUSPECT
        passed = self.tries > 0 and passes != self.passes
        self.tries += 1
        if self.tries == 1:
            self.since = now
        self.passes = passes
        if passed and together > 1:
            self.company = together // 2
        elif suspect and passed:
            self.vouched += 1
        elif not passed:
            self.vouched = 0
        return self.vouched >= POISON


class Health:
    """How the handler is doing, by its calls' ends. After TROUBLE failures in
    a row, of more than one event, it is left in peace between single calls;
    when one is answered, twice as many are allowed with each that follows."""

    def __init__(self) -> None:
        self.passes = 0  # events handled, ever
        self.until = 0.0  # no call begins before
        self._allowed = 0  # calls at once; 0: all that concurrency allows
        self._failures = 0
        self._since = 0.0
        self._whose = ""
        self._several = False

    def limit(self, concurrency: int) -> int:
        return min(self._allowed, concurrency) if self._allowed else concurrency

    def answered(self, concurrency: int) -> bool:
        """Notes a call that came to something; says whether that ends a trouble."""
        over = self._allowed > 0 and self._failures > 0
        self._failures = 0
        self._several = False
        self.until = 0.0
        self._allowed *= 2
        if self._allowed >= concurrency:
            self._allowed = 0
        return over

    def failed(self, retry: Retry, cursor: str, now: float) -> None:
        """Notes a call for the event at ``cursor`` that failed."""
        self._failures += 1
        if self._failures == 1:
            self._since, self._whose = now, cursor
        self._several = self._several or cursor != self._whose
        if self._failures >= TROUBLE and self._several:
            self._allowed = 1
            self.until = now + retry.wait(self._failures, self._since, now)


class Pace:
    """Spaces calls out to a rate, with bursts of one second's worth."""

    def __init__(self, per_second: float) -> None:
        self._every = 1 / per_second if per_second > 0 else 0.0
        self._due = 0.0  # when the next call is due, by a schedule without bursts

    def rest(self, now: float) -> float:
        """How long no call is to begin, in seconds."""
        if not self._every:
            return 0.0
        self._due = max(self._due, now - 1 + min(self._every, 1.0))
        rest = self._due - now
        return rest if rest > 1e-6 else 0.0  # less is the sum's rounding

    def take(self) -> None:
        self._due += self._every
