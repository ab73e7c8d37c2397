"""`split`: two streams, by a predicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, overload

from streamflow.engine.transform import Distribute
from streamflow.graph import Step, Stream
from streamflow.operators import _check
from streamflow.operators._streams import end
from streamflow.policies import ErrorPolicy

if TYPE_CHECKING:
    from typing_extensions import TypeIs

T = TypeVar("T")
U = TypeVar("U")


@overload
def split(
    stream: Stream[T], predicate: Callable[[T], TypeGuard[U]], *, on_error: ErrorPolicy | None = ...
) -> tuple[Stream[U], Stream[T]]: ...
@overload
def split(
    stream: Stream[T], predicate: Callable[[T], TypeIs[U]], *, on_error: ErrorPolicy | None = ...
) -> tuple[Stream[U], Stream[T]]: ...
@overload
def split(
    stream: Stream[T], predicate: Callable[[T], object], *, on_error: ErrorPolicy | None = ...
) -> tuple[Stream[T], Stream[T]]: ...
def split(
    stream: Stream[Any], predicate: Callable[[Any], object], *, on_error: ErrorPolicy | None = None
) -> tuple[Stream[Any], Stream[Any]]:
    """Two streams: the elements for which the predicate is true, and the others. Both must lead to a sink.

    ::

        ──1──2──3──4──▶
          split(even)
        ─────2─────4──▶
        ──1─────3─────▶

    With a predicate that is a ``TypeGuard`` or ``TypeIs`` the first stream has the narrower type. An element for
    which the predicate fails is left to the error policy, and goes to neither. A branch that is slower than the other
    holds it back only as far as its channel is full.

    Emits each element to one of the two, at once. Completes with its input. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Pipeline, Source
    >>> from streamflow.connectors import Collect
    >>> even, odd = split(Source(range(5)), lambda x: x % 2 == 0)
    >>> asyncio.run(Pipeline(even.to(Collect()), odd.to(Collect())).run())
    ([0, 2, 4], [1, 3])

    Source of the idea: go-streams' ``Split``.
    """
    _check.function(predicate, "split")
    _check.policy(on_error, "split")

    def choose(value: Any) -> int:
        return 0 if predicate(value) else 1

    branches = ("elements for which the predicate is true", "elements for which it is false")
    step = Step(Distribute(2, lambda: choose, "split", branches, on_error), (end(stream, "split"),))
    return Stream(step, 0), Stream(step, 1)
