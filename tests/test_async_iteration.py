"""`async for x in stream`: elements, backpressure, errors, receipts, and nothing left behind however it is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, GuaranteeError, Source, StepError, Stream
from streamflow.engine.connector import Reader, SourceContext
from streamflow.operators import Batch, FlatMapAsync, Fold, Map, MapAsync, fan_out, merge
from tests.support import Acknowledging, Chunked, cut, sizes, virtual


async def gathered(stream: Stream[Any], seen: list[Any] | None = None, pause: float = 0) -> list[Any]:
    seen = [] if seen is None else seen
    async for x in stream:
        seen.append(x)
        await asyncio.sleep(pause)
    return seen


@given(st.lists(st.integers()), sizes)
def test_it_gives_what_collect_gives_each_time(values: list[int], sizes: list[int]) -> None:
    stream = Chunked(cut(values, sizes)).via(Map(str)).via(Batch(2))
    for _ in range(2):
        expected = [list(map(str, values[i : i + 2])) for i in range(0, len(values), 2)]
        assert virtual(gathered(stream)) == expected


def test_streams_of_any_shape_are_iterable_and_inside_each_other() -> None:
    left, right = fan_out(Source(range(3)), 2)
    assert sorted(virtual(gathered(merge(left, right)))) == [0, 0, 1, 1, 2, 2]

    def below(x: int) -> Stream[int]:
        return Source(range(x)).via(Map(lambda y: y * 10 + x))

    assert virtual(gathered(Source(range(4)).via(FlatMapAsync(below)))) == [1, 2, 12, 3, 13, 23]


def test_what_is_not_consumed_holds_the_source_back() -> None:
    given = 0

    def numbers() -> Any:
        nonlocal given
        while True:
            yield given
            given += 1

    async def work() -> None:
        async with aclosing(aiter(Source(numbers).via(Map(abs)))) as elements:
            async for x in elements:
                await asyncio.sleep(1)
                assert given - x < 3 * 8192
                if x == 100:
                    break

    virtual(work())


# Leaving early


async def never_ending(x: int) -> AsyncIterator[int]:
    try:
        while True:
            await asyncio.sleep(1)
            yield x
    finally:
        await asyncio.sleep(1)


def endless() -> Stream[int]:
    return Source(range(5)).via(FlatMapAsync(never_ending, ordered=False))


async def consume(use: Callable[[int], object]) -> None:
    async with aclosing(aiter(endless())) as elements:
        async for x in elements:
            use(x)


def test_break_and_close_stop_the_pipeline() -> None:
    async def work() -> None:
        async with aclosing(aiter(endless())) as elements:
            async for _ in elements:
                break
        assert len(asyncio.all_tasks()) == 1

    virtual(work())


def test_an_exception_in_the_loop_stops_the_pipeline() -> None:
    async def work() -> None:
        with pytest.raises(ZeroDivisionError):
            await consume(lambda x: 1 // x)
        assert len(asyncio.all_tasks()) == 1

    virtual(work())


def test_without_closing_it_ends_as_soon_as_the_loop_comes_round() -> None:
    async def work() -> None:
        async for _ in endless():
            break
        await asyncio.sleep(5)
        assert len(asyncio.all_tasks()) == 1

    virtual(work())


@given(st.floats(0, 5))
def test_a_cancellation_stops_the_pipeline(at: float) -> None:
    async def work() -> None:
        task = asyncio.create_task(gathered(endless(), pause=0.3))
        await asyncio.sleep(at)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await asyncio.sleep(5)
        assert len(asyncio.all_tasks()) == 1

    virtual(work())


def test_a_timeout_around_the_loop_ends_it() -> None:
    async def work() -> list[int]:
        seen: list[int] = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consume(seen.append), 2.5)
        assert len(asyncio.all_tasks()) == 1
        return seen

    assert virtual(work()) == [0, 1, 2, 3, 4] * 2


def test_an_iterator_that_was_never_asked_has_started_nothing() -> None:
    async def work() -> None:
        iterator = aiter(endless())
        assert len(asyncio.all_tasks()) == 1
        await iterator.aclose()

    virtual(work())


# Errors


def test_an_error_arrives_in_the_loop_behind_what_came_before() -> None:
    async def fail(x: int) -> int:
        await asyncio.sleep(x)
        return 1 // (x - 3)

    async def work() -> None:
        seen: list[int] = []
        stream = Source([5, 1, 2, 3]).via(MapAsync(fail, concurrency=2, ordered=False))
        with pytest.raises(StepError, match=r"step 'MapAsync': failed on 3: ZeroDivisionError"):
            await gathered(stream, seen)
        assert seen == [-1, -1, 0]

    virtual(work())


class SlowToClose(Acknowledging):
    """Takes its time after it has taken back what was unsettled."""

    async def open(self, context: SourceContext) -> Reader:
        reader = await super().open(context)
        close = reader.close

        async def slowly() -> None:
            await close()
            await asyncio.sleep(20)

        reader.close = slowly  # type: ignore[method-assign]
        return reader


def test_an_error_while_the_consumer_is_busy_arrives_when_it_comes_back() -> None:
    source = SlowToClose(4, [2, 2])

    async def fail(x: int) -> int:
        await asyncio.sleep(2 * (x // 2))
        return x // (2 - x // 2 * 2)

    async def work() -> None:
        seen: list[int] = []
        with pytest.raises(StepError, match="ZeroDivisionError"):
            await gathered(source.via(MapAsync(fail)), seen, pause=10)
        assert seen == [0]
        assert source.ledger.acked == []
        source.ledger.check(deliver=())

    virtual(work())


def test_what_cannot_run_is_refused_in_the_loop() -> None:
    with pytest.raises(GuaranteeError, match="at_least_once"):
        virtual(gathered(Acknowledging(1).via(Fold(0, lambda a, b: a + b))))


def test_a_stream_is_no_content_of_a_source() -> None:
    items: Any = Source([1]).via(Map(abs))
    with pytest.raises(ConfigurationError, match="is a stream already"):
        Source(items)


# Receipts


@given(sizes, st.integers(0, 9))
def test_a_message_is_acknowledged_when_the_loop_comes_back_for_the_next(sizes: list[int], n: int) -> None:
    source = Acknowledging(10, sizes)

    async def work() -> None:
        async with aclosing(aiter(source.via(Map(abs)))) as elements:
            async for x in elements:
                await asyncio.sleep(1)
                assert source.ledger.acked == list(range(x))
                if x == n:
                    break
        assert source.ledger.acked == list(range(n))
        source.ledger.check(deliver=())

    virtual(work())


@given(sizes)
def test_the_end_acknowledges_all(sizes: list[int]) -> None:
    source = Acknowledging(10, sizes)
    assert virtual(gathered(source.via(Batch(3)))) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert source.ledger.acked == list(range(10))
