"""`join`: pairs of elements of two streams that belong together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, overload

from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Sink, Stream
from streamflow.message import Window
from streamflow.operators import _check
from streamflow.operators._interval_join import How, IntervalJoin
from streamflow.operators._streams import end, joined
from streamflow.operators._window_join import is_window, window_join
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime, seconds

L = TypeVar("L")
R = TypeVar("R")
On = tuple[Callable[[L], Hashable], Callable[[R], Hashable]]
Within = timedelta | float | Flow[Any, Window[Any]]


class JoinOptions(TypedDict, Generic[L, R], total=False):
    """The arguments of `join` that do not change the type of its pairs."""

    time: EventTime[L | R] | tuple[EventTime[L], EventTime[R]] | ProcessingTime
    late: Sink[Any, Any] | None
    state: Any
    name: str | None
    on_error: ErrorPolicy | None


@overload
def join(
    left: Stream[L],
    right: Stream[R],
    on: On[L, R],
    within: Within,
    how: Literal["inner"] = ...,
    **options: Unpack[JoinOptions[L, R]],
) -> Stream[tuple[L, R]]: ...
@overload
def join(
    left: Stream[L],
    right: Stream[R],
    on: On[L, R],
    within: Within,
    how: Literal["left"],
    **options: Unpack[JoinOptions[L, R]],
) -> Stream[tuple[L, R | None]]: ...
@overload
def join(
    left: Stream[L],
    right: Stream[R],
    on: On[L, R],
    within: Within,
    how: Literal["right"],
    **options: Unpack[JoinOptions[L, R]],
) -> Stream[tuple[L | None, R]]: ...
@overload
def join(
    left: Stream[L],
    right: Stream[R],
    on: On[L, R],
    within: Within,
    how: Literal["outer"],
    **options: Unpack[JoinOptions[L, R]],
) -> Stream[tuple[L | None, R | None]]: ...
def join(
    left: Stream[Any],
    right: Stream[Any],
    on: tuple[Callable[[Any], Hashable], Callable[[Any], Hashable]],
    within: Any,
    how: How = "inner",
    *,
    time: Any = None,
    late: Sink[Any, Any] | None = None,
    state: Any = Any,
    name: str | None = None,
    on_error: ErrorPolicy | None = None,
) -> Stream[Any]:
    """Pairs of a left and a right element with equal keys that are close in time.

    ::

        ──a1────────b2──────▶
        ──────a3────────c4──▶
          join(on letter, within=…)
        ──────a1,a3─────────▶

    ``on`` has the key function of either side. With a duration as ``within`` a pair is no further apart than that, by
    ``time``: one `EventTime` for both, a pair of them, or `ProcessingTime` (the default: when an element is
    processed). ``how="left"`` also emits left elements that have found no partner, as ``(x, None)``; ``"right"`` and
    ``"outer"`` likewise. An element is late when its time is below the watermark before it: it is counted, and goes to
    the sink ``late=`` if there is one. Watermarks of both streams count; the least goes.

    With a window as ``within``, such as ``TumblingWindow(timedelta(minutes=1), time=EventTime(…))``, a pair is in the
    same window; in windows that overlap it comes once in each. The window has ``time=`` and ``late=`` then.

    A later step with event time that takes the earlier time of a pair needs ``within`` more of ``out_of_order``.
    ``state`` is the type of the elements, for checkpoints; ``name`` identifies the step.

    Emits a pair as soon as both are there, and what has no partner when the watermark is past its time plus
    ``within``, or at the end; with a window, when that closes. Completes when both inputs have. Holds the elements
    that may still find a partner.

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import EventTime, Source
    >>> from streamflow.connectors import Collect
    >>> orders, payments = Source([("a", 1), ("b", 2)]), Source([("a", 3), ("a", 20)])
    >>> by, time = (lambda x: x[0], lambda x: x[0]), EventTime(lambda x: x[1])
    >>> paid = join(orders, payments, on=by, within=timedelta(seconds=5), how="left", time=time)
    >>> asyncio.run(paid.to(Collect()).run())
    [(('a', 1), ('a', 3)), (('b', 2), None)]

    Raises `ConfigurationError` for a negative duration, or a window that is emitted more than once. Source of the
    idea: Flink's interval join and window join.
    """
    keys = _keys(on)
    if how not in ("inner", "left", "right", "outer"):
        raise ConfigurationError(f"join's how must be 'inner', 'left', 'right' or 'outer', not {how!r}")
    _check.policy(on_error, "join")
    inputs = end(left, "join"), end(right, "join")
    if is_window(within):
        if time is not None or late is not None:
            raise ConfigurationError("join within a window: give time= and late= to the window")
        return window_join(left, right, keys, within, how, state, name, on_error)
    if isinstance(within, Flow):
        raise ConfigurationError(f"join's within must be a duration or a window over time, not {within!r}")
    span = seconds(within, "join's within", zero=True)
    by = _time(time)
    _check.late(late, not isinstance(by, ProcessingTime), "join")
    flow = IntervalJoin(keys, span, how, by, late, state, on_error)
    return joined(flow, inputs, name)


def _keys(on: Any) -> tuple[Callable[[Any], Hashable], Callable[[Any], Hashable]]:
    if not isinstance(on, tuple) or len(on) != 2:
        raise ConfigurationError(f"join's on must be a pair of functions, (left key, right key), not {on!r}")
    for function in on:
        _check.function(function, "join's on")
    return on


def _time(time: Any) -> Any:
    """One time for both sides, or one for each."""
    if time is None or isinstance(time, ProcessingTime):
        return ProcessingTime()
    is_pair = isinstance(time, tuple) and len(time) == 2 and all(isinstance(each, EventTime) for each in time)
    if not isinstance(time, EventTime) and not is_pair:
        raise ConfigurationError(
            f"join's time must be EventTime(extract), a pair of those or ProcessingTime(), not {time!r}"
        )
    return time
