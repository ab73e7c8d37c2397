"""`Inspect` and `PassThrough`: what comes in goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Fragment, Transform
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy

T = TypeVar("T")


@frozen
class Inspect(Flow[T, T]):
    """Call ``f(x)`` for each element and pass the element on unchanged; what ``f`` returns is ignored.

    ::

        ──1────2────3──▶
          Inspect(print)      prints 1, 2, 3
        ──1────2────3──▶

    Emits when ``f`` has returned. Completes with its input. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([1, 2]).via(Inspect(print)).to(Collect()).run())
    1
    2
    [1, 2]
    """

    f: Callable[[T], object]
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.f, "Inspect")
        _check.policy(self.on_error, "Inspect")

    def transform(self) -> Transform:
        return Fragment("inspect", self.f)


@frozen
class PassThrough(Flow[T, T]):
    """Pass each element on: a place holder, and a name in the graph.

    ::

        ──1────2──▶
        PassThrough()
        ──1────2──▶

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source("ab").via(PassThrough(), name="letters").to(Collect()).run())
    ['a', 'b']

    Source of the idea: go-streams' ``PassThrough``.
    """

    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.policy(self.on_error, "PassThrough")

    def transform(self) -> Transform:
        return Fragment("pass", _nothing)


def _nothing(_: object) -> None:
    """Never called: the fused function passes the element on."""
