"""`MapAsync`: a coroutine for each element, several at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.operators import _coroutines
from streamflow.policies import ErrorPolicy

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
    fails with `TimeoutError`. By default there is no bound, but 60 s with a checkpoint, whose barriers wait for calls.
    An element that fails goes to the error policy.

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
        _coroutines.check("MapAsync", self.concurrency, self.timeout, self.on_error)

    def transform(self) -> Transform:
        return _coroutines.work(
            _coroutines.CallStage, self.f, "MapAsync", self.concurrency, self.ordered, self.timeout
        )
