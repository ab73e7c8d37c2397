"""How `join` within a window runs: both streams, told apart, go through one window that collects either side."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from operator import itemgetter
from typing import Any

from attrs import evolve, fields, frozen

from streamflow.engine.connector import SinkContext, Writer
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Sink, Stream
from streamflow.message import KeyedValue, Window
from streamflow.operators._interval_join import How
from streamflow.operators._windows import WindowOptions
from streamflow.operators.aggregators import Aggregator, ToList
from streamflow.operators.flat_map import FlatMap
from streamflow.operators.keyed import Keyed
from streamflow.operators.map import Map
from streamflow.operators.merge import merge
from streamflow.policies import ErrorPolicy, EventTime

Tagged = tuple[int, Any]
"""An element and its side: 0 for left, 1 for right."""


def is_window(value: Any) -> bool:
    return isinstance(value, Flow) and isinstance(getattr(value, "options", None), WindowOptions)


def window_join(
    left: Stream[Any],
    right: Stream[Any],
    on: tuple[Callable[[Any], Hashable], Callable[[Any], Hashable]],
    window: Any,
    how: How,
    state: Any,
    name: str | None,
    on_error: ErrorPolicy | None,
) -> Stream[Any]:
    """The pairs of elements with equal keys in each window."""
    step = name or "join"
    lefts: Stream[Tagged] = left.via(Map(_tagged(0)), name=f"{step} (left)")
    rights: Stream[Tagged] = right.via(Map(_tagged(1)), name=f"{step} (right)")
    keyed = Keyed[Any, Any, Any](
        lambda tagged: on[tagged[0]](tagged[1]), _of_both(window, state), on_error=on_error
    )
    return merge(lefts, rights).via(keyed, name=step).via(FlatMap(_Pairs(how)), name=f"{step} (pairs)")


def _tagged(side: int) -> Callable[[Any], Tagged]:
    return lambda value: (side, value)


def _of_both(window: Any, state: Any) -> Flow[Any, Any]:
    """The same window for tagged elements."""
    options: WindowOptions = window.options
    if options.revises:
        raise ConfigurationError(
            "join's window must be emitted once: with lateness= or emit='update' its pairs would come again"
        )
    if not isinstance(options.into, ToList):
        raise ConfigurationError("join's window collects both sides: leave out into=")
    time = options.time
    if isinstance(time, EventTime):
        extract = time.extract
        time = evolve(time, extract=lambda tagged: extract(tagged[1]))
    late = None if options.late is None else _Untagged(options.late)
    both = _Sides(state)
    changed = {"into": both, "options": evolve(options, time=time, late=late, into=both)}
    copy = object.__new__(type(window))
    values = {field.name: getattr(window, field.name) for field in fields(type(window))}
    copy.__attrs_init__(**{**values, **changed})
    return copy  # type: ignore[no-any-return]


class _Sides(Aggregator[Tagged, tuple[list[Any], list[Any]]]):
    """The elements of either side, in the order of their arrival."""

    calls_back = False

    def __init__(self, state: Any) -> None:
        self.state = tuple[list[state], list[state]]

    def initial(self) -> tuple[list[Any], list[Any]]:
        return [], []

    def add(self, acc: tuple[list[Any], list[Any]], value: Tagged) -> tuple[list[Any], list[Any]]:
        acc[value[0]].append(value[1])
        return acc

    def merge(
        self, left: tuple[list[Any], list[Any]], right: tuple[list[Any], list[Any]]
    ) -> tuple[list[Any], list[Any]]:
        return left[0] + right[0], left[1] + right[1]

    def result(self, acc: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any]]:
        return acc


@frozen
class _Pairs:
    """The pairs of a window; an element whose key the other side does not have is alone in its pair."""

    how: How

    def __call__(
        self, keyed: KeyedValue[Any, Window[tuple[list[Any], list[Any]]]]
    ) -> Iterator[tuple[Any, Any]]:
        lefts, rights = keyed.value.value
        if not rights and self.how in ("left", "outer"):
            return ((left, None) for left in lefts)
        if not lefts and self.how in ("right", "outer"):
            return ((None, right) for right in rights)
        return ((left, right) for left in lefts for right in rights)


class _Untagged(Sink[Tagged, Any]):
    """The user's sink for elements that came too late, which gets them as they were."""

    def __init__(self, sink: Sink[Any, Any]) -> None:
        self._sink = sink
        self.on_error = sink.on_error

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return Map(itemgetter(1)), *self._sink.flows()

    async def open(self, context: SinkContext) -> Writer[Any]:
        return await self._sink.open(context)
