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
from operator import itemgetter
from random import Random
from typing import TypeVar

from attrs import frozen

R = TypeVar("R")

BODY = b"x" * 100  # what a message of the JetStream rows carries

KEYS = 1_000
FEW_KEYS = 100
WINDOW_SECONDS = 60.0
STEP_SECONDS = 1.0
GAP_SECONDS = 7.0
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


async def increment_later(x: int) -> int:
    """A coroutine that never waits."""
    return x + 1


TASKS = 100
"""How many coroutines may run at once in the row of asynchronous maps."""


def busy(x: int) -> int:
    """About a millisecond of pure Python on a common machine."""
    total = 0
    for i in range(14_000):
        total += i * i % 7
    return x if total else -1


def expected_sum(n: int) -> int:
    """Of `triple` over the even numbers among 1..n: 3 × (2 + 4 + … + 2 × half)."""
    half = n // 2
    return 3 * half * (half + 1)


# --- events: a count per key and minute -------------------------------------------------------------------


@lru_cache(maxsize=4)
def events(n: int, keys: int = KEYS) -> Sequence[Event]:
    """`n` events of so many keys over ten minutes of event time, up to 4 s out of order; the same each time.

    The disorder stays below `OUT_OF_ORDER_SECONDS`: nothing is late, also for a peer whose watermark moves on
    with the system clock while it works.
    """
    return _events(n, keys, seed=n)


def _events(n: int, keys: int, seed: int) -> Sequence[Event]:
    random = Random(seed)
    step = _SPAN_SECONDS / n
    made = [(f"k{random.randrange(keys)}", _FIRST + i * step) for i in range(n)]
    made.sort(key=lambda event: event[1] + 4 * random.random())
    return tuple(made)


@lru_cache(maxsize=2)
def expected_counts(n: int) -> Counts:
    """The right answer for `events(n)`."""
    return counts(events(n), WINDOW_SECONDS)


def counts(data: Sequence[Event], size: float) -> Counts:
    """Number of events by key and window."""
    return Counter((key, at // size * size) for key, at in data)


@lru_cache(maxsize=2)
def expected_sliding_counts(n: int) -> Counts:
    """For `events(n, FEW_KEYS)`: each second of a key counts in the windows of a minute that it is in."""
    windows: Counts = Counter()
    for (key, second), count in counts(events(n, FEW_KEYS), STEP_SECONDS).items():
        start = second - WINDOW_SECONDS + STEP_SECONDS
        while start <= second:
            windows[key, start] += count
            start += STEP_SECONDS
    return windows


@lru_cache(maxsize=2)
def expected_sessions(n: int) -> Counts:
    """For `events(n)`: those of a key in order, until there is a gap."""
    sessions: Counts = {}
    begun: dict[str, tuple[float, float]] = {}
    for key, at in sorted(events(n), key=itemgetter(1)):
        start, last = begun.get(key, (at, at))
        if at - last > GAP_SECONDS:
            start = at
        begun[key] = start, at
        sessions[key, start] = sessions.get((key, start), 0) + 1
    return sessions


def one(event: Event) -> int:
    return 1


# --- pairs: events of two streams with one key, at most JOIN_SECONDS apart ---------------------------------


@lru_cache(maxsize=2)
def two_streams(n: int) -> tuple[Sequence[Event], Sequence[Event]]:
    """`n` events for each side, as those of `events`."""
    return _events(n, KEYS, seed=1), _events(n, KEYS, seed=2)


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


# --- visits: a running sum per key, over many keys ---------------------------------------------------------


@lru_cache(maxsize=4)
def visits(n: int, keys: int, is_shuffled: bool) -> Sequence[int]:
    """`n` int keys below `keys`: each in turn, or in random order, the same each time."""
    if is_shuffled:
        random = Random(n)
        return [random.randrange(keys) for _ in range(n)]
    return [number % keys for number in range(n)]


def expected_visit(n: int, keys: int, is_shuffled: bool) -> tuple[int, int]:
    """The last key of `visits`, and its sum when each key was visited once before."""
    made = visits(n, keys, is_shuffled)
    return made[-1], made[-1] * (made.count(made[-1]) + 1)


# Orders: what the rows of checkpoints read

ORDER_KEYS = 10_000
ORDER_SECONDS = 120.0


def order(count: int) -> Callable[[int], bytes]:
    """The messages of `count` orders of so many customers in two minutes, 100 bytes each, by number."""

    def body(number: int) -> bytes:
        text = b'{"customer": %d, "at": %.6f, "note": "' % (
            number * 7919 % ORDER_KEYS,
            number * ORDER_SECONDS / count,
        )
        return text.ljust(98, b".") + b'"}'

    return body
