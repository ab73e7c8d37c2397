"""Sources and sinks at the edge of the engine: how they begin, fail and are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest

from streamflow import (
    ConfigurationError,
    ConnectorError,
    Fail,
    Skip,
    Source,
    StepError,
    StreamflowError,
)
from streamflow.connectors import Collect, Discard, QueueSource
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import Reader, SinkContext, SourceContext, Writer
from streamflow.operators import (
    Map,
    MapAsync,
    Take,
    merge,
)
from tests.support import Recorder, run, virtual


async def never(x: Any) -> Any:
    await asyncio.Event().wait()


async def ticks() -> AsyncIterator[int]:
    for number in count():
        await asyncio.sleep(0.1)
        yield number


# Sources


@pytest.mark.parametrize("once", [lambda: iter([1, 2]), lambda: (x for x in [1, 2]), lambda: one_shot()])
def test_a_one_shot_iterator_runs_once(once: Any) -> None:
    pipeline = Source(once()).to(Collect())
    assert run(pipeline) == [1, 2]
    with pytest.raises(
        ConfigurationError, match=r"step 'Source': .* can be read only once .* give Source a function"
    ):
        run(pipeline)


async def one_shot() -> AsyncIterator[int]:
    yield 1
    yield 2


@pytest.mark.parametrize("fresh", [[1, 2], lambda: iter([1, 2]), lambda: (x for x in [1, 2]), one_shot])
def test_a_collection_or_a_function_runs_as_often_as_you_like(fresh: Any) -> None:
    pipeline = Source(fresh).to(Collect())
    assert [run(pipeline), run(pipeline)] == [[1, 2], [1, 2]]


class Unreadable:
    def __iter__(self) -> Iterator[int]:
        raise ValueError("no")


class AsyncUnreadable:
    def __aiter__(self) -> AsyncIterator[int]:
        raise ValueError("no")


def raises() -> Any:
    raise ValueError("no")


@pytest.mark.parametrize("items", [Unreadable(), AsyncUnreadable(), raises, Unreadable, AsyncUnreadable])
def test_a_source_that_fails_to_open_is_named(items: Any) -> None:
    with pytest.raises(StreamflowError, match=r"pipeline 'pipeline', step 'Source'.*ValueError: no"):
        run(Source(items).to(Collect()))


def test_a_function_that_returns_no_iterable_is_refused() -> None:
    items: Any = lambda: 3  # noqa: E731
    with pytest.raises(
        ConfigurationError, match=r"step 'Source': the function .* returned 3, which is no iterable"
    ):
        run(Source(items).to(Collect()))


@pytest.mark.parametrize(
    "error", [ValueError, asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit]
)
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("policy", [Fail(), Skip()])
def test_a_source_that_fails_in_the_middle_delivers_what_came_before(
    error: type[BaseException], is_async: bool, policy: Any
) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise error("no")

    async def later() -> AsyncIterator[int]:
        for x in range(5):
            yield x
        raise error("no")

    sink = Recorder()
    source: Source[int] = Source(later if is_async else items)
    with pytest.raises(StepError, match=r"step 'Source'") as caught:
        run(source.to(sink), on_error=policy)
    assert type(caught.value.cause) is error
    assert sink.values == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ending", ["take", "stop", "drain", "failure", "end"])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_generator_is_closed_however_the_run_ends(ending: str, is_async: bool) -> None:
    closed: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield from range(3 if ending == "end" else 10**9)
        finally:
            closed.append("closed")

    async def later() -> AsyncIterator[int]:
        try:
            for x in range(3 if ending == "end" else 10**9):
                await asyncio.sleep(0.1)
                yield x
        finally:
            closed.append("closed")

    generator: Any = later() if is_async else items()
    stream = Source(generator).via(Map(lambda x: 1 / (x - 2) if ending == "failure" else x))

    async def work() -> None:
        if ending in ("take", "end"):
            await stream.via(Take(3)).to(Collect()).run()
            return
        async with stream.to(Discard()).start() as running:
            if is_async:
                await asyncio.sleep(0.5)
            for _ in range(50):
                await asyncio.sleep(0)
            await getattr(running, ending)() if ending != "failure" else await running.wait()

    if ending == "failure":
        with pytest.raises(StepError):
            virtual(work())
    else:
        virtual(work())
    assert closed == ["closed"], "although the test still refers to the generator"
    del generator


def test_an_async_source_emits_what_it_has_at_once() -> None:
    arrivals: list[tuple[float, int]] = []

    async def work() -> None:
        def note(x: int) -> None:
            arrivals.append((round(asyncio.get_running_loop().time(), 3), x))

        async with Source(ticks).via(Map(note)).to(Discard()).start() as running:
            await asyncio.sleep(0.35)
            await running.stop()

    virtual(work())
    assert arrivals == [(0.1, 0), (0.2, 1), (0.3, 2)]


# Errors of connectors


class BadReader(Reader):
    async def read(self) -> Chunk | None:
        raise OSError("gone")


class BadSource(Source[Any]):
    async def open(self, context: SourceContext) -> Reader:
        return BadReader()


class BadSink(Collect[Any]):
    def __init__(self, where: str, error: BaseException | None = None) -> None:
        self.where = where
        self.error = error or OSError("gone")

    async def open(self, context: SinkContext) -> Writer[list[Any]]:
        if self.where == "open":
            raise self.error
        return BadWriter(self.where, self.error)


class BadWriter(Writer[list[Any]]):
    def __init__(self, where: str, error: BaseException) -> None:
        self.where = where
        self.error = error

    async def write(self, chunk: Chunk) -> None:
        if self.where == "write":
            raise self.error

    async def flush(self) -> None:
        if self.where == "flush":
            raise self.error

    def result(self) -> list[Any]:
        return []


def test_an_error_of_a_connector_says_where_it_happened() -> None:
    with pytest.raises(ConnectorError, match=r"pipeline 'pipeline', step 'BadSource': OSError: gone"):
        run(BadSource([]).to(Collect()))
    for where in ("open", "write", "flush"):
        with pytest.raises(ConnectorError, match=r"pipeline 'pipeline', step 'BadSink': OSError: gone"):
            run(Source([1]).to(BadSink(where)))


@pytest.mark.parametrize("where", ["read", "open source", "open", "write", "flush"])
def test_a_cancellation_that_nobody_asked_for_is_a_failure_and_no_hang(where: str) -> None:
    """A connector may await something that another of its tasks has cancelled."""

    class CancelledReader(Reader):
        async def read(self) -> Chunk | None:
            await asyncio.sleep(1)
            raise asyncio.CancelledError

    class CancelledSource(Source[Any]):
        async def open(self, context: SourceContext) -> Reader:
            if where == "open source":
                raise asyncio.CancelledError
            return CancelledReader()

    sink: Any = (
        Collect() if "source" in where or where == "read" else BadSink(where, asyncio.CancelledError())
    )
    source = CancelledSource([]) if "source" in where or where == "read" else Source(range(3))

    async def work() -> None:
        async with asyncio.timeout(60):
            with pytest.raises(
                ConnectorError, match=r"pipeline 'pipeline', step '(CancelledSource|BadSink)'.*CancelledError"
            ):
                await merge(source, QueueSource(asyncio.Queue())).via(Take(1)).to(sink).run()

    virtual(work())


def test_what_was_opened_is_closed_when_a_later_connector_fails_to_open() -> None:
    closed: list[str] = []

    class Opened(Source[int]):
        async def open(self, context: SourceContext) -> Reader:
            class Open(BadReader):
                async def close(self) -> None:
                    closed.append("source")

            return Open()

    class Failing(Source[int]):
        async def open(self, context: SourceContext) -> Reader:
            raise OSError("gone")

    with pytest.raises(ConnectorError, match="'Failing'"):
        run(merge(Opened([]), Failing([])).to(Collect()))
    assert closed == ["source"]


def test_the_failure_of_a_step_is_reported_rather_than_what_followed_from_it() -> None:
    joined = merge(Source(count).via(MapAsync(never)), Source([0]).via(Map(lambda x: 1 / x)))
    with pytest.raises(StepError, match="ZeroDivisionError"):
        run(joined.to(Collect()))
