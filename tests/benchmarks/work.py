"""The work that every contestant does, and how its time is taken.

The functions and the data live here once, so that ours and the peers cannot differ in what they compute; what
they return is compared with an answer computed another way, so that none is fast by being wrong.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from typing import TypeVar

from attrs import frozen

R = TypeVar("R")

BODY = b"x" * 100  # what a message of the JetStream rows carries

KEYS = 1_000
WINDOW_SECONDS = 60.0
OUT_OF_ORDER_SECONDS = 5.0
JOIN_SECONDS = 5.0
_SPAN_SECONDS = 600.0
_FIRST = 1_700_000_040.0  # the start of a minute

Event = tuple[str, float]
"""A key and a time in epoch seconds."""

Counts = dict[tuple[str, float], int]
"""Number of events by key and start of the window."""


class Absent(Exception):
    """A peer that cannot run here: not installed, or without a wheel for this Python."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} is absent: {reason}")
        self.name = name
        self.reason = reason


@frozen
class Measured:
    """One measurement: `seconds` for `elements` (1 when the time is not spread over elements)."""

    seconds: float
    elements: int = 1

    @property
    def each(self) -> float:
        """Seconds per element: what contestants are compared by, so a slow one may run on fewer elements."""
        return self.seconds / self.elements


def require(distribution: str, module: str | None = None) -> None:
    """Raise `Absent` unless the peer can be imported."""
    try:
        importlib.import_module(module or distribution)
    except ImportError as error:
        raise Absent(distribution, str(error)) from error


def version(distribution: str) -> str:
    """The installed version, or "absent"."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def timed(call: Callable[[], R]) -> tuple[R, float]:
    """What `call` returns, and the seconds it took."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def expect(what: str, got: object, expected: object) -> None:
    """Raise unless a contestant computed the right thing."""
    if got != expected:
        raise AssertionError(f"{what}: got {str(got)[:200]}, expected {str(expected)[:200]}")


# --- numbers: map, filter, map, sum -----------------------------------------------------------------------


def increment(x: int) -> int:
    return x + 1


def even(x: int) -> bool:
    return x % 2 == 0


def triple(x: int) -> int:
    return x * 3


def expected_sum(n: int) -> int:
    """Of `triple` over the even numbers among 1..n: 3 × (2 + 4 + … + 2 × half)."""
    half = n // 2
    return 3 * half * (half + 1)


# --- events: a count per key and minute -------------------------------------------------------------------


@lru_cache(maxsize=2)
def events(n: int) -> Sequence[Event]:
    """`n` events of 1,000 keys over ten minutes of event time, up to 4 s out of order; the same each time.

    The disorder stays below `OUT_OF_ORDER_SECONDS`: nothing is late, also for a peer whose watermark moves on
    with the system clock while it works.
    """
    return _events(n, seed=n)


def _events(n: int, seed: int) -> Sequence[Event]:
    random = Random(seed)
    step = _SPAN_SECONDS / n
    made = [(f"k{random.randrange(KEYS)}", _FIRST + i * step) for i in range(n)]
    made.sort(key=lambda event: event[1] + 4 * random.random())
    return tuple(made)


@lru_cache(maxsize=2)
def expected_counts(n: int) -> Counts:
    """The right answer for `events(n)`."""
    return Counter((key, at // WINDOW_SECONDS * WINDOW_SECONDS) for key, at in events(n))


# --- pairs: events of two streams with one key, at most JOIN_SECONDS apart ---------------------------------


@lru_cache(maxsize=2)
def two_streams(n: int) -> tuple[Sequence[Event], Sequence[Event]]:
    """`n` events for each side, as those of `events`."""
    return _events(n, seed=1), _events(n, seed=2)


@lru_cache(maxsize=2)
def expected_pairs(n: int) -> int:
    """The number of pairs of `two_streams(n)`."""
    times: dict[str, list[float]] = defaultdict(list)
    left, right = two_streams(n)
    for key, at in sorted(right, key=lambda event: event[1]):
        times[key].append(at)
    return sum(
        bisect_right(times[key], at + JOIN_SECONDS) - bisect_left(times[key], at - JOIN_SECONDS)
        for key, at in left
    )


@lru_cache(maxsize=2)
def expected_products(n: int) -> int:
    """The number of rows when the events of each key and window are paired, or go alone."""
    sides = [Counter((key, at // WINDOW_SECONDS) for key, at in side) for side in two_streams(n)]
    return sum(max(sides[0][slot], 1) * max(sides[1][slot], 1) for slot in {*sides[0], *sides[1]})
