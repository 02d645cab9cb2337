"""What threads wait for, so that a signal does no harm.

A handler of signals may raise between any two steps of the main thread, and a
signal that comes as the main thread falls asleep does not wake it. So nothing
here holds a lock that could be left behind, as ``threading.Event`` does, and
the main thread never sleeps for longer than ``NAP`` without a look around.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

NAP = 0.5


class Bell:
    """Wakes those who wait for something to become true."""

    def __init__(self) -> None:
        self._waiters: list[threading.Lock] = []  # each is released when it is rung

    def ring(self) -> None:
        for waiter in tuple(self._waiters):
            try:
                waiter.release()
            except RuntimeError:
                pass  # somebody else woke it

    def wait_for(self, true: Callable[[], bool], timeout: float | None = None) -> bool:
        """Waits until it is true, as long as it may; says whether it is."""
        if true():
            return True
        until = None if timeout is None else time.monotonic() + timeout
        longest = NAP if threading.current_thread() is threading.main_thread() else None
        waiter = threading.Lock()
        waiter.acquire()
        try:
            self._waiters.append(waiter)
            while not true():
                left = longest
                if until is not None:
                    rest = until - time.monotonic()
                    if rest <= 0:
                        return False
                    left = rest if left is None else min(rest, left)
                waiter.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX))
            return True
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)


class Flag:
    """As ``threading.Event``."""

    def __init__(self) -> None:
        self._set = False
        self._bell = Bell()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._bell.ring()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._bell.wait_for(self.is_set, timeout)
