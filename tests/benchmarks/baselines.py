"""The yardsticks: what hand-written Python takes for the same work.

The loops live in functions. At module level they would pay for global names, and flatter us.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from operator import itemgetter

from tests.benchmarks.work import (
    GAP_SECONDS,
    JOIN_SECONDS,
    OUT_OF_ORDER_SECONDS,
    WINDOW_SECONDS,
    Counts,
    Event,
    Measured,
    even,
    events,
    expect,
    expected_counts,
    expected_pairs,
    expected_sessions,
    expected_sum,
    expected_visit,
    increment,
    timed,
    triple,
    two_streams,
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


def join_loop(n: int) -> Measured:
    """`n` events of each side, joined by key and time; forgets what is too old, by the time of the event in hand."""
    left, right = two_streams(n)
    pairs, seconds = timed(lambda: list(_joined(left, right)))
    expect("join loop", len(pairs), expected_pairs(n))
    return Measured(seconds, 2 * n)


def _joined(left: Sequence[Event], right: Sequence[Event]) -> Iterator[tuple[Event, Event]]:
    lefts: dict[str, deque[Event]] = {}
    rights: dict[str, deque[Event]] = {}
    keep = JOIN_SECONDS + OUT_OF_ORDER_SECONDS
    for pair in zip(left, right, strict=True):
        for side, event in enumerate(pair):
            own, others = (rights, lefts) if side else (lefts, rights)
            key, at = event
            held = others.get(key)
            if held is not None:
                while held and held[0][1] < at - keep:
                    held.popleft()
                for other in held:
                    if -JOIN_SECONDS <= other[1] - at <= JOIN_SECONDS:
                        yield (other, event) if side else (event, other)
            if key not in own:
                own[key] = deque()
            own[key].append(event)


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
