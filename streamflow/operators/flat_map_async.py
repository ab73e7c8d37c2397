"""`FlatMapAsync`: an async iterable for each element, several at once."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from datetime import timedelta
from typing import TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.operators import _check, _coroutines
from streamflow.policies import ErrorPolicy

T = TypeVar("T")
U = TypeVar("U")


@frozen
class FlatMapAsync(Flow[T, U]):
    """Emit what the async iterable ``f(x)`` gives, as it gives it; up to ``concurrency`` iterables run at once.

    ::

        ──1────────2─────────────▶
          FlatMapAsync(pages)
        ─────1a──1b────2a──2b──2c─▶

    ``f`` is typically an async generator function. ``ordered=True`` (the default) sends on the outputs of one element
    after the other: those of the element whose turn it is as they come, while the others run on until each has 64
    outputs that wait. ``ordered=False`` sends on all as they come. ``timeout`` bounds the wait for each output.

    If an iterable fails in the middle, what it gave before has been emitted; the error policy decides about the element
    that it came from. Generators are closed when they fail, when the pipeline is stopped and when a `Take` behind them
    has enough. A drain lets what runs come to its end: an endless iterable has to be stopped.

    Emits as the iterables give. Completes when its input has and all iterables are exhausted. Holds what waits for its
    turn; a message stays unacknowledged until its iterable is exhausted and every output is delivered, and a barrier
    waits for the iterables before it.

    >>> import asyncio
    >>> from collections.abc import AsyncIterator
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> async def pages(x: int) -> AsyncIterator[str]:
    ...     for page in "ab":
    ...         await asyncio.sleep(0)
    ...         yield f"{x}{page}"
    >>> asyncio.run(Source([1, 2]).via(FlatMapAsync(pages)).to(Collect()).run())
    ['1a', '1b', '2a', '2b']

    Raises `ConfigurationError` for a coroutine function, a ``concurrency`` below 1 or a ``timeout`` that is no positive
    duration. Source of the idea: Pekko's ``flatMapConcat`` and ``flatMapMerge``.
    """

    f: Callable[[T], AsyncIterable[U]]
    concurrency: int = 16
    ordered: bool = True
    timeout: timedelta | float | None = None
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not callable(self.f):
            raise ConfigurationError(f"FlatMapAsync takes a function, not {self.f!r}")
        if _check.is_coroutine_function(self.f):
            raise ConfigurationError(
                "FlatMapAsync takes a function that returns an async iterable, such as an async generator function "
                "(a coroutine function that yields); for one that returns a value use MapAsync"
            )
        _coroutines.check("FlatMapAsync", self.concurrency, self.timeout, self.on_error)

    def transform(self) -> Transform:
        return _coroutines.work(
            _coroutines.IterateStage, self.f, "FlatMapAsync", self.concurrency, self.ordered, self.timeout
        )
