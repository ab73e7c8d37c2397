"""Stages with work in flight: they take elements, work on several at once, and send the results on in order or not."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from itertools import count
from time import perf_counter
from typing import Any, Protocol

from streamflow.engine.channel import Channel, Signal
from streamflow.engine.chunk import CHUNK_SIZE, Chunk, End, Item, Outcome, Quiet
from streamflow.engine.connector import WorkContext
from streamflow.engine.output import Output
from streamflow.engine.step import SLICE

DROPPED = object()
"""The result of an element that an error policy or a predicate has dropped."""

AHEAD = 64
"""Outputs of one element that wait to be sent before the element has to wait with them."""


class Worker(Protocol):
    """What `Work.open` returns."""

    async def run(self, source: Channel, output: Output) -> None:
        """Work until the end of the stream, or until nobody wants results any more."""
        ...


class _Job:
    """A chunk that is being worked on, with the results that are there already."""

    __slots__ = ("begun", "chunk", "left", "results", "section", "sent", "unsent")

    def __init__(self, chunk: Chunk, section: int) -> None:
        self.chunk = chunk
        self.section = section
        """How many items that keep their place came before it."""
        self.results: dict[int, Any] = {}
        """By row: its result, `DROPPED`, or the `Outputs` that it has so far."""
        self.begun = self.sent = 0
        self.unsent = len(chunk)
        self.left = set(range(len(chunk))) if chunk.lineage is not None else set[int]()

    def settle(self, rows: list[int]) -> None:
        """With a receipt for each element, those that were sent on need not wait for the rest of the chunk."""
        self.sent += len(rows)
        self.unsent -= len(rows)
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


class Part:
    """Consecutive elements of a chunk: what one call of `WorkStage.perform` works on."""

    __slots__ = ("_job", "_start", "_stop", "stage")

    def __init__(self, stage: WorkStage, job: _Job, start: int, stop: int) -> None:
        self.stage = stage
        self._job = job
        self._start = start
        self._stop = stop

    @property
    def values(self) -> list[Any]:
        return self._job.chunk.values[self._start : self._stop]

    def finish(self, results: list[Any]) -> None:
        """Each value has its result, `DROPPED` where there is none."""
        for row, result in enumerate(results, self._start):
            self._job.results[row] = result
        self.changed()

    def open(self) -> Outputs:
        """The element of a part of one becomes any number of outputs, as they come, until `Outputs.end`."""
        outputs = self._job.results[self._start] = Outputs(self)
        return outputs

    def changed(self) -> None:
        """There may be something to send."""
        self.stage.changed(self._job)


class Outputs:
    """What one element becomes while more may come."""

    __slots__ = ("_part", "_room", "_since", "_task", "_values", "ended")

    def __init__(self, part: Part) -> None:
        self._part = part
        self._room = Signal()
        self._since = perf_counter()
        self._task = asyncio.current_task()
        self._values: list[Any] = []
        self.ended = False

    async def put(self, value: Any) -> None:
        """Add an output, then wait until there is room for the next."""
        if self._task is not None and self._task.cancelling():
            raise asyncio.CancelledError  # whoever made the value has swallowed it
        self._values.append(value)
        self._part.stage.buffered += 1
        self._part.changed()
        while len(self._values) >= AHEAD:
            await self._room.wait()
            self._since = perf_counter()
        if perf_counter() - self._since > SLICE:
            # An iterable that never waits would keep the loop from everything else.
            await asyncio.sleep(0)
            self._since = perf_counter()

    def end(self) -> None:
        """Nothing more comes."""
        self.ended = True
        self._part.changed()

    def take(self) -> list[Any]:
        """Take out what has come."""
        values, self._values = self._values, []
        self._part.stage.buffered -= len(values)
        self._room.set()
        return values


class WorkStage(ABC):
    """Works on up to ``concurrency`` parts of the stream at once, across chunks.

    Subclasses say how long a part is (`part_size`) and what is done with it (`perform`). A barrier or watermark
    keeps its place: ordered, among the results; unordered, behind the results of everything that came before it,
    while results from behind it wait.
    """

    def __init__(self, context: WorkContext, *, concurrency: int, ordered: bool) -> None:
        self.context = context
        self.buffered = 0
        """Outputs that wait in `Outputs`: while they are many, no further element is begun."""
        self._concurrency = concurrency
        self._ordered = ordered
        self._window = concurrency + CHUNK_SIZE
        self._line: deque[_Job | Item] = deque()
        self._quiet: dict[str, Quiet] = {}
        self._section = self._sections = 0
        self._fresh: dict[int, dict[_Job, None]] = {}
        self._todo: deque[_Job] = deque()
        self._in_hand = self._not_begun = 0
        self._workers: list[asyncio.Task[None]] = []
        self._idle: list[asyncio.Future[None]] = []
        self._progress = Signal()
        self._room = Signal()

    @property
    def part_size(self) -> int:
        """Elements that one call of `perform` takes, at most."""
        return 1

    @abstractmethod
    async def perform(self, part: Part) -> None:
        """Work on a part: `Part.finish` it, or `Part.open` it and end the outputs."""

    async def run(self, source: Channel, output: Output) -> None:
        if source.keeps:
            # What is taken out of a buffer of the user's is no longer there to be dropped.
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
                self._queue(item)
                if isinstance(item, End):
                    return
                continue
            if item.origin in self._quiet:
                self._line.remove(self._quiet.pop(item.origin))  # it is outdated
            job = _Job(item, self._sections)
            self._line.append(job)
            self._todo.append(job)
            self._in_hand += len(item)
            self._not_begun += len(item)
            self._hire(tasks, self._wake())
            while self._in_hand >= self._window:
                await self._room.wait()

    def _queue(self, item: Item) -> None:
        """An item that is no chunk gets its place in the line; only that of a `Quiet` need not be kept."""
        if not isinstance(item, Quiet):
            self._sections += 1
        elif not item.over:
            self._quiet[item.origin] = item
        self._line.append(item)
        self._progress.set()

    def _wake(self) -> int:
        """Let idle workers go on, as far as there is something to do; how many more could work."""
        wanted = -(-self._not_begun // self.part_size)
        while wanted and self._idle:
            waiting = self._idle.pop()
            if not waiting.done():
                waiting.set_result(None)
                wanted -= 1
        return wanted

    def _hire(self, tasks: asyncio.TaskGroup, wanted: int) -> None:
        for _ in range(min(wanted, self._concurrency - len(self._workers))):
            self._workers.append(tasks.create_task(self._work()))

    def _next_part(self) -> Part:
        """Cut only now, when it is known how long a part should be, and how much there is to share."""
        share = -(-self._not_begun // self._concurrency)
        job = self._todo[0]
        start = job.begun
        job.begun = min(start + min(self.part_size, share), len(job.chunk))
        if job.begun == len(job.chunk):
            self._todo.popleft()
        self._not_begun -= job.begun - start
        return Part(self, job, start, job.begun)

    async def _work(self) -> None:
        task = asyncio.current_task()
        since = perf_counter()
        while True:
            while not self._todo or self.buffered >= CHUNK_SIZE:
                waiting = asyncio.get_running_loop().create_future()
                self._idle.append(waiting)
                await waiting
                since = perf_counter()
            await self.perform(self._next_part())
            if task is not None and task.cancelling():
                # The user's coroutine has swallowed it, and we must not go on.
                raise asyncio.CancelledError
            if perf_counter() - since > SLICE:
                # Coroutines that never wait would keep the loop from everything else.
                await asyncio.sleep(0)
                since = perf_counter()

    def changed(self, job: _Job) -> None:
        """A job may have something to send."""
        if not self._ordered:
            self._fresh.setdefault(job.section, {})[job] = None
        self._progress.set()

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
                for job in [head] if self._ordered else self._fresh.pop(self._section, ()):
                    self._collect(job, ready)
                if head.unsent:
                    break
                head.finish()
            else:
                self._unqueue(head)
                ready.append(head)
            self._line.popleft()
        if self._in_hand < self._window:
            self._room.set()
        if self.buffered < CHUNK_SIZE:
            self._wake()
        return ready

    def _unqueue(self, item: Item) -> None:
        if not isinstance(item, Quiet):
            self._section += 1
        elif self._quiet.get(item.origin) is item:
            del self._quiet[item.origin]

    def _collect(self, job: _Job, ready: list[Item]) -> None:
        """Take the results of one chunk that may be sent: in order, those without a gap; else all there are."""
        rows: list[int] = []
        values: list[Any] = []
        settled: list[int] = []
        for row in self._rows(job):
            result = job.results[row]
            if type(result) is Outputs:
                taken = result.take()
                rows += [row] * len(taken)
                values += taken
                if not result.ended:
                    continue
            elif result is not DROPPED:
                rows.append(row)
                values.append(result)
            settled.append(row)
        for row in settled:
            del job.results[row]
        if values:
            ready.append(job.chunk.pick(rows, values))
        if values or settled:
            self._in_hand -= len(settled)
            job.settle(settled)
            self.context.run.observer.processed(self.context.step, len(settled), len(values))

    def _rows(self, job: _Job) -> Iterator[int]:
        """The rows whose turn it is."""
        if not self._ordered:
            yield from job.results
            return
        for row in count(job.sent):
            if row not in job.results:
                return
            yield row
            result = job.results[row]
            if type(result) is Outputs and not result.ended:
                return
