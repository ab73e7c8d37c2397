"""The channel of a `Buffer`: bounded in elements, with control items in their place whatever is dropped around them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Skip
from streamflow.engine.buffered import Buffered
from streamflow.engine.chunk import Barrier, Chunk, Item, Outcome, Quiet, Receipt, Watermark
from streamflow.engine.guard import Guard
from streamflow.engine.observer import StatsObserver
from streamflow.engine.transform import Overflow
from tests.support import virtual

Op = tuple[Any, ...]

operations = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), st.integers(1, 5)),
        st.tuples(st.just("watermark"), st.sampled_from("ab")),
        st.tuples(st.just("quiet"), st.sampled_from("ab")),
        st.tuples(st.just("barrier")),
        st.tuples(st.just("turn")),
        st.tuples(st.just("take"), st.sampled_from([None, 1, 3])),
    ),
    max_size=60,
)


def make(size: int, overflow: Overflow) -> tuple[Buffered, StatsObserver]:
    stats = StatsObserver()
    return Buffered("b", size, overflow, Guard("p", Skip(), stats)), stats


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "fail"])
@given(operations=operations, size=st.integers(1, 5))
def test_bounds_order_and_receipts_under_any_interleaving(
    overflow: Overflow, operations: list[Op], size: int
) -> None:
    settled: dict[int, Outcome] = {}
    put: list[Any] = []
    got: list[Any] = []

    def chunk(first: int, length: int) -> Chunk:
        def settle(receipt: Receipt, outcome: Outcome) -> None:
            settled[receipt.position] = outcome

        numbers = list(range(first, first + length))
        return Chunk(numbers, lineage=[Receipt(settle, position=n) for n in numbers])

    def take(item: Item) -> None:
        if isinstance(item, Chunk):
            got.extend(item.values)
            item.release()
        else:
            got.append(item)

    async def work() -> None:
        channel, stats = make(size, overflow)
        count = barriers = 0
        getting: asyncio.Task[Item] | None = None
        for operation in [*operations, ("barrier",)]:
            match operation:
                case ("chunk", length):
                    put.extend(range(count, count + length))
                    channel.append(chunk(count, length))
                    count += length
                case ("watermark", origin):
                    put.append(Watermark(origin, float(len(put))))
                    channel.append(put[-1])
                case ("quiet", origin):
                    put.append(Quiet(origin))
                    channel.append(put[-1])
                case ("barrier",):
                    barriers += 1
                    put.append(Barrier(barriers))
                    channel.append(put[-1])
                case ("take", limit) if getting is None:
                    getting = asyncio.create_task(channel.get(limit))
                    await asyncio.sleep(0)
                case _:
                    await asyncio.sleep(0)
            assert channel.size <= size
            if getting is not None and getting.done():
                take(getting.result())
                getting = None
        if getting is not None:
            take(await getting)
        while (item := channel.poll()) is not None:
            take(item)
        passed = [x for x in got if isinstance(x, int)]
        if count:
            step = stats.steps["b"]
            lost = step.failed if overflow == "fail" else step.dropped
            assert (step.received, step.emitted, lost) == (count, len(passed), count - len(passed))

    virtual(work())
    assert settled == dict.fromkeys((x for x in put if isinstance(x, int)), Outcome.DONE)
    # What came out is what went in, in order, without what was dropped or superseded.
    places = [put.index(x) if not isinstance(x, Quiet) else None for x in got]
    known = [place for place in places if place is not None]
    assert known == sorted(known)
    assert [x for x in got if isinstance(x, Barrier)] == [x for x in put if isinstance(x, Barrier)]
    for origin in "ab":
        for kept, all_of in zip(_sections(got, origin), _sections(put, origin), strict=True):
            assert kept[-1:] == all_of[-1:], "the last watermark in front of a barrier stays in front of it"


def _sections(items: list[Any], origin: str) -> list[list[Watermark]]:
    sections: list[list[Watermark]] = [[]]
    for item in items:
        if isinstance(item, Barrier):
            sections.append([])
        elif isinstance(item, Watermark) and item.origin == origin:
            sections[-1].append(item)
    return sections


def test_control_items_do_not_pile_up() -> None:
    for overflow in ("drop_oldest", "drop_newest", "backpressure"):
        channel, _ = make(3, overflow)
        for number in range(1000):
            if overflow != "backpressure" or number < 3:
                channel.append(Chunk([number]))
            for origin in "ab":
                channel.append(Watermark(origin, number))
                channel.append(Quiet(origin))
        items = []
        while (item := channel.poll()) is not None:
            items.append(item)
        assert len(items) <= 3 + 5 * 4
        assert Watermark("a", 999) in items


def test_nothing_overtakes_a_barrier_while_the_consumer_waits() -> None:
    async def work() -> None:
        channel, _ = make(3, "drop_newest")
        getting = asyncio.create_task(channel.get())
        await asyncio.sleep(0)
        channel.append(Barrier(1))
        channel.append(Chunk([1]))
        assert await getting == Barrier(1)
        item = await channel.get()
        assert isinstance(item, Chunk)
        assert item.values == [1]

    virtual(work())


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_producer_that_waits_puts_in_no_more_than_there_is_room_for(size: int) -> None:
    async def work() -> None:
        channel, stats = make(size, "backpressure")
        putting = asyncio.create_task(channel.put(Chunk(list(range(10)))))
        got: list[int] = []
        while len(got) < 10:
            await asyncio.sleep(0)
            assert channel.size <= size
            item = await channel.get(2)
            assert isinstance(item, Chunk)
            assert len(item) <= 2
            got += item.values
        await putting
        assert got == list(range(10))
        assert (stats.steps["b"].received, stats.steps["b"].emitted) == (10, 10)

    virtual(work())


@pytest.mark.parametrize("overflow", ["backpressure", "drop_oldest"])
def test_who_detaches_hands_back_what_waits_also_what_was_for_it(overflow: Overflow) -> None:
    outcomes: list[Outcome] = []

    def chunk() -> Chunk:
        return Chunk([1, 2, 3], receipt=Receipt(lambda receipt, outcome: outcomes.append(outcome)))

    async def work() -> None:
        channel, _ = make(2, overflow)
        getting = asyncio.create_task(channel.get(3))
        await asyncio.sleep(0)
        handed = asyncio.create_task(channel.put(chunk()))
        waiting = asyncio.create_task(channel.put(chunk()))
        getting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        channel.detach()
        await handed
        await waiting
        await channel.put(chunk())

    virtual(work())
    # With drop_oldest an element of the second chunk was dropped: done.
    done = [Outcome.DONE] if overflow == "drop_oldest" else [Outcome.UNUSED]
    assert sorted(outcomes, key=str) == [*done, Outcome.UNUSED, Outcome.UNUSED]
