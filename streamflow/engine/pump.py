"""Pumps bring the chunks of a source to the first stage behind it.

A source that may have to wait has a task of its own, a `WaitingPump`, which fills the stage's channel. One that never
waits (a `SyncReader`: a list, a generator) needs none: its `FeedingPump` is asked by the channel whenever the stage
wants more, so that a chunk is processed while it is hot in the cache, and no task is switched for it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from itertools import count
from time import perf_counter
from typing import Any

from streamflow.engine.channel import Signal
from streamflow.engine.chunk import Barrier, Chunk, End, Item, Progress, Quiet, Watermark
from streamflow.engine.connector import Reader, SyncReader
from streamflow.engine.guard import reraise
from streamflow.engine.observer import Observer
from streamflow.engine.output import ToChannel
from streamflow.engine.points import reached
from streamflow.engine.stage import Stage
from streamflow.engine.step import SLICE


class Pump:
    """What both kinds share. It reads until the source ends, the run drains, or nobody wants more.

    ``marks``: it reports its progress behind each chunk, since branches of it meet again.
    """

    def __init__(
        self, name: str, pipeline: str, output: ToChannel, observer: Observer, *, marks: bool = False
    ) -> None:
        self.name = name
        self.ended = False
        self.reader: Reader | None = None
        self._pipeline = pipeline
        self._output = output
        self._observer = observer
        self._interrupted = False
        self._behind: list[tuple[Stage, int]] = []
        self._chunks = count(1) if marks else None
        output.on_detach(self.stop_reading)

    def wait_behind(self, stage: Stage, port: int) -> None:
        """Do not read while this stage, somewhere behind, holds more by this input than a channel would."""
        self._behind.append((stage, port))
        stage.on_relief.append(self._relieved)

    def quiet(self) -> None:
        """The source is caught up."""
        if not self.ended:
            self._output.append(Quiet(self.name))

    def inject(self, barrier: Barrier) -> Any:
        """Put a barrier behind everything read so far; returns where to go on after it."""
        if not self.ended:
            self._output.append(barrier)
        return self.reader.position() if self.reader is not None else None

    def stop_reading(self) -> None:
        """Take nothing more from the source, and leave what it has sent to be finished."""
        if not self._interrupted and not self.ended:
            self._interrupted = True
            self._wake()

    @property
    def held_back(self) -> bool:
        """Whether a stage behind holds so much that the source has to wait."""
        return any(port in stage.overfull for stage, port in self._behind)

    @property
    def is_held_up(self) -> bool:
        """Whether it has more to read and has to wait."""
        waits = self.held_back or self._output.is_full or (self.reader is not None and self.reader.is_held_up)
        return waits and not self.ended

    def _read(self, chunk: Chunk) -> None:
        reached("chunk read")
        self._observer.processed(self.name, len(chunk), len(chunk))

    def _mark(self) -> None:
        """Behind a chunk."""
        if self._chunks is not None:
            self._output.append(Progress(self.name, next(self._chunks)))

    def _relieved(self) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        raise NotImplementedError


class WaitingPump(Pump):
    """Reads with a task of its own into the channel."""

    def __init__(
        self, name: str, pipeline: str, output: ToChannel, observer: Observer, *, marks: bool = False
    ) -> None:
        super().__init__(name, pipeline, output, observer, marks=marks)
        self._task: asyncio.Task[None] | None = None
        self._relief = Signal()

    async def run(self, reader: Reader) -> None:
        self._task = asyncio.current_task()
        if not self._interrupted:
            try:
                await self._fill(reader)
            except asyncio.CancelledError:
                if not self._interrupted or self._task is None or self._task.uncancel():
                    raise
        if not self.ended:
            self.ended = True
            self._output.append(End(drain=True))

    async def _fill(self, reader: Reader) -> None:
        since = perf_counter()
        if reader.caught_up:
            self.quiet()
        while not self._interrupted:
            while self.held_back:
                await self._relief.wait()
            try:
                chunk = await reader.read()
            except BaseException as error:
                reraise(error, self._pipeline, self.name)
            if chunk is None:
                self.ended = True
                self._output.append(Watermark(self.name, math.inf))
                self._output.append(End())
                return
            self._read(chunk)
            self._output.append(chunk)
            self._mark()
            await self._output.wait_for_room()
            if reader.caught_up:
                self.quiet()
            if perf_counter() - since > SLICE:
                # A source that has always something must not keep the loop to itself.
                await asyncio.sleep(0)
                since = perf_counter()

    def _relieved(self) -> None:
        self._relief.set()

    def _wake(self) -> None:
        if self._task is not None:
            self._task.cancel()


class FeedingPump(Pump):
    """Reads when the channel asks it to. ``on_end`` is called when it has no more."""

    def __init__(
        self,
        name: str,
        pipeline: str,
        output: ToChannel,
        observer: Observer,
        reader: SyncReader,
        on_end: Callable[[], None],
        *,
        marks: bool = False,
    ) -> None:
        super().__init__(name, pipeline, output, observer, marks=marks)
        self.reader = self._source = reader
        self._on_end = on_end

    def feed(self) -> Item | None:
        """The next item, None while the source is held back or after its end."""
        if self.ended:
            return None
        if self._interrupted:
            return self._end(End(drain=True))
        if self.held_back:
            return None
        try:
            chunk = self._source.take()
        except BaseException as error:
            reraise(error, self._pipeline, self.name)
        if chunk is None:
            item = self._end(Watermark(self.name, math.inf))
            self._output.append(End())
            return item
        self._read(chunk)
        self._mark()
        return chunk

    def _end(self, item: Item) -> Item:
        self.ended = True
        self._on_end()
        return item

    def _relieved(self) -> None:
        self._output.wake()

    def _wake(self) -> None:
        self._output.wake()
