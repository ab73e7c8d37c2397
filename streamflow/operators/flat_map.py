"""`FlatMap` and `Flatten`: one value in, any number out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Fragment, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy

T = TypeVar("T")
U = TypeVar("U")


@frozen
class FlatMap(Flow[T, U]):
    """Emit every element of the iterable ``f(x)``.

    ::

        ──"ab"──────"c"──▶
           FlatMap(list)
        ──"a"─"b"───"c"──▶

    The iterable is read lazily and in bounded pieces: a generator of a million values is fine. If it fails in the
    middle, what it gave before has been emitted; the error policy decides about the element it came from.

    Emits as the iterables give. Completes with its input. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([2, 0, 1]).via(FlatMap(range)).to(Collect()).run())
    [0, 1, 0]

    Source of the idea: go-streams' ``FlatMap``.
    """

    f: Callable[[T], Iterable[U]]
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.f, "FlatMap", instead="MapAsync and Flatten")
        _check.policy(self.on_error, "FlatMap")

    def transform(self) -> Transform:
        return Fragment("flat_map", self.f)


@frozen
class Flatten(Flow[Iterable[U], U]):
    """Emit every element of each incoming iterable.

    ::

        ──[1, 2]─────[3]──▶
             Flatten()
        ──1──2───────3────▶

    Emits as the iterables give. Completes with its input. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([[1, 2], [], [3]]).via(Flatten()).to(Collect()).run())
    [1, 2, 3]

    Source of the idea: go-streams' ``Flatten``.
    """

    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.policy(self.on_error, "Flatten")

    def transform(self) -> Transform:
        return Fragment("flat_map", _same)


def _same(items: Iterable[U]) -> Iterable[U]:
    return items
