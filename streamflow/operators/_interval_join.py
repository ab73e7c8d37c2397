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
from streamflow.operators import _check
from streamflow.operators._grid import finite
from streamflow.operators._time import epoch
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime

How = Literal["inner", "left", "right", "outer"]
Out = tuple[Any, tuple[Any, Any]]
Time = EventTime[Any] | ProcessingTime | tuple[EventTime[Any], EventTime[Any]]

Held = list[tuple[float, Any, bool]]
"""Elements of one side, key and bucket in the order of their arrival, each with its time and whether it has matched
(which is of interest where it may be emitted alone)."""

_Place = tuple[int, dict[Hashable, Any], list[tuple[int, dict[Hashable, Any]]]]
"""A namespace, its elements, and the namespaces of the other side that have their partners."""

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
        return _check.late_sides(self.late)

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
        self.state_type = list[tuple[float, join.state, bool]]  # type: ignore[name-defined]
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
        view = scope.view()
        top, bound, closed, lag, ahead = view.top, view.bound, view.closed, view.lag, view.ahead
        minus = -within
        places: dict[float, _Place] = {}
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
                bucket = time // width
                place = places.get(bucket)
                if place is None:
                    place = places[bucket] = self._place(scope, time, side)
                here, own, near = place
                mine: Held | None = own.get(key)
                if time > ahead:
                    scope.ahead += 1
                elif time > top:
                    top = time
                    if top - lag > closed and bound > closed:
                        closed = min(bound, top - lag)
                        if closed > self._next_due:
                            # Before its pairs: what goes alone is older than they are. Where it belongs stays.
                            yield from self._expire(scope, closed)
                if touch is not None:
                    touch(key, here)
                matched = False
                for space, partners in near:
                    theirs: Held | None = partners.get(key)
                    if theirs is None:
                        continue
                    for number, (at, partner, has_matched) in enumerate(theirs):
                        if minus <= time - at <= within:
                            matched = True
                            if notes and not has_matched:
                                table.touch(key, space)
                                theirs[number] = at, partner, True
                            yield side, ((partner, value) if side else (value, partner))
                if mine is None:
                    mine = own[key] = []
                mine.append((time, value, matched))
                if keeps and not matched:
                    self._wait(time, here, key, mine)
        finally:
            scope.saw(top)

    def _place(self, scope: Scope, time: float, side: int) -> _Place:
        """Where an element belongs, and where its partners are."""
        spaces = scope.table.spaces
        bucket = math.floor(finite(time) // self._width)
        here = 2 * bucket + side
        if here not in spaces:
            heappush(self._buckets, here)
            self._next_due = min(self._next_due, self._gone(here))
        theirs = (2 * each + 1 - side for each in (bucket - 1, bucket, bucket + 1))
        near = [(space, spaces[space]) for space in theirs if space in spaces]
        return here, scope.table.space(here), near

    def _wait(self, time: float, space: int, key: Hashable, held: Held) -> None:
        """The last of these elements is emitted alone unless a partner comes."""
        self._count += 1
        heappush(self._waiting, (time, self._count, space, key, held, len(held) - 1))
        self._next_due = min(self._next_due, time + self._within)

    def _gone(self, space: int) -> float:
        """When nobody wants a bucket any more: no partner of its elements can come, and all have been emitted."""
        return (space // 2 + 2) * self._width

    def _expire(self, scope: Scope, until: float) -> Iterator[Out]:
        """Emit what has found no partner by then, in the order of its times, and drop what can find none."""
        table, waiting, buckets = scope.table, self._waiting, self._buckets
        while waiting and waiting[0][0] + self._within < until:
            _, _, space, key, held, number = heappop(waiting)
            time, value, matched = held[number]
            if not matched:
                table.touch(key, space)
                held[number] = time, value, True
                side = space & 1
                yield side, ((None, value) if side else (value, None))
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
            for number, (time, _, matched) in enumerate(held)
            if not matched
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
