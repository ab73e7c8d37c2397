"""`Min`, `Max` and `TopK`: the aggregators that compare."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import chain, dropwhile
from typing import Any, Protocol, TypeVar, overload

from streamflow.operators import _check
from streamflow.operators.aggregators import Aggregator
from streamflow.policies import positive


class Comparable(Protocol):
    """What has an order: ``a < b``."""

    def __lt__(self, other: Any, /) -> bool: ...


T = TypeVar("T")
V = TypeVar("V", bound=Comparable)
C = TypeVar("C", bound=Comparable)


class _Extreme(Aggregator[T, V]):
    """The accumulator is the best so far, None before the first: no NaN, which nothing compares with."""

    def __init__(self, by: Callable[[T], V] | None, state: Any) -> None:
        if by is not None:
            _check.function(by, type(self).__name__)
        self.by: Callable[[T], Any] | None = by
        self.calls_back = by is not None
        self.state = state if state is Any else state | None

    def initial(self) -> Any:
        return None

    def add(self, acc: Any, value: T) -> Any:
        return self._better(acc, value if self.by is None else self.by(value))

    def add_all(self, acc: Any, values: Iterable[T]) -> Any:
        if self.by is not None:
            return super().add_all(acc, values)
        return self._best(dropwhile(_is_nothing, values) if acc is None else chain((acc,), values))

    def merge(self, left: Any, right: Any) -> Any:
        return left if right is None else self._better(left, right)

    def result(self, acc: Any) -> V:
        best: V = acc
        return best

    def _better(self, best: Any, value: Any) -> Any:
        """The better of two, the first when they are equal."""
        raise NotImplementedError

    def _best(self, values: Iterable[Any]) -> Any:
        """The best of values of which the first is no NaN."""
        raise NotImplementedError


class Min(_Extreme[T, V]):
    """The smallest ``by(x)``, or the smallest element; of equal ones the first.

    NaN is left out. For a stream without elements it is None; a window always has one. ``state`` is the type of what
    is compared, for checkpoints.

    >>> Min().add_all(None, [3, 1, 2])
    1
    """

    @overload
    def __init__(self: Min[C, C], *, state: Any = ...) -> None: ...
    @overload
    def __init__(self, by: Callable[[T], V], *, state: Any = ...) -> None: ...
    def __init__(self, by: Callable[[T], V] | None = None, *, state: Any = Any) -> None:
        super().__init__(by, state)

    def _better(self, best: Any, value: Any) -> Any:
        if best is None:
            return None if value != value else value
        return value if value < best else best

    def _best(self, values: Iterable[Any]) -> Any:
        return min(values, default=None)


class Max(_Extreme[T, V]):
    """The largest ``by(x)``, or the largest element; of equal ones the first.

    NaN is left out. For a stream without elements it is None; a window always has one. ``state`` is the type of what
    is compared, for checkpoints.

    >>> Max(len).result(Max(len).add_all(None, ["fig", "banana", "kiwi"]))
    6
    """

    @overload
    def __init__(self: Max[C, C], *, state: Any = ...) -> None: ...
    @overload
    def __init__(self, by: Callable[[T], V], *, state: Any = ...) -> None: ...
    def __init__(self, by: Callable[[T], V] | None = None, *, state: Any = Any) -> None:
        super().__init__(by, state)

    def _better(self, best: Any, value: Any) -> Any:
        if best is None:
            return None if value != value else value
        return value if best < value else best

    def _best(self, values: Iterable[Any]) -> Any:
        return max(values, default=None)


class TopK(Aggregator[T, list[T]]):
    """The ``k`` elements with the largest ``by(x)``, or the largest themselves: the largest first, equal ones in the
    order of their arrival.

    Remembers ``k`` elements and nothing of the others. What compares as NaN is left out. ``by`` is called again for
    elements that are remembered. ``state`` is the type of the elements, for checkpoints.

    >>> TopK(2).result(TopK(2).add_all([], [3, 9, 4, 7]))
    [9, 7]
    """

    def __init__(self, k: int, by: Callable[[T], Comparable] | None = None, *, state: Any = Any) -> None:
        positive(k, "TopK's k")
        if by is not None:
            _check.function(by, "TopK")
        self.k = k
        self.by: Callable[[T], Any] | None = by
        self.calls_back = by is not None
        self.state = list[state]

    def initial(self) -> list[T]:
        return []

    def add(self, acc: list[T], value: T) -> list[T]:
        by: Callable[[T], Any] = self.by or _itself
        rank = by(value)
        if rank != rank or (len(acc) >= self.k and not by(acc[-1]) < rank):
            return acc
        # The ranks go down: a value comes in front of the first whose rank is below its own.
        place = bisect_left(acc, True, key=lambda x: by(x) < rank)
        # A new list, so that an element on which a neighbour in a Combine fails leaves no trace here.
        return [*acc[:place], value, *acc[place : self.k - 1]]

    def add_all(self, acc: list[T], values: Iterable[T]) -> list[T]:
        if self.by is not None:
            for value in values:
                acc = self.add(acc, value)
            return acc
        numbers: Iterable[Any] = chain(acc, (value for value in values if value == value))
        return heapq.nlargest(self.k, numbers)

    def merge(self, left: list[T], right: list[T]) -> list[T]:
        return sorted(left + right, key=self.by or _itself, reverse=True)[: self.k]

    def result(self, acc: list[T]) -> list[T]:
        return list(acc)


def _itself(value: Any) -> Any:
    return value


def _is_nothing(value: Any) -> bool:
    return value is None or value != value
