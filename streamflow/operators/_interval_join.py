"""How `join` within a time span runs: state in buckets of time, so that it goes when the watermark has passed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any, Literal

from attrs import frozen

from streamflow.engine.transform import UNBOUNDED, Logic, Scope, Transform
from streamflow.graph import Flow, Sink
from streamflow.operators._grid import finite
from streamflow.operators._time import epoch
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime

How = Literal["inner", "left", "right", "outer"]
Out = tuple[Any, tuple[Any, Any]]
Time = EventTime[Any] | ProcessingTime | tuple[EventTime[Any], EventTime[Any]]

Held = tuple[list[float], list[Any], list[bool]]
"""Elements of one side, key and bucket in the order of their arrival: times, elements, and whether each has matched."""

_JUST_AFTER = 1e-6
"""Seconds after which a clock is certainly past a time."""


@frozen
class IntervalJoin(Flow[Any, Any]):
    """Pairs of elements with equal keys, not further apart in time than ``within``."""

    on: tuple[Callable[[Any], Hashable], Callable[[Any], Hashable]]
    within: float
    how: How
    time: Time
    late: Sink[Any, Any] | None
    state: Any
    on_error: ErrorPolicy | None
    label = "join"

    def sides(self) -> dict[str, Sink[Any, Any]]:
        return {} if self.late is None else {"late": self.late}

    def transform(self) -> Transform:
        return _IntervalLogic(self)


class _IntervalLogic(Logic[Any, Any]):
    """The table has a namespace for each side and bucket, numbered ``2 × bucket + side``: key → `Held`.

    A bucket is a little longer than ``within``, so that a partner is in the same one or in the next on either side.
    """

    holds = UNBOUNDED
    inputs = 2

    def __init__(self, join: IntervalJoin) -> None:
        self.time = join.time
        self.late = join.late
        self.state_type = tuple[list[float], list[join.state], list[bool]]  # type: ignore[name-defined]
        self._on = join.on
        self._within = join.within
        self._width = max(join.within, 1e-3) * 1.001
        self._keeps = join.how in ("left", "outer"), join.how in ("right", "outer")
        times = self.event_times
        self._extract = [time.extract for time in (times * 2 if len(times) == 1 else times)]
        # Indexes of the table, made anew at the start.
        self._waiting: list[tuple[Any, ...]] = []
        """What is to be emitted alone unless a partner comes: time, running number, and where it is."""
        self._count = 0
        self._buckets: list[int] = []
        """The namespaces that there are."""
        self._next_due = math.inf

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[Out]:
        table, side, now = scope.table, scope.port, scope.now
        touch = table.touch if table.tracked else None
        other = 1 - side
        key_of, within, width = self._on[side], self._within, self._width
        keeps, notes = self._keeps[side], self._keeps[other]
        extract: Callable[[Any], Any] = self._extract[side] if self._extract else lambda _: now
        # Each element is judged by the watermark before it and then advances it, as in windows.
        if not self._extract:
            top, bound, closed, lag, ahead = math.inf, 0.0, now, 0.0, 0.0
        else:
            view = scope.watermark.view(scope.origin, now)
            top, bound, closed, lag, ahead = view.top, view.bound, view.closed, view.lag, view.ahead
        low, high, here, minus = 0.0, -math.inf, 0, -within
        own: dict[Hashable, Any] = {}
        near: list[tuple[int, dict[Hashable, Any]]] = []
        try:
            if closed > self._next_due:
                yield from self._expire(scope, closed)
            for _, value in rows:
                time: Any = extract(value)
                if time.__class__ is not float:
                    time = epoch(time)
                if time < closed:
                    scope.late(value)
                    continue
                key = key_of(value)
                if not low <= time < high:
                    bucket = math.floor(finite(time) / width)
                    low, high = bucket * width, (bucket + 1) * width
                    here = 2 * bucket + side
                    own, near = self._open_bucket(scope, bucket, side), self._near(scope, bucket, other)
                mine: Held | None = own.get(key)
                if touch is not None:
                    touch(key, here)
                if mine is None:
                    mine = own[key] = ([], [], [])
                mine[0].append(time)
                mine[1].append(value)
                matched = False
                for space, partners in near:
                    theirs: Held | None = partners.get(key)
                    if theirs is None:
                        continue
                    for number, at in enumerate(theirs[0]):
                        if minus <= time - at <= within:
                            matched = True
                            if notes and not theirs[2][number]:
                                table.touch(key, space)
                                theirs[2][number] = True
                            partner = theirs[1][number]
                            yield side, ((partner, value) if side else (value, partner))
                if keeps:
                    mine[2].append(matched)
                    if not matched:
                        self._wait(time, here, key, mine)
                if time > top:
                    if time > ahead:
                        scope.ahead += 1
                        continue
                    top = time
                    if top - lag > closed and bound > closed:
                        closed = min(bound, top - lag)
                        if closed > self._next_due:
                            yield from self._expire(scope, closed)
                            high = -math.inf
        finally:
            if self._extract:
                scope.watermark.saw(scope.origin, top)

    def _open_bucket(self, scope: Scope, bucket: int, side: int) -> dict[Hashable, Any]:
        """The elements of a side that an element is about to be added to."""
        space = 2 * bucket + side
        if space not in scope.table.spaces:
            heappush(self._buckets, space)
            self._next_due = min(self._next_due, self._gone(space))
        return scope.table.space(space)

    def _near(self, scope: Scope, bucket: int, side: int) -> list[tuple[int, dict[Hashable, Any]]]:
        """Where the partners of a bucket's elements are."""
        spaces = scope.table.spaces
        near = (2 * each + side for each in (bucket - 1, bucket, bucket + 1))
        return [(space, spaces[space]) for space in near if space in spaces]

    def _wait(self, time: float, space: int, key: Hashable, held: Held) -> None:
        """The last of these elements is emitted alone unless a partner comes."""
        self._count += 1
        heappush(self._waiting, (time, self._count, space, key, held, len(held[0]) - 1))
        self._next_due = min(self._next_due, time + self._within)

    def _gone(self, space: int) -> float:
        """When nobody wants a bucket any more: no partner of its elements can come, and all have been emitted."""
        return (space // 2 + 2) * self._width

    def _expire(self, scope: Scope, until: float) -> Iterator[Out]:
        """Emit what has found no partner by then, in the order of its times, and drop what can find none."""
        table, waiting, buckets = scope.table, self._waiting, self._buckets
        while waiting and waiting[0][0] + self._within < until:
            _, _, space, key, (_, values, matches), number = heappop(waiting)
            if not matches[number]:
                table.touch(key, space)
                matches[number] = True
                side = space & 1
                yield side, ((None, values[number]) if side else (values[number], None))
        while buckets and self._gone(buckets[0]) < until:
            table.drop(heappop(buckets))
        self._next_due = min(
            waiting[0][0] + self._within if waiting else math.inf,
            self._gone(buckets[0]) if buckets else math.inf,
        )

    def on_start(self, scope: Scope) -> None:
        spaces: Any = scope.table.spaces
        self._buckets = sorted(spaces)
        self._next_due = math.inf if not spaces else self._gone(self._buckets[0])
        waits = [
            (time, space, key, held, number)
            for space in self._buckets
            if self._keeps[space & 1]
            for key, held in spaces[space].items()
            for number, time in enumerate(held[0])
            if not held[2][number]
        ]
        waits.sort(key=itemgetter(0))
        self._count = len(waits)
        self._waiting = [(time, count, *rest) for count, (time, *rest) in enumerate(waits)]
        if waits:
            self._next_due = min(self._next_due, waits[0][0] + self._within)

    def on_watermark(self, scope: Scope, time: float) -> Iterable[Out]:
        return self._expire(scope, time)

    def on_end(self, scope: Scope) -> Iterable[Out]:
        return self._expire(scope, math.inf)

    def next_close(self, scope: Scope) -> float | None:
        return self._next_due + _JUST_AFTER if self._next_due < math.inf else None

    def promise(self, scope: Scope, watermark: float) -> float:
        """Who takes the earlier of a pair for the time has nothing late, either."""
        return watermark - self._within
