"""Waits that grow by doubling, with full jitter, so that those who failed
together don't come back together."""

from __future__ import annotations

import random


def jitter(least: float, most: float, n: int) -> float:
    """A wait for the n-th failure, counted from 0, in seconds."""
    return random.random() * min(most, least * float(2 ** min(n, 40)))
