"""`FromAiostream` and `Source.from_aiostream`: what aiostream computes by itself, and what may not be promised."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import (
    Checkpoint,
    ConfigurationError,
    EventTime,
    GuaranteeError,
    Pipeline,
    Skip,
    Source,
    StepError,
    Stream,
)
from streamflow.connectors import Collect, Discard
from streamflow.operators import Count, FromAiostream, Map, Take, TumblingWindow, fan_out, merge
from streamflow.testing import MemoryStore, VirtualClock
from tests.support import Acknowledging, Chunked, Confirming, Recorder, cut, run, sizes, virtual

aiostream = pytest.importorskip("aiostream")
pipe, stream = aiostream.pipe, aiostream.stream


async def slowly(x: int, *_: Any) -> int:
    await asyncio.sleep(x * 7 % 5)
    return x * 10


async def twice(x: int) -> AsyncIterator[int]:
    for _ in range(2):
        await asyncio.sleep(x * 7 % 3)
        yield x


OPERATORS: dict[str, Any] = {
    "map": lambda: pipe.map(slowly, task_limit=3),
    "smap": lambda: pipe.map(abs),
    "filter": lambda: pipe.filter(lambda x: x % 2),
    "chunks": lambda: pipe.chunks(3),
    "take": lambda: pipe.take(4),
    "skip": lambda: pipe.skip(4),
    "concatmap": lambda: pipe.concatmap(twice, task_limit=3),
    "accumulate": lambda: pipe.accumulate(),
    "enumerate": lambda: pipe.enumerate(),
    "list": lambda: pipe.list(),
}


@pytest.mark.parametrize("name", OPERATORS)
@given(sizes, st.integers(0, 12))
def test_an_operator_gives_what_it_gives_by_itself(name: str, sizes: list[int], n: int) -> None:
    async def alone() -> list[Any]:
        collected: list[Any] = await stream.list(stream.iterate(range(n)) | OPERATORS[name]())
        return collected

    pipeline = Chunked(cut(range(n), sizes)).via(FromAiostream(OPERATORS[name]())).to(Collect())
    assert [run(pipeline) for _ in range(2)] == [virtual(alone())] * 2


def test_what_makes_an_async_iterable_of_another_will_do() -> None:
    async def pairs(xs: AsyncIterable[int]) -> AsyncIterator[tuple[int, int]]:
        async for x in xs:
            yield x, x

    assert run(Source([1, 2]).via(FromAiostream(pairs)).via(Map(sum)).to(Collect())) == [2, 4]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_take_behind_it_ends_an_operator_that_waits(n: int) -> None:
    numbers = Chunked(cut(range(5), [2]), ends=False)
    assert run(numbers.via(FromAiostream(pipe.map(slowly))).via(Take(n)).to(Collect())) == [
        x * 10 for x in range(n)
    ]


def test_backpressure_passes_through() -> None:
    source = Source(lambda: iter(range(10**9)))

    async def work() -> None:
        sink = Confirming(Acknowledging(0), 1.0)
        pipeline = source.via(FromAiostream(pipe.enumerate())).to(sink)
        async with pipeline.start(clock=VirtualClock()) as running:
            await asyncio.sleep(10.5)
            assert len(sink.values) == 11
            assert running.stats().steps["FromAiostream"].emitted < 200
            await running.stop()

    virtual(work())


def test_a_drain_lets_it_finish_and_a_stop_does_not() -> None:
    async def ended(how: str) -> list[Any]:
        sink = Recorder()
        numbers = Chunked([[1, 2], [3]], ends=False)
        async with numbers.via(FromAiostream(pipe.chunks(2))).to(sink).start() as running:
            await asyncio.sleep(1)
            await getattr(running, how)()
        return sink.values

    assert virtual(ended("drain")) == [[1, 2], [3]]
    assert virtual(ended("stop")) == [[1, 2]]


# Failures


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
@pytest.mark.parametrize("policy", [None, Skip()])
def test_an_error_fails_the_pipeline_under_every_policy(error: type[BaseException], policy: Any) -> None:
    async def fail(xs: AsyncIterable[int]) -> AsyncIterator[int]:
        async for x in xs:
            if x == 3:
                raise error("three")
            yield x

    with pytest.raises(StepError, match=r"step 'FromAiostream': failed: \w+: three") as caught:
        run(Source(range(5)).via(FromAiostream(fail)).to(Collect()), on_error=policy)
    assert type(caught.value.cause) is error


def test_an_operator_that_was_not_called_is_an_error_that_says_so() -> None:
    with pytest.raises(StepError, match=r"takes a pipe operator such as pipe.map\(f\), and this one gave"):
        run(Source(range(5)).via(FromAiostream(pipe.chunks)).to(Collect()))
    with pytest.raises(ConfigurationError, match="FromAiostream takes a pipe operator"):
        FromAiostream(stream.range(3)[1:])


def test_without_aiostream_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiostream", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'nats-streamflow\[aiostream\]'"):
        FromAiostream(pipe.chunks(2))


# Promises


def test_a_source_that_acknowledges_is_refused_unless_loss_is_accepted() -> None:
    source = Acknowledging(10, [3, 3])
    pipeline = source.via(Map(abs)).via(FromAiostream(pipe.chunks(4))).to(Confirming(source))
    with pytest.raises(GuaranteeError, match=r"step 'FromAiostream': .*delivery='best_effort'"):
        run(pipeline)
    assert run(pipeline, delivery="best_effort") == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert source.ledger.acked == list(range(10))


@given(sizes, st.integers(0, 9))
def test_what_it_has_not_taken_comes_back(sizes: list[int], n: int) -> None:
    source = Acknowledging(10, sizes)
    run(source.via(FromAiostream(pipe.take(n))).to(Confirming(source)), delivery="best_effort")
    assert source.ledger.acked == list(range(len(source.ledger.acked)))
    assert n <= len(source.ledger.acked) <= n + 1
    source.ledger.check(deliver=())


def test_a_checkpoint_is_refused() -> None:
    pipeline = Source([1]).via(FromAiostream(pipe.chunks(4)), name="chunks").to(Discard())
    with pytest.raises(GuaranteeError, match=r"step 'chunks': it cannot be checkpointed"):
        run(pipeline, checkpoint=Checkpoint(store=MemoryStore()))


def test_windows_behind_it_close_by_what_comes_out() -> None:
    """Also when its input comes from several sources, has been through a window, or falls silent."""

    def windows(numbers: Stream[Any], out_of_order: float = 0) -> Stream[Any]:
        time = EventTime[Any](
            lambda x: x if isinstance(x, int) else x.start, idle_after=5, out_of_order=out_of_order
        )
        return numbers.via(TumblingWindow(timedelta(seconds=10), time=time, into=Count()))

    async def silent() -> AsyncIterator[int]:
        for x in (1, 2, 11, 12, 31):
            yield x
        await asyncio.sleep(1000)

    again = windows(windows(Source([1, 2, 11, 12, 31])).via(FromAiostream(pipe.skip(0))))
    assert [w.start for w in run(again.to(Collect()))] == [0, 10, 30]
    ends = merge(Source([3, 5, 21]), Source([4, 12, 22])).via(FromAiostream(pipe.map(abs)))
    assert sum(w.value for w in run(windows(ends, 20).to(Collect()))) == 6
    seen: list[Any] = []

    async def work() -> None:
        late = windows(Source(silent).via(FromAiostream(pipe.skip(0))))
        async with late.via(Map(seen.append)).to(Discard()).start(clock=VirtualClock()) as running:
            await asyncio.sleep(100)
            assert [w.start for w in seen] == [0, 10, 30]
            await running.stop()

    virtual(work())


def test_branches_meet_behind_it() -> None:
    left, right = fan_out(Source(range(100)), 2)
    result: list[Any] = run(merge(left.via(FromAiostream(pipe.skip(0))), right).to(Collect()))
    assert sorted(result) == sorted([*range(100)] * 2)


# The source


def test_an_aiostream_stream_is_a_source_that_can_run_again() -> None:
    numbers = stream.range(2000) | pipe.skip(10)
    pipeline = Source.from_aiostream(numbers, name="numbers").via(Map(abs)).to(Collect())
    assert [run(pipeline) for _ in range(2)] == [list(range(10, 2000))] * 2
    assert pipeline.describe().steps[0].name == "numbers"


def test_its_streamer_is_closed_when_the_pipeline_ends_early() -> None:
    opened: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        opened.append("open")
        try:
            while True:
                await asyncio.sleep(1)
                yield 1
        finally:
            await asyncio.sleep(1)
            opened.append("closed")

    source = Source.from_aiostream(stream.iterate(numbers()) | pipe.map(slowly, task_limit=2))
    assert run(source.via(Take(3)).to(Collect())) == [10, 10, 10]
    assert opened == ["open", "closed"]


def test_an_error_of_the_stream_is_the_sources() -> None:
    with pytest.raises(StepError, match=r"step 'bad': failed: ZeroDivisionError"):
        run(
            Pipeline(
                Source.from_aiostream(stream.range(3) | pipe.map(lambda x, *_: 1 // x), "bad").to(Discard())
            )
        )


@pytest.mark.parametrize("what", [[1], Source([1]), range])
def test_what_is_no_aiostream_stream_is_refused(what: Any) -> None:
    with pytest.raises(ConfigurationError, match="from_aiostream takes an aiostream Stream"):
        Source.from_aiostream(what)
