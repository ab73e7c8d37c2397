"""`SlidingWindow`: windows that overlap, each so much later than the one before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from math import gcd
from typing import Any, Literal, TypeVar, Unpack, overload

from attrs import field, frozen

from streamflow.engine.transform import Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Sink
from streamflow.message import Window
from streamflow.operators._grid import Grid, make_grid
from streamflow.operators._windows import (
    GridOptions,
    WindowOptions,
    checked_options,
    make_panes_logic,
    whole_microseconds,
)
from streamflow.operators.aggregators import Aggregator, ToList
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime

T = TypeVar("T")
A = TypeVar("A")


@frozen(init=False)
class SlidingWindow(Flow[T, Window[A]]):
    """Emit a `Window` of ``size`` every ``every``: each element is in ``size / every`` of them.

    ::

        ──1──2──|──3──|──4──|──▶
         SlidingWindow(size=2 parts, every=1 part, into=Count())
        ────────2─────3─────2──▶

    Windows begin at multiples of ``every`` from the epoch, or ``offset`` after them. Elements are aggregated once, in
    panes, and windows are merged from those: the cost of an element does not grow with ``size / every``, but each
    window with elements is a result of its own. Aggregators must be able to `merge`; floats may be added in another
    order than in a tumbling window. ``time``, ``into``, ``lateness``, ``emit``, ``late``, ``align`` (both sizes in
    whole days) as in `TumblingWindow`; an element is late when the last of its windows is over.

    Emits when a window closes, in the order of their ends. Completes with its input, after emitting open windows; a
    drain does not emit them. Holds one accumulator for each pane (and key): ``size / every``, more if ``every`` does
    not divide ``size``.

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import EventTime, Source
    >>> from streamflow.connectors import Collect
    >>> from streamflow.operators import Count
    >>> last_20 = SlidingWindow(
    ...     timedelta(seconds=20), timedelta(seconds=10), time=EventTime(lambda t: t), into=Count()
    ... )
    >>> windows = asyncio.run(Source([1, 2, 11]).via(last_20).to(Collect()).run())
    >>> [(w.start, w.end, w.value) for w in windows]
    [(-10.0, 10.0, 2), (0.0, 20.0, 3), (10.0, 30.0, 1)]

    Raises `ConfigurationError` if ``every`` is longer than ``size``: elements would be in no window. Source of the
    idea: go-streams' ``SlidingWindow``; panes as in Li et al., "No pane, no gain" (2005).
    """

    size: timedelta
    every: timedelta
    into: Aggregator[T, A] = field(kw_only=True)
    options: WindowOptions = field(kw_only=True)
    align: str | None = field(kw_only=True)
    offset: timedelta = field(kw_only=True)
    on_error: ErrorPolicy | None = field(kw_only=True)

    @overload
    def __init__(
        self: SlidingWindow[T, list[T]],
        size: timedelta,
        every: timedelta,
        **options: Unpack[GridOptions[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        size: timedelta,
        every: timedelta,
        *,
        into: Aggregator[T, A],
        **options: Unpack[GridOptions[T]],
    ) -> None: ...
    def __init__(
        self,
        size: timedelta,
        every: timedelta,
        *,
        time: EventTime[T] | ProcessingTime | None = None,
        into: Aggregator[T, Any] | None = None,
        lateness: timedelta | float = 0,
        emit: Literal["close", "update"] = "close",
        late: Sink[T, Any] | None = None,
        align: str | None = None,
        offset: timedelta = timedelta(0),
        on_error: ErrorPolicy | None = None,
    ) -> None:
        aggregator: Aggregator[T, Any] = ToList() if into is None else into
        options = checked_options(
            "SlidingWindow",
            ProcessingTime() if time is None else time,
            aggregator,
            lateness,
            emit,
            late,
            on_error,
        )
        _panes(size, every, align, offset)
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            size, every, into=aggregator, options=options, align=align, offset=offset, on_error=on_error
        )

    def sides(self) -> Mapping[str, Sink[Any, Any]]:
        return self.options.sides

    def transform(self) -> Transform:
        grid, length, step = _panes(self.size, self.every, self.align, self.offset)
        return make_panes_logic(grid, length, step, self.options)


def _panes(size: timedelta, every: timedelta, align: str | None, offset: timedelta) -> tuple[Grid, int, int]:
    """The panes, and how many of them are a window and a step."""
    size = whole_microseconds(size, "SlidingWindow's size")
    every = whole_microseconds(every, "SlidingWindow's every")
    if every > size:
        raise ConfigurationError(
            f"SlidingWindow's every ({every}) must not be longer than its size ({size}): elements would be in no window"
        )
    for each in (size, every):
        make_grid(each, align, offset, "SlidingWindow")  # refuses what is no number of days
    unit = timedelta(microseconds=1)
    pane = gcd(size // unit, every // unit) * unit
    return make_grid(pane, align, offset, "SlidingWindow"), size // pane, every // pane
