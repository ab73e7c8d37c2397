"""`Aggregate` and `Combine`: aggregators made of functions, and of other aggregators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from streamflow.errors import ConfigurationError
from streamflow.operators import _check
from streamflow.operators._state import maker, type_of
from streamflow.operators.aggregators import Aggregator, check_aggregator

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


class Aggregate(Aggregator[T, R]):
    """An aggregator made of functions.

    ``add(acc, x)`` returns the accumulator with one more element, ``merge(left, right)`` one for two of them,
    ``result(acc)`` what is emitted, by default the accumulator. ``initial`` is the first accumulator, or a callable of
    no arguments that makes it, for a mutable one. ``add`` may change such a one in place, and then ``result`` should
    make something else of it, since it may go on changing; ``merge`` must not change its arguments.

    ``state`` is the type of the accumulator, when it is saved in checkpoints and is not what ``initial`` is.

    >>> longest = Aggregate("", lambda acc, word: max(acc, word, key=len), lambda a, b: max(a, b, key=len))
    >>> longest.add_all("", ["fig", "banana", "kiwi"])
    'banana'
    >>> distinct = Aggregate(set, lambda seen, x: seen | {x}, set.union, len)
    >>> distinct.result(distinct.add_all(set(), [1, 2, 1]))
    2
    """

    @overload
    def __init__(
        self: Aggregate[T, A],
        initial: Callable[[], A],
        add: Callable[[A, T], A],
        merge: Callable[[A, A], A],
        *,
        state: Any = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Aggregate[T, A],
        initial: A,
        add: Callable[[A, T], A],
        merge: Callable[[A, A], A],
        *,
        state: Any = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        initial: Callable[[], A],
        add: Callable[[A, T], A],
        merge: Callable[[A, A], A],
        result: Callable[[A], R],
        *,
        state: Any = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        initial: A,
        add: Callable[[A, T], A],
        merge: Callable[[A, A], A],
        result: Callable[[A], R],
        *,
        state: Any = ...,
    ) -> None: ...
    def __init__(
        self,
        initial: Any,
        add: Callable[[Any, T], Any],
        merge: Callable[[Any, Any], Any],
        result: Callable[[Any], Any] | None = None,
        *,
        state: Any = None,
    ) -> None:
        for name, function in (("add", add), ("merge", merge), ("result", result)):
            if function is not None or name != "result":
                _check.function(function, f"Aggregate's {name}")
        self._initial = maker(initial)
        self._add = add
        self._merge = merge
        self._result = result
        self.state = type_of(initial) if state is None else state

    def initial(self) -> Any:
        return self._initial()

    def add(self, acc: Any, value: T) -> Any:
        return self._add(acc, value)

    def add_all(self, acc: Any, values: Iterable[T]) -> Any:
        add = self._add
        for value in values:
            acc = add(acc, value)
        return acc

    def merge(self, left: Any, right: Any) -> Any:
        return self._merge(left, right)

    def result(self, acc: Any) -> R:
        value: R = acc if self._result is None else self._result(acc)
        return value


class Combine(Aggregator[T, dict[str, Any]]):
    """Several aggregators over the same elements; the result is a dict of theirs, by name.

    An element that one of them cannot add is added to none: those that cannot fail (`Aggregator.never_fails`) come
    last. What an aggregator of your own that can fail, or an inner `Combine`, has changed in place before another one
    fails, stays changed.

    >>> from streamflow.operators import Count, Max
    >>> both = Combine(count=Count(), largest=Max())
    >>> both.result(both.add_all(both.initial(), [3, 9, 4]))
    {'count': 3, 'largest': 9}
    """

    def __init__(self, **aggregators: Aggregator[T, Any]) -> None:
        if not aggregators:
            raise ConfigurationError(
                "Combine takes at least one aggregator by name, e.g. Combine(count=Count())"
            )
        for name, aggregator in aggregators.items():
            check_aggregator(aggregator, f"Combine's {name}")
        self.aggregators = aggregators
        # Those that cannot fail come last: before them an element that fails has left no trace. Then by name, so that
        # what was saved does not depend on the order in which they are written.
        order = sorted(aggregators, key=lambda name: (aggregators[name].never_fails, name))
        self._place = {name: order.index(name) for name in aggregators}
        self._parts = tuple(aggregators[name] for name in order)
        self.calls_back = any(part.calls_back for part in self._parts)
        self.never_fails = all(part.never_fails for part in self._parts)
        self.state = tuple[tuple(part.state for part in self._parts)]  # type: ignore[misc]

    def initial(self) -> tuple[Any, ...]:
        return tuple([part.initial() for part in self._parts])

    def add(self, acc: tuple[Any, ...], value: T) -> tuple[Any, ...]:
        return tuple([part.add(one, value) for part, one in zip(self._parts, acc, strict=True)])

    def add_all(self, acc: tuple[Any, ...], values: Iterable[T]) -> tuple[Any, ...]:
        values = values if isinstance(values, list) else list(values)
        return tuple([part.add_all(one, values) for part, one in zip(self._parts, acc, strict=True)])

    def merge(self, left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple([part.merge(a, b) for part, a, b in zip(self._parts, left, right, strict=True)])

    def result(self, acc: tuple[Any, ...]) -> dict[str, Any]:
        return {name: part.result(acc[self._place[name]]) for name, part in self.aggregators.items()}
