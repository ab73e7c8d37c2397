"""Readers over what Python can iterate: the built-in `Source`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from time import perf_counter
from typing import Any

from streamflow.engine.channel import Signal
from streamflow.engine.chunk import CHUNK_SIZE, Chunk
from streamflow.engine.connector import Reader, SourceContext, SyncReader
from streamflow.engine.step import SLICE, Slicer
from streamflow.errors import ConfigurationError, shorten
from streamflow.graph import Source


def open_items(source: Source[Any], context: SourceContext) -> Reader:
    """The reader for whatever a `Source` was given."""
    items: Any = source.items
    if not isinstance(items, Iterable | AsyncIterable):
        try:
            items = items()
        except BaseException as error:
            raise context.guard.failure(error, context.step, None) from error
        if not isinstance(items, Iterable | AsyncIterable):
            raise ConfigurationError(
                f"pipeline {context.run.pipeline!r}, step {context.step!r}: the function given to Source returned "
                f"{shorten(items)}, which is no iterable"
            )
    elif isinstance(items, Iterator | AsyncIterator):
        if source.__dict__.get("_consumed"):
            raise ConfigurationError(
                f"pipeline {context.run.pipeline!r}, step {context.step!r}: {shorten(items)} can be read only once "
                "and a run has read it; give Source a function that returns a fresh one"
            )
        source.__dict__["_consumed"] = True
    if isinstance(items, AsyncIterable):
        return AsyncIterableReader(items, context)
    if isinstance(items, list | tuple | range):
        return SequenceReader(items, context)
    return IterableReader(items, context)


class SequenceReader(SyncReader):
    """Reads what can be sliced, which costs less than iterating and never computes."""

    def __init__(self, items: Sequence[Any], context: SourceContext) -> None:
        self._items = items
        self._origin = context.step
        self._count: int = context.position or 0

    def take(self) -> Chunk | None:
        values = list(self._items[self._count : self._count + CHUNK_SIZE])
        self._count += len(values)
        return Chunk(values, self._origin) if values else None

    def position(self) -> int:
        return self._count


class IterableReader(SyncReader):
    """Reads an iterable in time slices, so that a generator that computes does not hold up the loop."""

    def __init__(self, items: Iterable[Any], context: SourceContext) -> None:
        self._context = context
        self._count: int = context.position or 0
        self._slicer = Slicer()
        try:
            self._items = iter(items)
            for _ in islice(self._items, self._count):
                pass
        except BaseException as error:
            raise context.guard.failure(error, context.step, None) from error
        self._failure: BaseException | None = None

    def take(self) -> Chunk | None:
        if self._failure is not None:
            raise self._failure
        values: list[Any] = []
        self._slicer.start()
        try:
            values.extend(islice(self._items, self._slicer.size))
        except BaseException as error:
            # What came before it is delivered first.
            self._failure = self._context.guard.failure(error, self._context.step, None)
            if not values:
                raise self._failure from error
        self._slicer.lap()
        self._count += len(values)
        return Chunk(values, self._context.step) if values else None

    def position(self) -> int:
        return self._count

    async def close(self) -> None:
        if isinstance(self._items, Generator):
            self._items.close()


class AsyncIterableReader(Reader):
    """Reads an async iterable with a task of its own: whatever has arrived since the last read makes one chunk."""

    def __init__(self, items: AsyncIterable[Any], context: SourceContext) -> None:
        self._context = context
        self._count: int = context.position or 0
        self._skip = self._count
        self._values: list[Any] = []
        self._ended = False
        self._failure: BaseException | None = None
        self._arrived = Signal()
        self._taken = Signal()
        self._items = items
        self._task = asyncio.get_running_loop().create_task(self._pull())

    async def _pull(self) -> None:
        iterator: AsyncIterator[Any] | None = None
        since = perf_counter()
        try:
            iterator = aiter(self._items)
            async for value in iterator:
                if self._skip:
                    self._skip -= 1
                    continue
                self._values.append(value)
                self._arrived.set()
                while len(self._values) >= CHUNK_SIZE:
                    await self._taken.wait()
                if perf_counter() - since > SLICE:
                    await asyncio.sleep(0)  # an iterator that never waits
                    since = perf_counter()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._failure = error
        except BaseException as error:
            self._failure = error
        finally:
            self._ended = True
            self._arrived.set()
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    async def read(self) -> Chunk | None:
        while not self._values and not self._ended:
            await self._arrived.wait()
        if not self._values:
            if self._failure is not None:
                failure = self._context.guard.failure(self._failure, self._context.step, None)
                raise failure from failure.cause
            return None
        values, self._values = self._values, []
        self._taken.set()
        self._count += len(values)
        return Chunk(values, self._context.step)

    def position(self) -> int:
        return self._count

    @property
    def caught_up(self) -> bool:
        return not self._values and not self._ended

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class Streamed(AsyncIterator[Any]):
    """The elements of an aiostream ``Stream``, inside its streamer's context."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._stack = AsyncExitStack()
        self._streamer: AsyncIterator[Any] | None = None

    async def __anext__(self) -> Any:
        if self._streamer is None:
            self._streamer = aiter(await self._stack.enter_async_context(self._stream.stream()))
        return await anext(self._streamer)

    async def aclose(self) -> None:
        await self._stack.aclose()
