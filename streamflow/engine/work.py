"""Stages with work in flight: they take elements, work on several at once, and send the results on in order or not."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from itertools import islice
from time import perf_counter
from typing import Any

from streamflow.engine.channel import Channel, Signal
from streamflow.engine.chunk import CHUNK_SIZE, Chunk, End, Item, Outcome
from streamflow.engine.connector import WorkContext
from streamflow.engine.output import Output
from streamflow.engine.step import SLICE

DROPPED = object()
"""The result of an element that an error policy has dropped."""


class _Job:
    """A chunk that is being worked on, with the results that are there already."""

    __slots__ = ("chunk", "left", "missing", "results", "sent")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.results: dict[int, Any] = {}
        self.sent = 0
        self.missing = len(chunk)
        self.left = set(range(len(chunk))) if chunk.lineage is not None else set[int]()

    def settle(self, rows: Iterable[int]) -> None:
        """With a receipt for each element, those that were sent on need not wait for the rest of the chunk."""
        if self.chunk.lineage is not None:
            self.left.difference_update(rows)
            for row in rows:
                self.chunk.lineage[row].pass_on()

    def finish(self) -> None:
        """All elements were sent on."""
        if self.chunk.lineage is None:
            self.chunk.pass_on()

    def abandon(self) -> None:
        """Nobody wants what was not sent on."""
        if self.chunk.lineage is None:
            self.chunk.give(Outcome.UNUSED)
        else:
            for row in self.left:
                self.chunk.lineage[row].abandon()


class WorkStage(ABC):
    """Works on up to ``concurrency`` parts of the stream at once, across chunks.

    Subclasses say how long a part is (`part_size`) and what is done with it (`perform`). A barrier or watermark
    keeps its place: ordered, among the results; unordered, behind the results of everything that came before it,
    while results from behind it wait.
    """

    def __init__(self, context: WorkContext, *, concurrency: int, ordered: bool) -> None:
        self.context = context
        self._concurrency = concurrency
        self._ordered = ordered
        self._window = concurrency + CHUNK_SIZE
        self._line: deque[_Job | Item] = deque()
        self._todo: deque[tuple[_Job, int, int]] = deque()
        self._in_hand = 0
        self._workers: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._progress = Signal()
        self._room = Signal()

    @property
    def part_size(self) -> int:
        """Elements that one call of `perform` takes."""
        return 1

    @abstractmethod
    async def perform(self, values: list[Any]) -> list[Any]:
        """The result of each value, `DROPPED` where the policy dropped it."""

    async def run(self, source: Channel, output: Output) -> None:
        """Work until the end of the stream, or until nobody wants results any more."""
        if source.keeps:
            self._window = self._concurrency * self.part_size
        async with asyncio.TaskGroup() as tasks:
            output.on_detach(self._progress.set)
            intake = tasks.create_task(self._take(source, tasks))
            await self._send(output)
            source.detach()
            for task in (intake, *self._workers):
                task.cancel()

    # Intake and work

    async def _take(self, source: Channel, tasks: asyncio.TaskGroup) -> None:
        while True:
            item = await source.get(self._window - self._in_hand if source.keeps else None)
            if not isinstance(item, Chunk):
                self._line.append(item)
                self._progress.set()
                if isinstance(item, End):
                    return
                continue
            job = _Job(item)
            self._line.append(job)
            self._in_hand += len(item)
            size = self.part_size
            for start in range(0, len(item), size):
                self._todo.append((job, start, min(start + size, len(item))))
            self._hire(tasks)
            while self._in_hand >= self._window:
                await self._room.wait()

    def _hire(self, tasks: asyncio.TaskGroup) -> None:
        wanted = len(self._todo)
        while wanted and self._idle:
            waiting = self._idle.pop()
            if not waiting.done():
                waiting.set_result(None)
                wanted -= 1
        while wanted and len(self._workers) < self._concurrency:
            self._workers.append(tasks.create_task(self._work()))
            wanted -= 1

    async def _work(self) -> None:
        task = asyncio.current_task()
        since = perf_counter()
        while True:
            while not self._todo:
                waiting = asyncio.get_running_loop().create_future()
                self._idle.append(waiting)
                await waiting
                since = perf_counter()
            job, start, stop = self._todo.popleft()
            results = await self.perform(job.chunk.values[start:stop])
            if task is not None and task.cancelling():
                # The user's coroutine has swallowed it, and we must not go on.
                raise asyncio.CancelledError
            for row, result in enumerate(results, start):
                job.results[row] = result
            job.missing -= stop - start
            self._progress.set()
            if perf_counter() - since > SLICE:
                # Coroutines that never wait would keep the loop from everything else.
                await asyncio.sleep(0)
                since = perf_counter()

    # Results

    async def _send(self, output: Output) -> None:
        while not output.detached:
            for item in self._ready():
                await output.put(item)
                if isinstance(item, End):
                    return
            await self._progress.wait()
        for job in self._line:
            if isinstance(job, _Job):
                job.abandon()

    def _ready(self) -> list[Item]:
        """What can be sent on now."""
        ready: list[Item] = []
        while self._line:
            head = self._line[0]
            if isinstance(head, _Job):
                self._collect(head, ready)
                if head.missing or head.results:
                    break
                head.finish()
            else:
                ready.append(head)
            self._line.popleft()
        if not self._ordered:
            for job in islice(self._line, 1, None):
                if not isinstance(job, _Job):
                    break
                self._collect(job, ready)
        if self._in_hand < self._window:
            self._room.set()
        return ready

    def _collect(self, job: _Job, ready: list[Item]) -> None:
        """Take the results of one chunk that may be sent: in order, those without a gap; else all there are."""
        if self._ordered:
            start = stop = job.sent
            while stop in job.results:
                stop += 1
            job.sent = stop
            rows = list(range(start, stop))
        else:
            rows = list(job.results)
        if not rows:
            return
        results = [job.results.pop(row) for row in rows]
        kept = [row for row, result in zip(rows, results, strict=True) if result is not DROPPED]
        values = [result for result in results if result is not DROPPED]
        self._in_hand -= len(rows)
        if values:
            ready.append(job.chunk.pick(kept, values))
        job.settle(rows)
        self.context.run.observer.processed(self.context.step, len(rows), len(values))
