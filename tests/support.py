"""Helpers for tests of pipelines: virtual time with a leak check, sources cut as told, sinks that confirm as told."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from attrs import define, field
from hypothesis import strategies as st

from streamflow import Checkpoint, Pipeline, Sink, Source
from streamflow.engine.checkpoint import Snapshot
from streamflow.engine.chunk import Chunk, Outcome, Receipt
from streamflow.engine.connector import Reader, SinkContext, SourceContext, SyncReader, Writer
from streamflow.operators import Inspect
from streamflow.testing import MemoryStore, VirtualClock, run_virtual

T = TypeVar("T")
R = TypeVar("R")

_INSTANT = 1e-9
"""Less than this does not move a clock: it may be lost in rounding."""

DEADLINE = 30.0
"""Real seconds after which a test of threads or processes is stuck."""


# Running


def run(pipeline: Pipeline[R], *, start: float = 0.0, **options: Any) -> R:
    """Run a pipeline in virtual time, from ``start`` on, and check that nothing is left of it."""

    async def work() -> R:
        return await pipeline.run(clock=VirtualClock(start), **options)

    return virtual(work())


def virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time, and check that nothing of what it started is left."""
    return run_virtual(_leak_checked(work))


def real(work: Coroutine[Any, Any, T]) -> T:
    """The same in real time, for threads and processes, with a deadline."""

    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE):
            return await work

    return asyncio.run(_leak_checked(bounded()))


async def _leak_checked(work: Coroutine[Any, Any, T]) -> T:
    threads = _threads()
    try:
        return await work
    finally:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks, f"tasks left: {tasks}"
        assert not multiprocessing.active_children()
        assert _threads() <= threads, f"threads left: {_threads() - threads}"
        known = getattr(asyncio.get_running_loop(), "_asyncgens")  # noqa: B009 - asyncio has no public way
        generators = [generator for generator in known if generator.ag_frame is not None]
        assert not generators, f"async generators left open: {generators}"


def _threads() -> set[threading.Thread]:
    # The loop's default executor belongs to the loop, which ends it.
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until something is true. A test in which it never becomes true fails."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never became true")


def chain(*flows: Any) -> Any:
    """Flows one after the other, for lambdas without annotations: those infer in `Stream.via` only."""
    composed = flows[0]
    for flow in flows[1:]:
        composed = composed.via(flow)
    return composed


def stamped(seen: list[tuple[float, Any]]) -> Any:
    """An operator that notes the loop's time and the element, and passes it on."""
    return Inspect(lambda x: seen.append((asyncio.get_running_loop().time(), x)))


# Sources


def cut(values: Sequence[T], sizes: Iterable[int]) -> list[list[T]]:
    """Cut values into chunks of the given sizes; what is left over is one more chunk."""
    chunks: list[list[T]] = []
    start = 0
    for size in sizes:
        if start >= len(values):
            break
        chunks.append(list(values[start : start + size]))
        start += size
    return [*chunks, list(values[start:])] if start < len(values) else chunks


sizes = st.lists(st.integers(1, 7), max_size=12)
"""Generated chunk sizes, for `cut`."""


class Chunked(Source[Any]):
    """Emits the chunks as given. With ``times`` chunk *i* comes at that clock time, not before.

    Without times an odd number of chunks is read synchronously, an even one is not: what feeds a stage directly and
    what has a task of its own must do the same.
    """

    def __init__(
        self,
        chunks: Iterable[list[Any]],
        name: str | None = None,
        *,
        times: Sequence[float] | None = None,
        ends: bool = True,
    ) -> None:
        self.chunks = [chunk for chunk in chunks if chunk]
        self.name = name
        self.times = times
        self.ends = ends
        self.injected: list[float] = []
        """When barriers were injected."""

    async def open(self, context: SourceContext) -> Reader:
        is_sync = self.times is None and self.ends and len(self.chunks) % 2 == 1
        return _SyncChunkReader(self, context) if is_sync else _ChunkReader(self, context)


class _SyncChunkReader(SyncReader):
    def __init__(self, source: Chunked, context: SourceContext) -> None:
        self._source = source
        self._context = context
        self._next: int = context.position or 0

    def take(self) -> Chunk | None:
        if self._next == len(self._source.chunks):
            return None
        self._next += 1
        return Chunk(list(self._source.chunks[self._next - 1]), self._context.step)

    def position(self) -> int:
        self._source.injected.append(self._context.run.clock.now())
        return self._next


class _ChunkReader(Reader):
    def __init__(self, source: Chunked, context: SourceContext) -> None:
        self._source = source
        self._context = context
        self._next: int = context.position or 0

    async def read(self) -> Chunk | None:
        source, number = self._source, self._next
        if number == len(source.chunks):
            if not source.ends:
                await asyncio.Event().wait()
            return None
        if source.times is not None:
            clock = self._context.run.clock
            while (wait := source.times[number] - clock.now()) > _INSTANT:
                await asyncio.sleep(wait)
        else:
            await asyncio.sleep(0)
        self._next = number + 1
        return Chunk(list(source.chunks[number]), self._context.step)

    def position(self) -> int:
        self._source.injected.append(self._context.run.clock.now())
        return self._next

    @property
    def caught_up(self) -> bool:
        return self._next == len(self._source.chunks)


@define(eq=False)
class Ledger:
    """What happened to the messages of an `Acknowledging` source, by position, in order."""

    events: list[tuple[str, int]] = field(factory=list)
    read: list[int] = field(factory=list)

    def note(self, what: str, positions: Iterable[int]) -> None:
        self.events += [(what, position) for position in positions]

    def of(self, what: str) -> list[int]:
        return [position for event, position in self.events if event == what]

    @property
    def acked(self) -> list[int]:
        """Acknowledged, by its receipt."""
        return self.of("acked")

    @property
    def given_back(self) -> list[int]:
        """Handed back, by its receipt."""
        return self.of("unused") + self.of("rejected")

    @property
    def returned(self) -> list[int]:
        """Handed back when the reader was closed, unsettled."""
        return self.of("returned")

    def check(self, *, deliver: Iterable[int] | None = None, sinks: int = 1) -> None:
        """Each message read is settled once, and none acknowledged before each sink confirmed it.

        ``deliver`` are the positions that must reach a sink; the others are dropped on the way. Default: all.
        """
        settled = Counter(self.acked + self.given_back + self.returned)
        assert settled == Counter(self.read)
        wanted = set(self.read if deliver is None else deliver)
        confirmed: Counter[int] = Counter()
        for event, position in self.events:
            if event == "confirmed":
                confirmed[position] += 1
            elif event == "acked" and position in wanted:
                assert confirmed[position] >= sinks, f"{position} was acknowledged and not delivered"


class Acknowledging(Source[Any]):
    """A source whose messages must be acknowledged. The values are the positions; chunks are cut as told."""

    acknowledges = True

    def __init__(
        self, count: int, sizes: Iterable[int] = (), *, ends: bool = True, name: str | None = None
    ) -> None:
        self.chunks = cut(range(count), sizes)
        self.ends = ends
        self.name = name
        self.ledger = Ledger()
        self.lineage = False
        self.reader: AcknowledgingReader | None = None

    async def open(self, context: SourceContext) -> Reader:
        self.ledger = Ledger()
        self.lineage = context.lineage
        self.reader = AcknowledgingReader(self, context)
        return self.reader


class AcknowledgingReader(Reader):
    def __init__(self, source: Acknowledging, context: SourceContext) -> None:
        self.source = source
        self.ledger = source.ledger
        self.context = context
        self.chunks = list(source.chunks)
        self.unsettled: set[int] = set()

    async def read(self) -> Chunk | None:
        await asyncio.sleep(0)
        if not self.chunks:
            if not self.source.ends:
                await asyncio.Event().wait()
            return None
        positions = self.chunks.pop(0)
        self.ledger.read += positions
        self.unsettled.update(positions)
        step = self.context.step
        if not self.context.receipts:
            return Chunk(list(positions), step)
        if self.context.lineage:
            return Chunk(
                list(positions), step, lineage=[Receipt(self._settle, position=[p]) for p in positions]
            )
        return Chunk(list(positions), step, receipt=Receipt(self._settle, position=positions))

    def _settle(self, receipt: Receipt, outcome: Outcome) -> None:
        what = {Outcome.DONE: "acked", Outcome.UNUSED: "unused", Outcome.REJECTED: "rejected"}[outcome]
        self.ledger.note(what, receipt.position)
        for position in receipt.position:
            self.unsettled.remove(position)

    @property
    def caught_up(self) -> bool:
        return not self.chunks

    async def close(self) -> None:
        self.ledger.note("returned", sorted(self.unsettled))
        self.unsettled.clear()


# Sinks


class Recorder(Sink[Any, list[Any]]):
    """Collects, and notes with each barrier how many elements came before it."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.marks: list[int] = []

    async def open(self, context: SinkContext) -> Writer[list[Any]]:
        self.values, self.marks = [], []
        return _RecordWriter(self)


class _RecordWriter(Writer[list[Any]]):
    def __init__(self, sink: Recorder) -> None:
        self._sink = sink

    async def write(self, chunk: Chunk) -> None:
        self._sink.values += chunk.values
        chunk.release()

    async def flush(self) -> None:
        self._sink.marks.append(len(self._sink.values))

    def result(self) -> list[Any]:
        return self._sink.values


class Confirming(Sink[Any, list[Any]]):
    """Writes into a ledger what it confirms: at once, after a ``delay``, or (None) only when `confirm` is called."""

    def __init__(self, source: Acknowledging, delay: float | None = 0.0) -> None:
        self.source = source
        self.delay = delay
        self.held: list[Chunk] = []
        self.values: list[Any] = []

    def confirm(self, number: int | None = None) -> None:
        """Confirm the oldest chunks that wait; default: all."""
        number = len(self.held) if number is None else number
        for chunk in self.held[:number]:
            self.source.ledger.note("confirmed", flatten(chunk.values))
            chunk.release()
        del self.held[:number]

    async def open(self, context: SinkContext) -> Writer[list[Any]]:
        self.held, self.values = [], []
        return _ConfirmingWriter(self)


class _ConfirmingWriter(Writer[list[Any]]):
    def __init__(self, sink: Confirming) -> None:
        self._sink = sink

    async def write(self, chunk: Chunk) -> None:
        sink = self._sink
        sink.values += chunk.values
        sink.held.append(chunk)
        if sink.delay is not None:
            if sink.delay:
                await asyncio.sleep(sink.delay)
            sink.confirm()

    def result(self) -> list[Any]:
        return self._sink.values


def flatten(values: Any) -> list[int]:
    """The positions in whatever was made of them: lists, keyed values and windows have them inside."""
    if isinstance(values, int):
        return [values]
    if hasattr(values, "start"):
        return flatten(values.value)
    if hasattr(values, "_fields"):
        return flatten(values[1])
    return [position for value in values for position in flatten(value)]


# Checkpoints


def times_for(chunks: list[list[int]], gaps: list[float]) -> list[float]:
    """Clock times for chunks: the gaps in turn between them."""
    times, now = [], 0.0
    for number in range(len(chunks)):
        now += gaps[number % len(gaps)]
        times.append(now)
    return times


def restarts(
    build: Callable[[], tuple[Pipeline[list[Any]], Recorder, Chunked]],
    *,
    every: float = 1 + 1 / 128,
    order: Callable[[list[Any]], list[Any]] = list,
    **options: Any,
) -> int:
    """Run a pipeline with checkpoints, restart it from each of them, and compare with the run without interruption.

    ``build`` makes the pipeline anew and returns it with its sink and one of its sources. A restart begins at the
    clock time at which the barrier was injected. ``every`` is exact in binary, so that times are the same after it, and
    odd, so that no checkpoint falls on an arrival: which of two timers of the same time fires first is left open.
    ``order`` brings results into the order that is compared.

    Returns the number of checkpoints before the last, so that a test can assert that there were some.
    """
    store = MemoryStore()
    pipeline, sink, source = build()
    checkpoint = Checkpoint(every=every, store=store)
    whole = run(pipeline, checkpoint=checkpoint, **options)
    marks = list(sink.marks)
    for index, snapshot in enumerate(store.history):
        before = whole[: marks[index]] if index < len(marks) else whole
        rest = _restarted(build()[0], snapshot, source.injected[index], every, **options)
        assert order(before + rest) == order(whole), f"{before} + {rest} != {whole} at checkpoint {index + 1}"
    return len(store.history) - 1


def _restarted(
    pipeline: Pipeline[list[Any]], snapshot: Snapshot, at: float, every: float, **options: Any
) -> list[Any]:
    store = MemoryStore.at(snapshot, pipeline.name)
    checkpoint = Checkpoint(every=every, store=store)
    return run(pipeline, start=at, checkpoint=checkpoint, **options)
