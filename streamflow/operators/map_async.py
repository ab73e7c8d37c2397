"""`MapAsync`: a coroutine for each element, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.connector import WorkContext
from streamflow.engine.transform import Transform, Work
from streamflow.engine.work import DROPPED, WorkStage
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.policies import ErrorPolicy, positive, seconds

T = TypeVar("T")
U = TypeVar("U")


@frozen
class MapAsync(Flow[T, U]):
    """Replace each element by what the coroutine ``f(x)`` returns; up to ``concurrency`` of them run at once.

    ::

        ──1───2───3──────▶
          MapAsync(fetch)
        ──────f1──f2──f3─▶

    ``ordered=True`` (the default) keeps the order: a slow element holds back those behind it, which run meanwhile.
    ``ordered=False`` emits each as it is done. ``timeout`` bounds each call; one that takes longer is cancelled and
    fails with `TimeoutError`. An element that fails goes to the error policy.

    Emits when a coroutine returns. Completes when its input has and all have returned. Holds what
    runs and what waits for its turn, unacknowledged; a barrier waits for those before it, and intake goes on.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> async def double(x: int) -> int:
    ...     await asyncio.sleep(0)
    ...     return 2 * x
    >>> asyncio.run(Source([1, 2, 3]).via(MapAsync(double, concurrency=2)).to(Collect()).run())
    [2, 4, 6]

    Source of the idea: go-streams' ``Map`` with parallelism; Pekko's ``mapAsync`` and ``mapAsyncUnordered``.
    """

    f: Callable[[T], Awaitable[U]]
    concurrency: int = 16
    ordered: bool = True
    timeout: timedelta | float | None = None
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not callable(self.f):
            raise ConfigurationError(f"MapAsync takes a coroutine function, not {self.f!r}")
        positive(self.concurrency, "MapAsync's concurrency")
        if self.timeout is not None:
            seconds(self.timeout, "MapAsync's timeout")
        from streamflow.operators import _check

        _check.policy(self.on_error, "MapAsync")

    def transform(self) -> Transform:
        timeout = None if self.timeout is None else seconds(self.timeout, "MapAsync's timeout")

        def open(context: WorkContext) -> WorkStage:
            return _AsyncStage(context, self.f, timeout, concurrency=self.concurrency, ordered=self.ordered)

        return Work(open, in_flight=4 * self.concurrency + 64)


class _AsyncStage(WorkStage):
    def __init__(
        self,
        context: WorkContext,
        f: Callable[[Any], Awaitable[Any]],
        timeout: float | None,
        *,
        concurrency: int,
        ordered: bool,
    ) -> None:
        super().__init__(context, concurrency=concurrency, ordered=ordered)
        self._f = f
        self._timeout = timeout

    async def perform(self, values: list[Any]) -> list[Any]:
        (value,) = values
        try:
            if self._timeout is None:
                return [await self._f(value)]
            async with asyncio.timeout(self._timeout):
                return [await self._f(value)]
        except BaseException as error:
            task = _current_task()
            if task is None:
                raise  # the loop has ended, and the coroutine is only being closed
            if task.cancelling():
                raise asyncio.CancelledError from error  # we asked for it, whatever the coroutine made of it
            if isinstance(error, TypeError) and "await" in str(error):
                error.add_note("MapAsync needs a coroutine function; for a plain function use Map")
            self.context.guard.decide(error, self.context.step, value)
            return [DROPPED]


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None
