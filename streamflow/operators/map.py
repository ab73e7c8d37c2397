"""`Map`: one value in, one value out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Fragment, Transform, Work
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy, positive

if TYPE_CHECKING:
    from streamflow.engine.connector import WorkContext
    from streamflow.engine.work import WorkStage

T = TypeVar("T")
U = TypeVar("U")


@frozen
class Map(Flow[T, U]):
    """Replace each element ``x`` by ``f(x)``.

    ::

        ──1────2────3──▶
           Map(x * 10)
        ──10───20───30─▶

    ``executor="thread"`` or ``"process"`` runs ``f`` outside the event loop, on ``concurrency`` workers (default: the
    number of cores); the order is kept. Threads suit functions that wait or release the interpreter lock. Processes
    suit computing; ``f`` must then be a function defined at module level, and elements and results must pickle.
    Should a worker process die, the elements that it was given run again, one at a time and apart, to find the one
    that kills it; that element goes to the error policy. With the default `Fail` nothing runs again.

    Emits when ``f`` has returned. Completes with its input. Holds nothing; with an executor, what is being computed.
    Deterministic if ``f`` is.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([1, 2, 3]).via(Map(lambda x: x * 10)).to(Collect()).run())
    [10, 20, 30]

    Raises `ConfigurationError` if ``f`` is no plain function, or cannot be sent to another process.
    Source of the idea: go-streams' ``Map``.
    """

    f: Callable[[T], U]
    executor: Literal["thread", "process"] | None = field(default=None, kw_only=True)
    concurrency: int | None = field(default=None, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.f, "Map")
        _check.policy(self.on_error, "Map")
        if self.executor not in (None, "thread", "process"):
            raise ConfigurationError(f"Map's executor must be 'thread' or 'process', not {self.executor!r}")
        if self.concurrency is not None:
            positive(self.concurrency, "Map's concurrency")
            if self.executor is None:
                raise ConfigurationError(
                    "Map's concurrency needs an executor: executor='thread' or 'process'"
                )
        if self.executor == "process":
            from streamflow.operators._executors import check_sendable

            check_sendable(self.f)

    def transform(self) -> Transform:
        if self.executor is None:
            return Fragment("map", self.f)
        return Work(self._open, in_flight=1024)

    def _open(self, context: WorkContext) -> WorkStage:
        from streamflow.operators import _executors

        kind = _executors.ProcessStage if self.executor == "process" else _executors.ThreadStage
        return kind(context, self.f, concurrency=self.concurrency)
