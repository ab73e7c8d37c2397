"""``async for x in stream``: a pipeline whose sink hands its elements to whoever iterates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from streamflow.engine.channel import Signal
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.graph import Sink

if TYPE_CHECKING:
    from streamflow.graph import Stream

T = TypeVar("T")


async def iterate(stream: Stream[T]) -> AsyncGenerator[T, None]:
    """Run a stream for as long as its elements are asked for.

    The run has a task of its own: while the generator is suspended, it is in no task group and no timeout.
    """
    handover = _HandOver()
    running = await stream.to(_ToConsumer(handover), step="async for").start().__aenter__()
    try:
        while (chunk := await handover.take()) is not None:
            for value in handover.elements(chunk):
                yield value
        await running.wait()
    finally:
        await running.stop()


class _HandOver(Writer[None]):
    """Where chunks pass from the pipeline to the consumer: one waits there until its last element is consumed."""

    def __init__(self) -> None:
        self._chunk: Chunk | None = None
        self._closed = False
        self._offered = Signal()
        self._consumed = Signal()

    # The pipeline's side

    async def watch(self) -> None:
        """Close when the run ends, for whatever reason, and before its sources take back what is unsettled."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def write(self, chunk: Chunk) -> None:
        # Not until it is consumed: the steps before let go of its receipts only when this returns.
        await self.flush()
        self._chunk = chunk
        self._offered.set()

    async def flush(self) -> None:
        while self._chunk is not None:
            await self._consumed.wait()

    def result(self) -> None:
        return None

    async def close(self) -> None:
        self._closed = True
        self._offered.set()

    # The consumer's side

    async def take(self) -> Chunk | None:
        """The next chunk; None when the run has ended."""
        while self._chunk is None and not self._closed:
            await self._offered.wait()
        return None if self._closed else self._chunk

    def elements(self, chunk: Chunk) -> Iterator[Any]:
        """Each is released when the next one is asked for."""
        for row, value in enumerate(chunk.values):
            yield value
            if self._closed:
                return
            if chunk.lineage is not None:
                chunk.lineage[row].release()
        if chunk.lineage is None:
            chunk.release()
        self._chunk = None
        self._consumed.set()


class _ToConsumer(Sink[Any, None]):
    """The sink at the end of an iterated stream."""

    wants_positions = True  # so that each message has a receipt of its own

    def __init__(self, handover: _HandOver) -> None:
        self._handover = handover

    async def open(self, context: SinkContext) -> Writer[None]:
        context.run.spawn(self._handover.watch())
        return self._handover
