"""The yardsticks: what hand-written Python takes for the same work.

The loops live in functions. At module level they would pay for global names, and flatter us.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from tests.benchmarks.work import (
    GAP_SECONDS,
    WINDOW_SECONDS,
    Counts,
    Event,
    Measured,
    even,
    events,
    expect,
    expected_counts,
    expected_sessions,
    expected_sum,
    expected_visit,
    increment,
    timed,
    triple,
    visits,
)


def plain_loop(n: int) -> Measured:
    """`n` ints through the functions of the pipeline, called one by one."""
    total, seconds = timed(lambda: _sum(n))
    expect("plain loop", total, expected_sum(n))
    return Measured(seconds, n)


def dict_loop(n: int) -> Measured:
    """`n` events counted by key and window in a dict; no function calls, no watermark, no late check."""
    data = events(n)
    counts, seconds = timed(lambda: _count(data, WINDOW_SECONDS))
    expect("dict loop", counts, expected_counts(n))
    return Measured(seconds, n)


def visits_loop(n: int, keys: int, is_shuffled: bool) -> Measured:
    """`n` visits of live keys, a running sum for each in a dict."""
    data = visits(n, keys, is_shuffled)
    sums = {key: key for key in range(keys)}
    _, seconds = timed(lambda: _add(sums, data))
    expect("visits loop", (data[-1], sums[data[-1]]), expected_visit(n, keys, is_shuffled))
    return Measured(seconds, n)


def _add(sums: dict[int, int], data: Sequence[int]) -> None:
    for key in data:
        sums[key] = sums.get(key, 0) + key


def session_loop(n: int) -> Measured:
    """`n` events sorted by time and then counted by key and session: all at once, when all are there."""
    data = events(n)
    counts, seconds = timed(lambda: _sessions(data, GAP_SECONDS))
    expect("session loop", counts, expected_sessions(n))
    return Measured(seconds, n)


def _sum(n: int) -> int:
    total = 0
    for x in range(n):
        x = increment(x)
        if even(x):
            total += triple(x)
    return total


def _count(data: Sequence[Event], size: float) -> Counts:
    counts: Counts = {}
    for key, at in data:
        slot = (key, at // size * size)
        counts[slot] = counts.get(slot, 0) + 1
    return counts


def _sessions(data: Sequence[Event], gap: float) -> Counts:
    counts: Counts = {}
    slots: dict[str, tuple[str, float]] = {}
    lasts: dict[str, float] = {}
    for key, at in sorted(data, key=itemgetter(1)):
        if key not in lasts or at - lasts[key] > gap:
            slots[key] = key, at
            counts[key, at] = 0
        lasts[key] = at
        counts[slots[key]] += 1
    return counts
