"""`SessionWindow`: elements that come close one after the other, as long as no gap parts them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar, Unpack, overload

from attrs import field, frozen

from streamflow.engine.transform import Transform
from streamflow.graph import Flow, Sink
from streamflow.message import Window
from streamflow.operators._sessions import SessionWindows
from streamflow.operators._windows import TimeOptions, WindowOptions, checked_options, whole_microseconds
from streamflow.operators.aggregators import Aggregator, ToList
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime

T = TypeVar("T")
A = TypeVar("A")


@frozen(init=False)
class SessionWindow(Flow[T, Window[A]]):
    """Put elements that are no more than ``gap`` apart into one session and emit a `Window` for each session.

    ::

        ──1──2──3──────────4──5──────────▶
         SessionWindow(gap, into=Count())
        ──────────────3──────────────2───▶

    An element belongs to a session if it is no more than ``gap`` before its first or after its last element; one that
    is near to two sessions makes one of them, by the aggregator's `merge`: the elements of the earlier come first,
    then this one, then those of the later. The window of a session begins with its first element and ends ``gap``
    after its last. It is emitted when the watermark is past that end; with `ProcessingTime` (the default) when the
    clock is there. ``time``, ``into``, ``lateness``, ``emit`` and ``late`` as in `TumblingWindow`. Inside `Keyed`
    each key has sessions of its own under one watermark.

    An element is late if it belongs to no session that is still there and one of its own would be over, by more
    than ``lateness``; if it is not that late, it is emitted at once as a session of its own. With ``lateness`` a
    session stays for so long after its end: a late element that joins it emits it again, with the next revision; if
    that takes its end past the watermark it is open again, and is emitted when it closes. A session that two were
    merged into goes on from the larger revision.

    Emits when a session closes, in the order of their ends: a later step that goes by their starts needs an
    ``out_of_order`` as long as a session. Completes with its input, after emitting open sessions; a
    drain does not emit them. Holds one accumulator for each session (and key).

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import EventTime, Source
    >>> from streamflow.connectors import Collect
    >>> visits = SessionWindow(timedelta(seconds=5), time=EventTime(lambda t: t, out_of_order=10))
    >>> windows = asyncio.run(Source([1, 9, 5, 20]).via(visits).to(Collect()).run())
    >>> [(w.start, w.end, w.value) for w in windows]
    [(1.0, 14.0, [1, 5, 9]), (20.0, 25.0, [20])]

    Raises `ConfigurationError` for a gap that is not positive and a negative lateness. Source of the idea: go-streams'
    ``SessionWindow``; merging as in the Dataflow model.
    """

    gap: timedelta
    into: Aggregator[T, A] = field(kw_only=True)
    options: WindowOptions = field(kw_only=True)
    on_error: ErrorPolicy | None = field(kw_only=True)

    @overload
    def __init__(
        self: SessionWindow[T, list[T]],
        gap: timedelta,
        **options: Unpack[TimeOptions[T]],
    ) -> None: ...
    @overload
    def __init__(
        self,
        gap: timedelta,
        *,
        into: Aggregator[T, A],
        **options: Unpack[TimeOptions[T]],
    ) -> None: ...
    def __init__(
        self,
        gap: timedelta,
        *,
        time: EventTime[T] | ProcessingTime | None = None,
        into: Aggregator[T, Any] | None = None,
        lateness: timedelta | float = 0,
        emit: Literal["close", "update"] = "close",
        late: Sink[T, Any] | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        aggregator: Aggregator[T, Any] = ToList() if into is None else into
        options = checked_options(
            "SessionWindow",
            ProcessingTime() if time is None else time,
            aggregator,
            lateness,
            emit,
            late,
            on_error,
        )
        whole_microseconds(gap, "SessionWindow's gap")
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            gap, into=aggregator, options=options, on_error=on_error
        )

    def sides(self) -> Mapping[str, Sink[Any, Any]]:
        return self.options.sides

    def transform(self) -> Transform:
        gap = whole_microseconds(self.gap, "SessionWindow's gap")
        return SessionWindows(gap.total_seconds(), self.options)
