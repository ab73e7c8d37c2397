"""Aggregators: how the elements of a window, or of a whole stream (`Into`), become one value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, overload

from streamflow.errors import ConfigurationError
from streamflow.operators import _check

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")
N = TypeVar("N", int, float, complex)
M = TypeVar("M", int, float, complex)
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Aggregator(Generic[T_contra, R_co]):
    """Folds elements into an accumulator and finally into a result.

    Derive from it to write your own: `initial`, `add`, `merge` and `result`; or see `Aggregate`. An accumulator is
    private to the aggregator; ``state`` is its type, for checkpoints: what was encoded as MessagePack and decoded into
    that type must be equal to what it was.

    `add` may change the accumulator that it is given. `merge` must leave both of its arguments as they are, and what
    is added to the merged one later must not change them either: they may be merged again, with others. However
    elements are cut into parts, adding each part and merging gives the same result as adding all.
    """

    state: Any = Any

    calls_back: bool = True
    """Whether adding runs code of the user's, so that it must not be tried twice on an element. If it does not, an
    `add_all` that fails must leave the accumulator as it was."""

    never_fails: bool = False
    """Whether there is no element that `add` could raise for."""

    def initial(self) -> Any:
        """A fresh accumulator."""
        raise NotImplementedError

    def add(self, acc: Any, value: T_contra) -> Any:
        """The accumulator with one more element; may change and return ``acc`` itself."""
        raise NotImplementedError

    def add_all(self, acc: Any, values: Iterable[T_contra]) -> Any:
        """The accumulator with more elements, in order."""
        add = self.add
        for value in values:
            acc = add(acc, value)
        return acc

    def merge(self, left: Any, right: Any) -> Any:
        """One accumulator for two, the elements of ``left`` before those of ``right``. Changes neither."""
        raise NotImplementedError

    def result(self, acc: Any) -> R_co:
        """What is emitted. The accumulator may be used on afterwards."""
        raise NotImplementedError


class ToList(Aggregator[T, list[T]]):
    """The elements themselves, in the order of their arrival. ``state`` is their type, for checkpoints.

    >>> ToList().result(ToList().add_all([], "ab"))
    ['a', 'b']
    """

    calls_back = False
    never_fails = True

    def __init__(self, *, state: Any = Any) -> None:
        self.state = list[state]

    def initial(self) -> list[T]:
        return []

    def add(self, acc: list[T], value: T) -> list[T]:
        acc.append(value)
        return acc

    def add_all(self, acc: list[T], values: Iterable[T]) -> list[T]:
        acc.extend(values)
        return acc

    def merge(self, left: list[T], right: list[T]) -> list[T]:
        return left + right

    def result(self, acc: list[T]) -> list[T]:
        return list(acc)


class Count(Aggregator[Any, int]):
    """How many elements.

    >>> Count().add_all(0, "abc")
    3
    """

    state = int
    calls_back = False
    never_fails = True

    def initial(self) -> int:
        return 0

    def add(self, acc: int, value: Any) -> int:
        return acc + 1

    def add_all(self, acc: int, values: Iterable[Any]) -> int:
        return acc + (len(values) if isinstance(values, list) else sum(1 for _ in values))

    def merge(self, left: int, right: int) -> int:
        return left + right

    def result(self, acc: int) -> int:
        return acc


class Sum(Aggregator[T, N]):
    """The sum of ``by(x)``, or of the elements themselves; 0 for none. Floats are added from left to right.

    >>> Sum().add_all(0, [1, 2, 3])
    6
    """

    @overload
    def __init__(self: Sum[M, M]) -> None: ...
    @overload
    def __init__(self, by: Callable[[T], N]) -> None: ...
    def __init__(self, by: Callable[[T], N] | None = None) -> None:
        if by is not None:
            _check.function(by, "Sum")
        self.by: Callable[[T], Any] | None = by
        self.calls_back = by is not None

    def initial(self) -> Any:
        return 0

    def add(self, acc: Any, value: T) -> Any:
        return acc + (value if self.by is None else self.by(value))

    def add_all(self, acc: Any, values: Iterable[T]) -> Any:
        by = self.by
        if by is None:
            return _added(acc, values if isinstance(values, list) else list(values))
        for value in values:
            acc = acc + by(value)
        return acc

    def merge(self, left: Any, right: Any) -> Any:
        return left + right

    def result(self, acc: Any) -> N:
        total: N = acc
        return total


class Mean(Aggregator[T, float]):
    """The arithmetic mean of ``by(x)``, or of the elements themselves; NaN for none.

    >>> Mean().result(Mean().add_all((0, 0), [1, 2, 6]))
    3.0
    """

    state = tuple[int, Any]

    @overload
    def __init__(self: Mean[float]) -> None: ...
    @overload
    def __init__(self, by: Callable[[T], float]) -> None: ...
    def __init__(self, by: Callable[[T], float] | None = None) -> None:
        if by is not None:
            _check.function(by, "Mean")
        self.by = by
        self.calls_back = by is not None

    def initial(self) -> tuple[int, Any]:
        return 0, 0

    def add(self, acc: tuple[int, Any], value: T) -> tuple[int, Any]:
        return acc[0] + 1, acc[1] + (value if self.by is None else self.by(value))

    def add_all(self, acc: tuple[int, Any], values: Iterable[T]) -> tuple[int, Any]:
        if self.by is not None:
            for value in values:
                acc = self.add(acc, value)
            return acc
        numbers: list[Any] = values if isinstance(values, list) else list(values)
        return acc[0] + len(numbers), _added(acc[1], numbers)

    def merge(self, left: tuple[int, Any], right: tuple[int, Any]) -> tuple[int, Any]:
        return left[0] + right[0], left[1] + right[1]

    def result(self, acc: tuple[int, Any]) -> float:
        count, total = acc
        mean: float = total / count if count else math.nan
        return mean


def _added(total: Any, numbers: list[Any]) -> Any:
    """The total with numbers added from left to right."""
    added = sum(numbers, total)
    if type(added) is int:
        return added
    # From Python 3.12 on sum() compensates floats within one call: the cut into chunks would show.
    for number in numbers:
        total = total + number
    return total


def check_aggregator(value: Any, what: str) -> None:
    """Refuse what is no aggregator, e.g. the class itself or a function."""
    if not isinstance(value, Aggregator):
        hint = f"; did you mean {value.__name__}(...)?" if isinstance(value, type) else ""
        raise ConfigurationError(f"{what} takes an aggregator such as Count(), not {value!r}{hint}")
