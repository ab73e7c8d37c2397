"""`FlatMapAsync`: streams what async iterables give, bounded, in order or not; closes what it has opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Skip, Source, StepError
from streamflow.connectors import Collect, Discard
from streamflow.engine.work import AHEAD
from streamflow.operators import FlatMapAsync, Map, Take
from streamflow.testing import VirtualClock
from tests.support import (
    Acknowledging,
    Chunked,
    Confirming,
    Recorder,
    cut,
    restarts,
    run,
    sizes,
    stamped,
    until,
    virtual,
)


class Meter:
    """Gives (x, 0), (x, 1), … to (x, x % 4), slowly; fails behind the first one of 5. Counts what is open."""

    def __init__(self, pause: float = 0.0) -> None:
        self.now = self.most = self.given = 0
        self.pause = pause

    async def __call__(self, x: int) -> AsyncIterator[tuple[int, int]]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for part in range(x % 4 + 1):
                await asyncio.sleep((x + part) * 7 % 5)
                yield x, part
                self.given += 1
                if x == 5:
                    raise ValueError("five")
        finally:
            await asyncio.sleep(0)
            self.now -= 1

    async def endless(self, x: int) -> AsyncIterator[tuple[int, int]]:
        self.now += 1
        try:
            for part in count():
                if self.pause:
                    await asyncio.sleep(self.pause)
                self.given += 1
                yield x, part
        finally:
            await asyncio.sleep(0)
            self.now -= 1


def model(values: list[int]) -> list[tuple[int, int]]:
    return [(x, part) for x in values for part in range(1 if x == 5 else x % 4 + 1)]


@given(st.lists(st.integers(0, 9)), sizes, st.integers(1, 5), st.booleans(), st.sampled_from([None, 10]))
def test_it_gives_what_nested_loops_give(
    values: list[int], sizes: list[int], concurrency: int, ordered: bool, timeout: float | None
) -> None:
    meter = Meter()
    flow = FlatMapAsync(meter.__call__, concurrency=concurrency, ordered=ordered, timeout=timeout)
    pipeline = Chunked(cut(values, sizes)).via(flow).to(Collect())
    for _ in range(2):
        result = run(pipeline, on_error=Skip())
        assert (result if ordered else sorted(result)) == (
            model(values) if ordered else sorted(model(values))
        )
        assert meter.most == min(concurrency, len(values))
        assert meter.now == 0


async def ticking(x: int) -> AsyncIterator[str]:
    """Gives one output a second, 1a to 1c."""
    for part in "abc":
        await asyncio.sleep(1)
        yield f"{x}{part}"


@pytest.mark.parametrize(
    ("ordered", "expected"),
    [
        (True, [(1, "1a"), (2, "1b"), (3, "1c"), (3, "2a"), (3, "2b"), (3, "2c")]),
        (False, [(1, "1a"), (1, "2a"), (2, "1b"), (2, "2b"), (3, "1c"), (3, "2c")]),
    ],
)
def test_outputs_are_sent_on_as_they_come(ordered: bool, expected: list[Any]) -> None:
    seen: list[tuple[float, Any]] = []
    run(Source([1, 2]).via(FlatMapAsync(ticking, ordered=ordered)).via(stamped(seen)).to(Discard()))
    assert seen == expected


@pytest.mark.parametrize("ordered", [True, False])
def test_what_is_kept_of_endless_iterables_is_bounded(ordered: bool) -> None:
    meter = Meter()
    sink = Confirming(Acknowledging(0), 1.0)

    async def work() -> None:
        flow = FlatMapAsync(meter.endless, concurrency=3, ordered=ordered)
        async with Source(range(5)).via(flow).to(sink).start(clock=VirtualClock()) as running:
            await asyncio.sleep(0.5)
            # What the channel in front of the sink takes, and what waits.
            assert meter.given < 2 * 8192 + 3 * AHEAD + 1024
            given = meter.given
            await asyncio.sleep(100)
            assert meter.given > given
            assert meter.given - len(sink.values) < 2 * 8192 + 3 * AHEAD + 1024
            assert {x for x, _ in sink.values} == ({0} if ordered else {0, 1, 2})
            await running.stop()

    virtual(work())
    assert meter.now == 0


def test_a_slow_first_iterable_keeps_little_of_the_others() -> None:
    """Finished ones wait for their turn too: together they are bounded, not only each."""
    given = 0

    async def many(x: int) -> AsyncIterator[int]:
        nonlocal given
        if x == 0:
            await asyncio.sleep(100)
        for part in range(AHEAD - 1):
            given += 1
            yield part

    async def work() -> None:
        pipeline = Source(range(500)).via(FlatMapAsync(many, concurrency=4)).to(Discard())
        async with pipeline.start(clock=VirtualClock()) as running:
            await asyncio.sleep(50)
            assert 1024 <= given < 1024 + 4 * AHEAD
            assert await running.wait() == 500 * (AHEAD - 1)

    virtual(work())


@given(sizes, st.booleans(), st.integers(0, 30))
def test_take_ends_it_and_closes_what_runs(sizes: list[int], ordered: bool, n: int) -> None:
    meter = Meter()
    flow = FlatMapAsync(meter.endless, concurrency=3, ordered=ordered)
    assert len(run(Chunked(cut(range(8), sizes)).via(flow).via(Take(n)).to(Collect()))) == n
    assert meter.now == 0


def test_a_failure_elsewhere_closes_what_runs() -> None:
    meter = Meter()

    def fail(value: tuple[int, int]) -> int:
        return 1 // (3 - value[1])

    with pytest.raises(StepError, match="ZeroDivisionError"):
        run(Source(range(8)).via(FlatMapAsync(meter.endless)).via(Map(fail)).to(Collect()))
    assert meter.now == 0


def test_a_failure_of_one_closes_the_others() -> None:
    meter = Meter()
    with pytest.raises(StepError, match=r"step 'FlatMapAsync': failed on 5: ValueError: five"):
        run(Source(range(8)).via(FlatMapAsync(meter.__call__)).to(Collect()))
    assert meter.now == 0


@given(st.floats(0, 20))
def test_a_stop_closes_what_runs_also_while_a_drain_waits(at: float) -> None:
    meter = Meter(pause=0.1)

    async def work() -> None:
        flow = FlatMapAsync(meter.endless, concurrency=2)
        async with Source(range(4)).via(flow).to(Discard()).start(clock=VirtualClock()) as running:
            await asyncio.sleep(at)
            draining = asyncio.create_task(running.drain())
            await asyncio.sleep(1)
            await running.stop()
            await draining

    virtual(work())
    assert meter.now == 0


def test_a_generator_that_swallows_the_cancellation_and_goes_on_is_stopped() -> None:
    async def stubborn(x: int) -> AsyncIterator[int]:
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                yield -1
            yield x

    assert run(Source([1]).via(FlatMapAsync(stubborn)).via(Take(2)).to(Collect())) == [1, 1]


# Failures


@pytest.mark.parametrize("timeout", [None, 9])
@pytest.mark.parametrize(
    "error", [ValueError, asyncio.CancelledError, StopIteration, StopAsyncIteration, KeyboardInterrupt]
)
def test_whatever_an_iterable_raises_fails_the_pipeline(
    error: type[BaseException], timeout: float | None
) -> None:
    async def fail(x: int) -> AsyncIterator[int]:
        yield x
        await asyncio.sleep(1)
        raise error("no")

    with pytest.raises(StepError, match=r"step 'FlatMapAsync': failed on 5"):
        run(Source([5]).via(FlatMapAsync(fail, timeout=timeout)).to(Collect()))


def test_the_timeout_is_for_each_output_and_not_for_waiting_behind_others() -> None:
    async def wait(x: int) -> AsyncIterator[int]:
        for _ in range(AHEAD * 2 if x else 3):
            await asyncio.sleep(40 if x == 0 else x)
            yield x

    flow = FlatMapAsync(wait, timeout=50, concurrency=2)
    assert run(Source([0, 0, 1]).via(flow).to(Collect())) == [0] * 6 + [1] * AHEAD * 2
    with pytest.raises(StepError, match=r"failed on 51: TimeoutError"):
        run(Source([1, 51]).via(flow).to(Collect()))


def not_iterable(x: int) -> Any:
    return x


def a_coroutine(x: int) -> Any:
    async def value() -> int:
        return x

    return value()


@pytest.mark.parametrize("f", [not_iterable, a_coroutine])
def test_what_is_no_async_iterable_fails_and_says_what_is_needed(f: Callable[[int], Any]) -> None:
    with pytest.raises(StepError, match="an async iterable is needed, such as an async generator"):
        run(Source([1]).via(FlatMapAsync(f)).to(Collect()))


class Once:
    """An async iterable that is no generator and has no aclose."""

    def __init__(self, x: int) -> None:
        self.left = x

    def __aiter__(self) -> Once:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


@pytest.mark.parametrize("timeout", [None, 1])
def test_any_async_iterable_will_do(timeout: float | None) -> None:
    assert run(Source([2, 0, 3]).via(FlatMapAsync(Once, timeout=timeout)).to(Collect())) == [1, 0, 2, 1, 0]


# Receipts and barriers


async def copies(x: int) -> AsyncIterator[int]:
    """x % 3 copies; every tenth fails behind the first."""
    for _ in range(x % 3):
        await asyncio.sleep(x * 7 % 5 / 10)
        yield x
        if x % 10 == 4:
            raise ValueError


@given(sizes, st.booleans(), st.sampled_from([0.0, 0.3]))
def test_a_message_is_acknowledged_once_all_its_outputs_are_delivered(
    sizes: list[int], ordered: bool, delay: float
) -> None:
    source = Acknowledging(30, sizes)
    flow = FlatMapAsync(copies, concurrency=3, ordered=ordered)
    run(source.via(flow).to(Confirming(source, delay)), on_error=Skip())
    source.ledger.check(deliver=[x for x in range(30) if x % 3])
    assert sorted(source.ledger.acked) == list(range(30))


@given(sizes, st.booleans(), st.floats(0.05, 3), st.sampled_from(["drain", "stop"]))
def test_drain_and_stop_hand_back_what_was_not_delivered(
    sizes: list[int], ordered: bool, at: float, ending: str
) -> None:
    source = Acknowledging(30, sizes, ends=False)
    flow = FlatMapAsync(copies, concurrency=3, ordered=ordered)

    async def work() -> None:
        pipeline = source.via(flow).to(Confirming(source, 0.1))
        async with pipeline.start(clock=VirtualClock(), on_error=Skip()) as running:
            await asyncio.sleep(at)
            await getattr(running, ending)()

    virtual(work())
    source.ledger.check(deliver=[x for x in range(30) if x % 3])
    assert ending == "stop" or source.ledger.returned == []


def test_an_output_is_not_acknowledged_before_its_iterable_is_exhausted() -> None:
    source = Acknowledging(2, [2], ends=False)

    async def thrice(x: int) -> AsyncIterator[int]:
        for _ in range(3):
            await asyncio.sleep(1 + x)
            yield x

    async def work() -> None:
        sink = Confirming(source)
        async with source.via(FlatMapAsync(thrice, ordered=False)).to(sink).start() as running:
            await asyncio.sleep(2.5)
            assert (sink.values, source.ledger.acked) == ([0, 0, 1], [])
            await asyncio.sleep(1)
            assert (sink.values, source.ledger.acked) == ([0, 0, 1, 0], [0])
            await asyncio.sleep(3)
            assert source.ledger.acked == [0, 1]
            await running.stop()

    virtual(work())


@given(sizes, st.integers(0, 12))
def test_what_take_leaves_over_comes_back(sizes: list[int], n: int) -> None:
    source = Acknowledging(20, sizes)
    flow = FlatMapAsync(copies, concurrency=3, on_error=Skip())
    run(source.via(flow).via(Take(n)).to(Confirming(source)))
    source.ledger.check(deliver=[x for x in range(20) if x % 3])


@pytest.mark.parametrize("ordered", [True, False])
def test_barriers_keep_their_place(ordered: bool) -> None:
    def build() -> Any:
        sink, source = Recorder(), Chunked([[x, x + 1] for x in range(0, 40, 2)], times=range(20))
        return source.via(FlatMapAsync(copies, concurrency=3, ordered=ordered)).to(sink), sink, source

    assert restarts(build, order=list if ordered else sorted, on_error=Skip()) > 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"f": 3}, "FlatMapAsync takes a function, not 3"),
        ({"f": until}, "FlatMapAsync takes a function that returns an async iterable"),
        ({"f": ticking, "concurrency": 0}, "FlatMapAsync's concurrency must be 1 or more"),
        ({"f": ticking, "timeout": 0}, "FlatMapAsync's timeout must be more than zero"),
        ({"f": ticking, "on_error": Skip}, "FlatMapAsync: on_error must be a policy"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        FlatMapAsync(**arguments)
