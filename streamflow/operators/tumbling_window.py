"""`TumblingWindow`: one window after the other, each element in exactly one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar, overload

from attrs import field, frozen

from streamflow.engine.transform import UNBOUNDED, Logic, Scope, Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.message import Window
from streamflow.operators import _check
from streamflow.operators._time import epoch
from streamflow.operators.aggregators import Aggregator, ToList, check_aggregator
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime, seconds

T = TypeVar("T")
A = TypeVar("A")


@frozen(init=False)
class TumblingWindow(Flow[T, Window[A]]):
    """Cut time into windows of ``size`` and emit one `Window` for each that had elements.

    ::

        ──1──2──|──3──|──▶
         TumblingWindow(size, into=Count())
        ────────2─────1──▶

    Windows are aligned to the epoch: with ``size`` an hour they begin on the hour (UTC). ``time`` is `ProcessingTime`
    (the default: the pipeline's clock) or `EventTime`: then a window is emitted when the watermark passes its end, and
    an element whose window is closed already is dropped and counted as late. ``into`` is an aggregator, by default
    `ToList`. Inside `Keyed` each key has windows of its own under one watermark.

    Emits when a window closes, in the order of their ends. Completes with its input, after emitting open windows; a
    drain does not emit them. Holds one accumulator for each open window (and key).

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import EventTime, Source
    >>> from streamflow.connectors import Collect
    >>> from streamflow.operators import Count
    >>> window = TumblingWindow(timedelta(seconds=10), time=EventTime(lambda t: t), into=Count())
    >>> asyncio.run(Source([1, 2, 11]).via(window).to(Collect()).run())
    [Window(start=0.0, end=10.0, value=2, revision=0), Window(start=10.0, end=20.0, value=1, revision=0)]

    Raises `ConfigurationError` for a size that is not positive. Source of the idea: go-streams' ``TumblingWindow``;
    watermarks as in the Dataflow model.
    """

    size: timedelta
    time: EventTime[T] | ProcessingTime = field(kw_only=True)
    into: Aggregator[T, A] = field(kw_only=True)
    on_error: ErrorPolicy | None = field(kw_only=True)

    @overload
    def __init__(
        self: TumblingWindow[T, list[T]],
        size: timedelta,
        *,
        time: EventTime[T] | ProcessingTime = ...,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        size: timedelta,
        *,
        time: EventTime[T] | ProcessingTime = ...,
        into: Aggregator[T, A],
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    def __init__(
        self,
        size: timedelta,
        *,
        time: EventTime[T] | ProcessingTime | None = None,
        into: Aggregator[T, Any] | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        time = ProcessingTime() if time is None else time
        aggregator: Aggregator[T, Any] = ToList() if into is None else into
        seconds(size, "TumblingWindow's size")
        check_aggregator(aggregator, "TumblingWindow's into")
        _check.policy(on_error, "TumblingWindow")
        if not isinstance(time, EventTime | ProcessingTime):
            raise ConfigurationError(
                f"TumblingWindow's time must be EventTime(extract) or ProcessingTime(), not {time!r}"
            )
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(size, time=time, into=aggregator, on_error=on_error)  # pyright: ignore[reportAttributeAccessIssue]

    def transform(self) -> Transform:
        size = seconds(self.size, "TumblingWindow's size")
        if isinstance(self.time, EventTime):
            return _EventTimeWindows(size, self.time, self.into)
        return _ProcessingTimeWindows(size, self.into)


class _Windows(Logic[Any, Any]):
    """A namespace of the table for each open window: its start → key → accumulator."""

    holds = UNBOUNDED

    def __init__(self, size: float, into: Aggregator[Any, Any]) -> None:
        self.size = size
        self.into = into
        self.state_type = into.state

    def close(self, scope: Scope, until: float) -> Iterator[tuple[Any, Window[Any]]]:
        """Emit the windows that end at or before ``until``."""
        table, size, result = scope.table, self.size, self.into.result
        for start in sorted(start for start in table.spaces if start + size <= until):  # type: ignore[operator,type-var]
            space = table.space(start)
            while space:
                # Taken out before its result is computed, so that one that fails is not met again.
                key = next(iter(space))
                table.touch(key, start)
                acc = space.pop(key)
                yield key, Window(start, start + size, result(acc))  # type: ignore[operator,arg-type]
            table.drop(start)

    def on_watermark(self, scope: Scope, time: float) -> Iterable[tuple[Any, Window[Any]]]:
        return self.close(scope, time)

    def next_close(self, scope: Scope) -> float | None:
        starts: Any = scope.table.spaces
        return min(starts) + self.size if starts else None

    def on_end(self, scope: Scope) -> Iterable[tuple[Any, Window[Any]]]:
        return self.close(scope, float("inf"))


class _EventTimeWindows(_Windows):
    def __init__(self, size: float, time: EventTime[Any], into: Aggregator[Any, Any]) -> None:
        super().__init__(size, into)
        self.time = time
        self.extract = time.extract

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Window[Any]]]:
        table, size, extract = scope.table, self.size, self.extract
        initial, add = self.into.initial, self.into.add
        touch = table.touch if table.tracked else None
        tracker = scope.watermark
        lag = tracker.lag
        # Windows that end at or before `closed` are over. Each element is judged by the watermark before it and then
        # advances it, so that the cut into chunks makes no difference.
        top, bound, closed = tracker.view(scope.origin, scope.now)
        opened: float | None = None
        space: dict[Any, Any] = {}
        try:
            for key, value in rows:
                time: Any = extract(value)
                if time.__class__ is not float:
                    time = epoch(time)
                start = time - time % size
                if start + size <= closed:
                    scope.late += 1
                    continue
                if start != opened:
                    space = table.space(_checked(start))
                    opened = start
                if touch is not None:
                    touch(key, start)
                space[key] = add(space[key] if key in space else initial(), value)
                if time > top:
                    top = time
                    closed = max(closed, min(bound, top - lag))
        finally:
            tracker.saw(scope.origin, top)
        return
        yield  # a generator that emits nothing by itself: windows close by the watermark


class _ProcessingTimeWindows(_Windows):
    time = ProcessingTime()

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Window[Any]]]:
        table, initial, add = scope.table, self.into.initial, self.into.add
        start = scope.now - scope.now % self.size
        space = table.space(start)
        for key, value in rows:
            table.touch(key, start)
            space[key] = add(space[key] if key in space else initial(), value)
        return
        yield  # as above


def _checked(start: float) -> float:
    if start != start or start in (float("inf"), float("-inf")):
        raise ValueError("the event time is not finite")
    return start
