"""Ends: the end of the stream, drain, stop, failure and cancellation are different things, and none leaves a trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import (
    Checkpoint,
    ConfigurationError,
    EventTime,
    Observer,
    Pipeline,
    Skip,
    Source,
    StepError,
)
from streamflow.connectors import Collect, Discard, ForEach, Into, QueueSink, QueueSource
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import Reader, SinkContext, SourceContext, Writer
from streamflow.operators import (
    Batch,
    Count,
    Filter,
    Fold,
    Keyed,
    Map,
    MapAsync,
    Mean,
    Sum,
    Take,
    Throttle,
    TumblingWindow,
    fan_out,
    merge,
)
from streamflow.testing import VirtualClock
from tests.support import Chunked, run, virtual


async def never(x: Any) -> Any:
    await asyncio.Event().wait()


async def slowly(x: Any) -> Any:
    await asyncio.sleep(1)
    return x


def window(seconds: float = 10) -> Any:
    return TumblingWindow(timedelta(seconds=seconds), time=EventTime(lambda x: x), into=Count())


BUSY: dict[str, Any] = {
    "nothing": Map(lambda x: x),
    "slow": MapAsync(slowly, concurrency=2),
    "stuck": MapAsync(never),
    "stuck unordered": MapAsync(never, ordered=False),
    "batch": Batch(100, within=3600),
    "window": window(),
    "clock window": TumblingWindow(timedelta(hours=1)),
    "throttle": Throttle(1, per=3600),
    "keyed": Keyed(lambda x: x % 2, Throttle(1, per=3600)),
    "take": Take(1),
}
SOURCES: dict[str, Any] = {
    "list": lambda: Source(range(100)),
    "endless": lambda: Source(count),
    "silent": lambda: QueueSource(asyncio.Queue()),
    "async": lambda: Source(ticks),
    "merged": lambda: merge(Source(count), Source(ticks), Source(silence)),
}


async def ticks() -> AsyncIterator[int]:
    for number in count():
        await asyncio.sleep(0.1)
        yield number


async def silence() -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield 1


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("flow", BUSY)
@pytest.mark.parametrize("ending", ["stop", "leave by an error", "cancel", "drain"])
def test_every_end_takes_everything_down(source: str, flow: str, ending: str) -> None:
    """The leak check of `virtual` sees tasks, threads, processes and async generators that are left."""
    if ending == "drain" and "stuck" in flow:
        pytest.skip("a drain finishes what is in flight, and this never is")

    async def work() -> None:
        left, right = fan_out(SOURCES[source](), 2)
        pipeline = Pipeline(left.via(BUSY[flow]).to(Discard()), right.to(Discard()))
        if ending == "cancel":
            task = asyncio.create_task(pipeline.run(clock=VirtualClock()))
            await a_while(source)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            return
        async with pipeline.start(clock=VirtualClock()) as running:
            await a_while(source)
            if ending == "leave by an error":
                raise KeyError
            await getattr(running, ending)()
            assert flow == "slow" or asyncio.get_running_loop().time() < 10

    if ending == "leave by an error":
        with pytest.raises(KeyError):
            virtual(work())
    else:
        virtual(work())


async def a_while(source: str) -> None:
    """Half a second; beside a source that never waits, virtual time stands still, and turns of the loop must do."""
    if source in ("endless", "merged"):
        for _ in range(50):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(0.5)


# End, drain, stop


@pytest.mark.parametrize(
    "flow", [window(), Batch(10), TumblingWindow(timedelta(hours=1)), Throttle(1, per=60)]
)
def test_the_end_of_the_stream_emits_what_is_held_and_a_drain_never_does(flow: Any) -> None:
    ended = run(Chunked([[1, 2]]).via(flow).to(Collect()))
    assert ended

    async def drained() -> Any:
        pipeline = Chunked([[1, 2]], ends=False).via(flow).to(Collect())
        async with pipeline.start(clock=VirtualClock()) as running:
            await asyncio.sleep(1)
            await running.drain()
            return await running.wait()

    assert len(virtual(drained())) == len(ended) - 1


def test_a_drain_finishes_what_is_in_flight_and_a_stop_does_not() -> None:
    async def ended(by: str) -> Any:
        pipeline = Chunked([[1, 2, 3], [4]], ends=False).via(MapAsync(slowly, concurrency=1)).to(Collect())
        async with pipeline.start(clock=VirtualClock()) as running:
            await asyncio.sleep(1.5)
            await getattr(running, by)()
            return await running.wait(), running.stats().ending

    assert virtual(ended("drain")) == ([1, 2, 3, 4], "drained")
    assert virtual(ended("stop")) == ([1], "stopped")


def test_leaving_the_block_drains() -> None:
    async def work() -> Any:
        pipeline = Source(ticks).via(MapAsync(slowly)).to(Collect())
        async with pipeline.start(clock=VirtualClock()) as running:
            await asyncio.sleep(0.35)
        return await running.wait(), running.stats().ending

    assert virtual(work()) == ([0, 1, 2], "drained")


@given(
    st.lists(st.sampled_from(["drain", "stop", "wait"]), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.25, 5.0]),
)
def test_wait_drain_and_stop_come_in_any_order_and_again(calls: list[str], at: float) -> None:
    async def work() -> None:
        async with (
            Source(range(3)).via(MapAsync(slowly)).to(Collect()).start(clock=VirtualClock()) as running
        ):
            await asyncio.sleep(at)
            for call in calls:
                await getattr(running, call)()
        for call in calls:
            await getattr(running, call)()
        assert await running.wait() == ([] if calls[0] == "stop" and at < 1 else [0, 1, 2])

    virtual(work())


@given(st.lists(st.sampled_from(["drain", "stop", "wait"]), min_size=2, max_size=5))
def test_they_may_run_at_the_same_time(calls: list[str]) -> None:
    async def work() -> None:
        async with (
            Source(range(3)).via(MapAsync(slowly)).to(Collect()).start(clock=VirtualClock()) as running
        ):
            await asyncio.gather(*(getattr(running, call)() for call in calls))

    virtual(work())


def test_before_the_start_there_is_nothing_to_drain_or_stop() -> None:
    async def work() -> None:
        running: Any = Source([1]).to(Collect()).start()
        await running.drain()
        await running.stop()
        async with running:
            assert await running.wait() == [1]

    virtual(work())


def test_after_a_failure_drain_and_stop_are_quiet_and_wait_raises_it_again() -> None:
    async def work() -> None:
        async with Source([0]).via(Map(lambda x: 1 / x)).to(Collect()).start() as running:
            for _ in range(2):
                with pytest.raises(StepError):
                    await running.wait()
                await running.drain()
                await running.stop()
            assert running.stats().ending == "failed"

    with suppress(StepError):
        virtual(work())


def test_a_failure_nobody_waited_for_is_raised_at_the_end_of_the_block() -> None:
    async def work() -> None:
        async with Source([0]).via(Map(lambda x: 1 / x)).to(Collect()).start():
            await asyncio.sleep(1)

    with pytest.raises(StepError, match="ZeroDivisionError"):
        virtual(work())


def test_an_error_in_the_block_is_raised_rather_than_that_of_the_pipeline() -> None:
    async def work() -> None:
        async with Source([0]).via(Map(lambda x: 1 / x)).to(Collect()).start():
            await asyncio.sleep(1)
            raise KeyError

    with pytest.raises(KeyError):
        virtual(work())


def test_cancelling_while_a_source_opens_stops_it() -> None:
    class Slow(Source[int]):
        async def open(self, context: SourceContext) -> Reader:
            await asyncio.Event().wait()
            raise AssertionError

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await Slow([]).to(Collect()).run()

    virtual(work())


def test_a_stopped_run_with_an_aggregator_that_has_no_result_yet_raises_nothing() -> None:
    async def work(ending: str) -> None:
        async with QueueSource[float](asyncio.Queue()).to(Into(Mean())).start() as running:
            await asyncio.sleep(1)
            await getattr(running, ending)()

    virtual(work("stop"))
    virtual(work("drain"))


def test_a_coroutine_that_swallows_its_cancellation_does_not_hang_the_stop() -> None:
    async def stubborn(x: int) -> int:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return x

    async def work() -> None:
        async with Source(range(5)).via(MapAsync(stubborn)).to(Collect()).start() as running:
            await asyncio.sleep(1)
            await running.stop()
            assert asyncio.get_running_loop().time() == 1

    virtual(work())


# Options and observers


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delivery": "always"}, "delivery must be one of best_effort"),
        ({"checkpoint": "name"}, "checkpoint must be a Checkpoint"),
        ({"checkpoint": Checkpoint}, "checkpoint must be a Checkpoint"),
        ({"partitions": 3}, "partitions= needs"),
        ({"on_error": Skip}, "on_error must be a policy such as"),
        ({"on_error": "skip"}, "on_error must be a policy such as"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        run(Source([1]).to(Collect()), **options)


def test_stats_count_and_observers_hear() -> None:
    heard: list[Any] = []

    class Listener(Observer):
        def ended(self, ending: Any, error: BaseException | None) -> None:
            heard.append((ending, error))

    async def work() -> Any:
        pipeline = Source(range(10)).via(Filter(lambda x: 1 / (x - 3) > 0)).via(Fold(0, max)).to(Collect())
        async with pipeline.start(on_error=Skip(), observers=[Listener()]) as running:
            await running.wait()
            return running.stats()

    stats = virtual(work())
    assert {name: (s.received, s.emitted, s.failed) for name, s in stats.steps.items()} == {
        "Source": (10, 10, 0),
        "Filter": (10, 6, 1),
        "Fold": (6, 6, 0),
        "Collect": (6, 6, 0),
    }
    assert heard == [("finished", None)]


# Memory


@pytest.mark.parametrize(
    "flow",
    [Map(lambda x: x), MapAsync(slowly, concurrency=8), Batch(10), Keyed(lambda x: x % 3, Batch(2))],
    ids=["map", "async", "batch", "keyed"],
)
def test_an_endless_source_and_a_slow_sink_keep_a_bounded_number_of_elements(flow: Any) -> None:
    produced = taken = most = 0

    def endless() -> Iterator[int]:
        nonlocal produced
        while True:
            produced += 1
            yield produced

    class Slow(Collect[Any]):
        async def open(self, context: SinkContext) -> Writer[list[Any]]:
            return SlowWriter()

    class SlowWriter(Writer[list[Any]]):
        async def write(self, chunk: Chunk) -> None:
            nonlocal taken, most
            await asyncio.sleep(1)
            taken += sum(map(size, chunk.values))
            most = max(most, produced - taken)

        def result(self) -> list[Any]:
            return []

    async def work() -> None:
        async with Source(endless).via(flow).to(Slow()).start(clock=VirtualClock()) as running:
            await asyncio.sleep(60)
            await running.stop()

    virtual(work())
    assert taken > 0
    assert most <= 3 * 8192 + 5 * 1024


def size(value: Any) -> int:
    value = getattr(value, "value", value)
    return len(value) if isinstance(value, list) else 1


def test_a_full_queue_holds_the_stream_back() -> None:
    async def work() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(2)
        async with Source(range(10)).to(QueueSink(queue)).start() as running:
            got = [await queue.get() for _ in range(10)]
            assert got == list(range(10))
            assert await running.wait() == 10

    virtual(work())


def test_for_each_counts_and_fails_by_policy() -> None:
    seen: list[float] = []
    assert run(Source([1, 0, 2]).to(ForEach(lambda x: seen.append(1 / x), on_error=Skip()))) == 2
    assert seen == [1.0, 0.5]
    assert run(Source([1, 2]).to(Into(Sum()))) == 3


def test_the_loop_gets_turns_while_a_step_computes() -> None:
    async def work() -> None:
        turns = 0

        def busy(x: int) -> int:
            return sum(range(2000))

        async with Source(range(3000)).via(Map(busy)).to(Discard()).start() as running:
            while running.stats().ending is None:
                turns += 1
                await asyncio.sleep(0)
        assert turns > 2

    virtual(work())
