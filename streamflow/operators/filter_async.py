"""`FilterAsync`: keep what satisfies a predicate that has to wait for its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Transform
from streamflow.engine.work import DROPPED
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.operators import _coroutines
from streamflow.policies import ErrorPolicy

T = TypeVar("T")


@frozen
class FilterAsync(Flow[T, T]):
    """Keep the elements for which the coroutine ``predicate(x)`` returns what is true; drop the rest.

    ::

        ──1──2──3──4────────▶
          FilterAsync(exists)
        ───────2───────4────▶

    Up to ``concurrency`` predicates run at once, with ``ordered``, ``timeout`` (for each call) and the error policy as
    in `MapAsync`.

    Emits when a predicate has returned what is true. Completes when its input has and all have returned. Holds what
    runs and what waits for its turn, unacknowledged; a barrier waits for those before it, and intake goes on. A dropped
    message counts as processed: its source acknowledges it.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> async def known(x: int) -> bool:
    ...     await asyncio.sleep(0)
    ...     return x % 2 == 0
    >>> asyncio.run(Source(range(5)).via(FilterAsync(known, concurrency=2)).to(Collect()).run())
    [0, 2, 4]

    Raises `ConfigurationError` for a ``concurrency`` below 1 or a ``timeout`` that is no positive duration.
    Source of the idea: go-streams' ``Filter`` with parallelism.
    """

    predicate: Callable[[T], Awaitable[object]]
    concurrency: int = 16
    ordered: bool = True
    timeout: timedelta | float | None = None
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not callable(self.predicate):
            raise ConfigurationError(f"FilterAsync takes a coroutine function, not {self.predicate!r}")
        _coroutines.check("FilterAsync", self.concurrency, self.timeout, self.on_error)

    def transform(self) -> Transform:
        async def keep(value: T) -> Any:
            return value if await self.predicate(value) else DROPPED

        return _coroutines.work(
            _coroutines.CallStage, keep, "FilterAsync", self.concurrency, self.ordered, self.timeout
        )
