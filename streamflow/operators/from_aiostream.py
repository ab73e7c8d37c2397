"""`FromAiostream`: an operator of aiostream as a step. The only place that imports aiostream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from time import perf_counter
from typing import Any, TypeVar

from attrs import frozen

from streamflow.engine.channel import Channel, Signal
from streamflow.engine.chunk import Chunk, End, Item, Outcome, Quiet, Watermark
from streamflow.engine.connector import WorkContext
from streamflow.engine.output import Output
from streamflow.engine.step import SLICE
from streamflow.engine.transform import Transform, Work
from streamflow.errors import ConfigurationError, shorten
from streamflow.graph import Flow

T = TypeVar("T")
U = TypeVar("U")


@frozen
class FromAiostream(Flow[T, U]):
    """Run any pipe operator of aiostream as a step: ``FromAiostream(pipe.map(f))``.

    ::

        ──1───2───3──▶
          FromAiostream(pipe.chunks(2))
        ──────[1,2]──────[3]─▶

    It takes whatever makes an async iterable of an async iterable. Nobody but the operator knows which element an
    output came from. So messages of a source that acknowledges count as done when the operator takes them, which
    needs ``delivery="best_effort"``, and a checkpoint is refused. Event time begins anew behind it: what comes out is
    one origin, ``out_of_order`` there has to cover what sources in front of it are apart, and watermarks of windows in
    front of it are not passed on. An error ends the operator for good: it fails the pipeline under every policy.

    Emits what the operator emits, in chunks of one. Completes when the operator does, or else after its input.
    Holds what the operator holds; a drain lets it finish as at the end of its input.

    >>> import asyncio
    >>> from aiostream import pipe
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source([1, 2, 3]).via(FromAiostream(pipe.chunks(2))).to(Collect()).run())
    [[1, 2], [3]]

    Raises `ConfigurationError` if aiostream is not installed: it is the extra ``nats-streamflow[aiostream]``.
    """

    operator: Callable[[AsyncIterable[T]], AsyncIterable[U]]

    def __attrs_post_init__(self) -> None:
        try:
            import aiostream  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                "FromAiostream needs aiostream: pip install 'nats-streamflow[aiostream]'"
            ) from error
        if not callable(self.operator):
            raise ConfigurationError(
                f"FromAiostream takes a pipe operator such as aiostream.pipe.skip(3), not {self.operator!r}"
            )

    def transform(self) -> Transform:
        return Work(lambda context: _Passage(context, self.operator), in_flight=1, traceable=False)


class _Passage:
    """Gives the elements to the operator and sends on what it gives back."""

    def __init__(self, context: WorkContext, operator: Callable[[Any], Any]) -> None:
        self._context = context
        self._step = context.step
        self._observer = context.run.observer
        self._operator = operator
        self._end = End()
        self._putting = asyncio.Lock()
        self._origins: set[str] = set()
        self._quiet: set[str] = set()

    async def run(self, source: Channel, output: Output) -> None:
        over = Signal()
        output.on_detach(over.set)
        async with asyncio.TaskGroup() as tasks:
            passing = tasks.create_task(self._pass(source, output))
            passing.add_done_callback(lambda _: over.set())
            await over.wait()
            passing.cancel()
        source.detach()

    async def _pass(self, source: Channel, output: Output) -> None:
        try:
            await self._operate(source, output)
        except BaseException as error:
            task = asyncio.current_task()
            if task is None:
                raise  # the loop has ended
            if task.cancelling():
                raise asyncio.CancelledError from error
            failure = self._context.guard.failure(error, self._step, None)
            self._observer.failed(failure, False)
            raise failure from failure.cause
        if not self._end.drain:
            await output.put(Watermark(self._step, math.inf))
        await output.put(self._end)

    async def _operate(self, source: Channel, output: Output) -> None:
        from aiostream import streamcontext

        elements = self._elements(source, output)
        try:
            outputs = self._operator(elements)
            if not isinstance(outputs, AsyncIterable):
                raise TypeError(
                    f"it takes a pipe operator such as pipe.map(f), and this one gave {shorten(outputs)}"
                )
            async with streamcontext(outputs) as streamer:
                async for value in streamer:
                    await self._put(output, Chunk([value], self._step))
                    self._observer.processed(self._step, 0, 1)
        finally:
            await elements.aclose()

    async def _elements(self, source: Channel, output: Output) -> AsyncGenerator[Any, None]:
        """What the operator reads."""
        since = perf_counter()
        while True:
            item = await source.get()
            if isinstance(item, End):
                self._end = item
                return
            if isinstance(item, Quiet | Watermark):
                await self._hear(item, output)
            if not isinstance(item, Chunk):
                continue
            self._origins.add(item.origin)
            self._quiet.discard(item.origin)
            self._observer.processed(self._step, len(item), 0)
            taken = 0
            try:
                for value in item.values:
                    taken += 1
                    yield value
                    if perf_counter() - since > SLICE:
                        await asyncio.sleep(0)  # an operator that never waits
                        since = perf_counter()
            finally:
                _release(item, taken)

    async def _hear(self, item: Quiet | Watermark, output: Output) -> None:
        """It is quiet when all that goes in is. How far event time has come there says nothing of what comes out."""
        if isinstance(item, Watermark) and item.time < math.inf:
            return
        self._origins.add(item.origin)
        if isinstance(item, Quiet) and item.over:
            self._quiet.discard(item.origin)
        else:
            self._quiet.add(item.origin)
        await self._put(output, Quiet(self._step, over=self._quiet < self._origins))

    async def _put(self, output: Output, item: Item) -> None:
        # The operator may read and give in tasks of its own, and only one at a time may wait for room.
        async with self._putting:
            await output.put(item)


def _release(chunk: Chunk, taken: int) -> None:
    """What the operator has taken is done, what it has left is unused."""
    if chunk.lineage is None:
        chunk.release()
        return
    for row, receipt in enumerate(chunk.lineage):
        receipt.give(Outcome.DONE if row < taken else Outcome.UNUSED)
