"""`TumblingWindow`: time cut into equal parts, one result for each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar, Unpack, overload

from attrs import field, frozen

from streamflow.engine.transform import Transform
from streamflow.graph import Flow, Sink
from streamflow.message import Window
from streamflow.operators._grid import make_grid
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
class TumblingWindow(Flow[T, Window[A]]):
    """Cut time into windows of ``size`` and emit one `Window` for each that had elements.

    ::

        ──1──2──|──3──|──▶
         TumblingWindow(size, into=Count())
        ────────2─────1──▶

    Windows are aligned to the epoch: with ``size`` an hour they begin on the hour (UTC), or ``offset`` after it. With
    ``align="Europe/Berlin"`` a size of whole days means days of that zone's calendar, of 23 or 25 hours where clocks
    change. ``time`` is `ProcessingTime` (the default: the pipeline's clock) or `EventTime`: then a window is emitted
    when the watermark passes its end. ``into`` is an aggregator, by default `ToList`. Inside `Keyed` each key has
    windows of its own under one watermark.

    An element whose window is closed already is late: it is counted, and goes to the sink ``late=`` if there is one.
    With ``lateness`` a window is kept for so long after its end, and a late element emits it again, with the next
    `Window.revision`. ``emit="update"`` emits a window at every element, each time with the next revision, and not
    when it closes.

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

    Raises `ConfigurationError` for a size that is not positive, a negative lateness, an unknown zone. Source of the
    idea: go-streams' ``TumblingWindow``; watermarks and lateness as in the Dataflow model.
    """

    size: timedelta
    into: Aggregator[T, A] = field(kw_only=True)
    options: WindowOptions = field(kw_only=True)
    align: str | None = field(kw_only=True)
    offset: timedelta = field(kw_only=True)
    on_error: ErrorPolicy | None = field(kw_only=True)

    @overload
    def __init__(
        self: TumblingWindow[T, list[T]],
        size: timedelta,
        **options: Unpack[GridOptions[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        size: timedelta,
        *,
        into: Aggregator[T, A],
        **options: Unpack[GridOptions[T]],
    ) -> None: ...
    def __init__(
        self,
        size: timedelta,
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
            "TumblingWindow",
            ProcessingTime() if time is None else time,
            aggregator,
            lateness,
            emit,
            late,
            on_error,
        )
        make_grid(whole_microseconds(size, "TumblingWindow's size"), align, offset, "TumblingWindow")
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            size, into=aggregator, options=options, align=align, offset=offset, on_error=on_error
        )

    def sides(self) -> Mapping[str, Sink[Any, Any]]:
        return self.options.sides

    def transform(self) -> Transform:
        size = whole_microseconds(self.size, "TumblingWindow's size")
        grid = make_grid(size, self.align, self.offset, "TumblingWindow")
        return make_panes_logic(grid, 1, 1, self.options)
