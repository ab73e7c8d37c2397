"""Sinks and sources in memory: lists, aggregates, functions, asyncio queues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from streamflow.engine.chunk import CHUNK_SIZE, Chunk
from streamflow.engine.connector import Reader, SinkContext, SourceContext, Writer
from streamflow.engine.step import SLICE
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Sink, Source
from streamflow.operators import Aggregator, Inspect, _check
from streamflow.operators.aggregators import check_aggregator
from streamflow.policies import ErrorPolicy, check_policy

T = TypeVar("T")
R = TypeVar("R")


class Collect(Sink[T, list[T]]):
    """Gather all elements; `Pipeline.run` returns them as a list."""

    async def open(self, context: SinkContext) -> Writer[list[T]]:
        return _Collected()


class _Collected(Writer[list[T]], Generic[T]):
    def __init__(self) -> None:
        self._values: list[T] = []

    async def write(self, chunk: Chunk) -> None:
        self._values += chunk.values
        chunk.release()

    def result(self) -> list[T]:
        return self._values


@frozen
class Into(Sink[T, R]):
    """Aggregate the whole stream: ``.to(Into(Sum()))`` makes `Pipeline.run` return the sum.

    An element that the aggregator cannot add goes to the error policy.
    """

    aggregator: Aggregator[T, R]
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_aggregator(self.aggregator, "Into")
        check_policy(self.on_error, "Into")

    async def open(self, context: SinkContext) -> Writer[R]:
        return _Aggregated(self.aggregator, context)


class _Aggregated(Writer[R], Generic[R]):
    def __init__(self, aggregator: Aggregator[Any, R], context: SinkContext) -> None:
        self._aggregator = aggregator
        self._context = context
        self._acc = aggregator.initial()

    async def write(self, chunk: Chunk) -> None:
        await self._add(chunk.values)
        chunk.release()

    async def _add(self, values: list[Any]) -> None:
        if not self._aggregator.calls_back:
            try:
                self._acc = self._aggregator.add_all(self._acc, values)
            except Exception:  # one of them does not add: find it below, one by one
                pass
            else:
                return
        add = self._aggregator.add
        since = perf_counter()
        for value in values:
            if perf_counter() - since > SLICE:
                await asyncio.sleep(0)
                since = perf_counter()
            try:
                self._acc = add(self._acc, value)
            except BaseException as error:
                self._context.guard.decide(error, self._context.step, value)

    def result(self) -> R:
        return self._aggregator.result(self._acc)


@frozen
class Discard(Sink[Any, int]):
    """Drop everything; `Pipeline.run` returns how many elements there were."""

    async def open(self, context: SinkContext) -> Writer[int]:
        return _Counted()


class _Counted(Writer[int]):
    def __init__(self) -> None:
        self._count = 0

    async def write(self, chunk: Chunk) -> None:
        self._count += len(chunk)
        chunk.release()

    def result(self) -> int:
        return self._count


@frozen
class ForEach(Sink[T, int]):
    """Call ``f(x)`` for each element; `Pipeline.run` returns how many there were.

    For a coroutine function use ``.via(MapAsync(f)).to(Discard())``, which runs several at once.
    """

    f: Callable[[T], object]
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.f, "ForEach", instead=".via(MapAsync(f)).to(Discard())")
        check_policy(self.on_error, "ForEach")

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Inspect(self.f, on_error=self.on_error),)

    async def open(self, context: SinkContext) -> Writer[int]:
        return _Counted()


class QueueSource(Source[T]):
    """Read an `asyncio.Queue`. ``end`` is the value that ends the stream (default None); it is not emitted.

    What is in the queue makes one chunk, so light traffic is not held up.
    """

    def __init__(self, queue: asyncio.Queue[T | None], *, end: Any = None, name: str | None = None) -> None:
        if not isinstance(queue, asyncio.Queue):
            raise ConfigurationError(f"QueueSource takes an asyncio.Queue, not {queue!r}")
        self.queue = queue
        self.end_value = end
        self.name = name

    async def open(self, context: SourceContext) -> Reader:
        return _QueueReader(self.queue, self.end_value, context.step)


class _QueueReader(Reader):
    def __init__(self, queue: asyncio.Queue[Any], end: Any, origin: str) -> None:
        self._queue = queue
        self._end = end
        self._origin = origin
        self._ended = False

    async def read(self) -> Chunk | None:
        if self._ended:
            return None
        values = [await self._queue.get()]
        while len(values) < CHUNK_SIZE and not self._queue.empty() and not self._is_end(values[-1]):
            values.append(self._queue.get_nowait())
        if self._is_end(values[-1]):
            self._ended = True
            values.pop()
        return Chunk(values, self._origin) if values else None

    def _is_end(self, value: Any) -> bool:
        return value is self._end

    @property
    def caught_up(self) -> bool:
        return not self._ended and self._queue.empty()


class QueueSink(Sink[T, int]):
    """Put each element into an `asyncio.Queue`; a full queue holds the stream back.

    `Pipeline.run` returns the number of elements. At the end nothing more is put.
    """

    def __init__(self, queue: asyncio.Queue[T]) -> None:
        if not isinstance(queue, asyncio.Queue):
            raise ConfigurationError(f"QueueSink takes an asyncio.Queue, not {queue!r}")
        self.queue = queue

    async def open(self, context: SinkContext) -> Writer[int]:
        return _QueueWriter(self.queue)


class _QueueWriter(Writer[int]):
    def __init__(self, queue: asyncio.Queue[Any]) -> None:
        self._queue = queue
        self._count = 0

    async def write(self, chunk: Chunk) -> None:
        for value in chunk.values:
            await self._queue.put(value)
            self._count += 1
        chunk.release()

    def result(self) -> int:
        return self._count
