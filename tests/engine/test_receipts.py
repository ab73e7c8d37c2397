"""Receipts: each message is acknowledged once, when it is delivered or dropped, and what was not used comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import Pipeline, Skip, StepError
from streamflow.connectors import Discard
from streamflow.operators import (
    Batch,
    Buffer,
    Debounce,
    Delay,
    Filter,
    FlatMap,
    Inspect,
    Keyed,
    Map,
    MapAsync,
    PassThrough,
    Sample,
    Take,
    Throttle,
    Timeout,
    fan_out,
    merge,
    split,
)
from streamflow.operators import Skip as SkipFirst
from streamflow.testing import VirtualClock
from tests.support import Acknowledging, Chunked, Confirming, chain, run, sizes, until, virtual


async def slowly(x: int) -> int:
    await asyncio.sleep((x * 7 % 5) / 10)
    return x


async def fails_sometimes(x: int) -> int:
    await asyncio.sleep((x * 7 % 5) / 10)
    return 1 // (x % 5) * 0 + x


def fails_on_fives(x: int) -> int:
    return 1 // (x % 5) * 0 + x


FLOWS: dict[str, Any] = {
    "map": (Map(lambda x: x), lambda x: True),
    "filter": (Filter(lambda x: x % 3), lambda x: x % 3),
    "filter all": (Filter(lambda x: False), lambda x: False),
    "flat_map": (FlatMap(lambda x: [x] * (x % 3)), lambda x: x % 3),
    "failing map": (Map(fails_on_fives), lambda x: x % 5),
    "failing inspect, filter": (
        Inspect(fails_on_fives).via(Filter(lambda x: x % 2)),
        lambda x: x % 5 and x % 2,
    ),
    "ordered": (MapAsync(slowly, concurrency=3), lambda x: True),
    "unordered": (MapAsync(slowly, concurrency=3, ordered=False), lambda x: True),
    "failing ordered": (MapAsync(fails_sometimes, concurrency=3), lambda x: x % 5),
    "failing unordered": (MapAsync(fails_sometimes, concurrency=3, ordered=False), lambda x: x % 5),
    "batch": (Batch(4), lambda x: True),
    "batch within": (Batch(4, within=0.01), lambda x: True),
    "filter, batch": (chain(Filter(lambda x: x % 3), Batch(4)), lambda x: x % 3),
    "batches of batches": (chain(Batch(3), Batch(2)), lambda x: True),
    "ordered, batch": (chain(MapAsync(slowly, concurrency=3), Batch(4)), lambda x: True),
    "batch, unordered, batch": (
        chain(Batch(2), MapAsync(lambda xs: slowly_all(xs), ordered=False), Batch(2)),
        lambda x: True,
    ),
    "throttle": (Throttle(3, per=0.5), lambda x: True),
    "discard": (Throttle(3, per=0.5, mode="discard"), lambda x: False),
    "delay": (Delay(0.3), lambda x: True),
    "delay of few": (Delay(0.3, hold=2), lambda x: True),
    "keyed delay": (Keyed(lambda x: x % 3, Delay(0.3)), lambda x: True),
    "debounce": (Debounce(0.3), lambda x: False),
    "keyed sample": (Keyed(lambda x: x % 3, Sample(0.3)), lambda x: False),
    "timeout": (Timeout(0.3), lambda x: True),
    "buffer": (Buffer(3), lambda x: True),
    "delay, buffer, batch": (chain(Delay(0.3), Buffer(3), Batch(4)), lambda x: True),
    "buffer, ordered": (chain(Buffer(3), MapAsync(slowly, concurrency=2)), lambda x: True),
    "skip": (SkipFirst(5), lambda x: x >= 5),
    "throttle, batch": (Throttle(3, per=0.5).via(Batch(2)), lambda x: True),
    "keyed batch": (Keyed(lambda x: x % 3, Batch(4)), lambda x: True),
    "keyed throttle": (Keyed(lambda x: x % 3, Throttle(2, per=0.5)), lambda x: True),
    "keyed chain": (
        Keyed(lambda x: x % 3, chain(Filter(lambda x: x % 2), Batch(2), Map(list))),
        lambda x: x % 2,
    ),
    "keyed, failing key": (Keyed(fails_on_fives, chain(PassThrough())), lambda x: x % 5),
    "failing key, batch": (Keyed(lambda x: fails_on_fives(x) % 2, Batch(3)), lambda x: x % 5),
}


async def slowly_all(xs: list[int]) -> list[int]:
    await asyncio.sleep(sum(xs) % 3 / 10)
    return xs


@pytest.mark.parametrize("flow", FLOWS)
@settings(max_examples=25)
@given(sizes=sizes, delay=st.sampled_from([0.0, 0.3]), messages=st.integers(0, 30))
def test_each_message_is_acknowledged_once_and_not_before_its_delivery(
    flow: str, sizes: list[int], delay: float, messages: int
) -> None:
    operator, delivers = FLOWS[flow]
    source = Acknowledging(messages, sizes)
    run(source.via(operator).to(Confirming(source, delay)), on_error=Skip())
    source.ledger.check(deliver=filter(delivers, range(messages)))
    assert sorted(source.ledger.acked) == list(range(messages))


@pytest.mark.parametrize("flow", FLOWS)
@settings(max_examples=25)
@given(sizes=sizes, at=st.floats(0.05, 3), ending=st.sampled_from(["drain", "stop"]))
def test_drain_and_stop_hand_back_what_was_not_delivered(
    flow: str, sizes: list[int], at: float, ending: str
) -> None:
    operator, delivers = FLOWS[flow]
    source = Acknowledging(30, sizes, ends=False)
    sink = Confirming(source, 0.1)

    async def work() -> None:
        async with source.via(operator).to(sink).start(clock=VirtualClock(), on_error=Skip()) as running:
            await asyncio.sleep(at)
            await getattr(running, ending)()

    virtual(work())
    source.ledger.check(deliver=filter(delivers, range(30)))
    if ending == "drain":
        assert source.ledger.returned == [], "a drain settles everything by its receipt"


@pytest.mark.parametrize("flow", [name for name in FLOWS if "discard" not in name])
def test_a_sink_that_never_confirms_gets_nothing_acknowledged_but_what_was_dropped(flow: str) -> None:
    operator, delivers = FLOWS[flow]
    source = Acknowledging(30, [4, 3, 5])
    run(source.via(operator).to(Confirming(source, None)), on_error=Skip())
    assert source.ledger.acked == [] or not any(map(delivers, source.ledger.acked))
    source.ledger.check(deliver=filter(delivers, range(30)))


@pytest.mark.parametrize(
    "flow", ["map", "filter", "batch", "ordered", "unordered", "keyed batch", "throttle"]
)
def test_a_failing_pipeline_acknowledges_nothing_undelivered(flow: str) -> None:
    operator, delivers = FLOWS[flow]
    source = Acknowledging(30, [4, 3, 5])
    count = 0

    def fail(x: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise ValueError
        return x

    with pytest.raises(StepError):
        run(source.via(operator).via(Map(fail)).to(Confirming(source)))
    source.ledger.check(deliver=filter(delivers, range(30)))
    assert source.ledger.returned


def test_chunks_carry_one_receipt_unless_a_step_needs_more() -> None:
    plain, batched, taken = Acknowledging(3), Acknowledging(3), Acknowledging(3)
    run(plain.via(Map(lambda x: x)).via(Filter(bool)).to(Discard()))
    run(batched.via(Batch(2)).to(Discard()))
    run(taken.via(Take(2)).to(Discard()))
    assert (plain.lineage, batched.lineage, taken.lineage) == (False, True, True)


def test_a_batch_pins_only_what_it_holds_and_drops_are_acknowledged_at_once() -> None:
    source = Acknowledging(7, [7], ends=False)

    async def work() -> None:
        pipeline = source.via(Filter(lambda x: x % 2)).via(Batch(2)).to(Confirming(source))
        async with pipeline.start(clock=VirtualClock()) as running:
            await asyncio.sleep(1)
            assert sorted(source.ledger.acked) == [0, 1, 2, 3, 4, 6]
            await running.drain()
        assert source.ledger.of("rejected") == [5]

    virtual(work())


def test_each_batch_is_acknowledged_when_it_is_confirmed() -> None:
    source = Acknowledging(6, [6], ends=False)
    sink = Confirming(source, None)

    async def work() -> None:
        async with source.via(Batch(2)).to(sink).start(clock=VirtualClock()):
            await until(lambda: len(sink.values) == 3)
            sink.confirm()
            assert sorted(source.ledger.acked) == list(range(6))

    virtual(work())


def test_a_throttled_element_is_acknowledged_when_it_has_passed_not_with_those_before_it() -> None:
    source = Acknowledging(5, [5], ends=False)

    async def work() -> None:
        pipeline = source.via(Throttle(1, per=1)).to(Confirming(source))
        async with pipeline.start(clock=VirtualClock()) as running:
            for passed in range(1, 4):
                await asyncio.sleep(0.5)
                assert source.ledger.acked == list(range(passed))
                await asyncio.sleep(0.5)
            await running.stop()
        assert (
            sorted(source.ledger.given_back + source.ledger.returned) == [3, 4]
            or len(source.ledger.acked) == 4
        )

    virtual(work())


@given(sizes=sizes, n=st.integers(0, 12), delay=st.sampled_from([0.0, 0.2]))
def test_what_take_leaves_over_comes_back(sizes: list[int], n: int, delay: float) -> None:
    source = Acknowledging(20, sizes)
    assert run(source.via(Take(n)).to(Confirming(source, delay))) == list(range(min(n, 20)))
    source.ledger.check(deliver=range(n))
    assert sorted(source.ledger.acked) == list(range(n))


@pytest.mark.parametrize(
    "before",
    [
        Map(lambda x: x),
        FlatMap(lambda x: [x]),
        MapAsync(slowly),
        PassThrough().via(MapAsync(slowly)).via(Map(lambda x: x)),
    ],
    ids=["map", "flat_map", "async", "three stages"],
)
@given(sizes=sizes, n=st.integers(0, 12))
def test_what_take_leaves_over_comes_back_from_behind_other_steps(
    before: Any, sizes: list[int], n: int
) -> None:
    source = Acknowledging(20, sizes)
    assert run(source.via(before).via(Take(n)).to(Confirming(source))) == list(range(n))
    source.ledger.check(deliver=range(n))
    assert sorted(source.ledger.acked) == list(range(n))


@given(sizes=sizes, delays=st.tuples(*[st.sampled_from([0.0, 0.2])] * 2))
def test_fan_out_acknowledges_after_both_branches(sizes: list[int], delays: tuple[float, float]) -> None:
    source = Acknowledging(20, sizes)
    left, right = fan_out(source, 2)
    first, second = (
        left.to(Confirming(source, delays[0])),
        right.via(Batch(3)).to(Confirming(source, delays[1])),
    )
    run(Pipeline(first, second))
    source.ledger.check(sinks=2)
    assert sorted(source.ledger.acked) == list(range(20))


@given(sizes=sizes, n=st.integers(0, 12))
def test_what_one_branch_leaves_over_is_acknowledged_by_the_other(sizes: list[int], n: int) -> None:
    source = Acknowledging(20, sizes)
    left, right = fan_out(source, 2)
    run(Pipeline(left.via(Take(n)).to(Confirming(source)), right.to(Confirming(source, 0.1))))
    source.ledger.check()
    assert sorted(source.ledger.acked) == list(range(20))


def test_a_branch_that_ended_pins_nothing_that_its_steps_held() -> None:
    """Batch holds what came behind the elements that Take wanted; the other branch goes on for long."""
    source = Acknowledging(8, [8], ends=False)
    left, right = fan_out(source, 2)

    async def work() -> None:
        branches = Pipeline(left.via(Batch(3)).via(Take(1)).to(Discard()), right.to(Confirming(source)))
        async with branches.start(clock=VirtualClock()) as running:
            await asyncio.sleep(1)
            assert sorted(source.ledger.acked) == list(range(8))
            await running.stop()

    virtual(work())


@given(sizes=sizes, delay=st.sampled_from([0.0, 0.2]))
def test_diamonds_acknowledge_once(sizes: list[int], delay: float) -> None:
    source = Acknowledging(20, sizes)
    odd, even = split(source, lambda x: x % 2)
    joined = merge(
        odd.via(MapAsync(slowly)), even.via(Filter(lambda x: x % 4)).via(Batch(2)).via(FlatMap(list))
    )
    run(joined.to(Confirming(source, delay)))
    source.ledger.check(deliver=[x for x in range(20) if x % 4])
    assert sorted(source.ledger.acked) == list(range(20))


@given(sizes=sizes)
def test_a_failing_split_acknowledges_what_it_skips(sizes: list[int]) -> None:
    source = Acknowledging(20, sizes)
    odd, even = split(source, lambda x: fails_on_fives(x) % 2)
    run(Pipeline(odd.to(Confirming(source)), even.to(Confirming(source))), on_error=Skip())
    source.ledger.check(deliver=[x for x in range(20) if x % 5])
    assert sorted(source.ledger.acked) == list(range(20))


@given(left=sizes, right=sizes)
def test_batches_from_several_sources_acknowledge_each_at_its_own(left: list[int], right: list[int]) -> None:
    a, b = Acknowledging(10, left, name="a"), Acknowledging(10, right, name="b")
    run(merge(a, b).via(Batch(3)).to(Discard()))
    for source in (a, b):
        assert sorted(source.ledger.acked) == list(range(10))


def test_a_batch_that_a_source_without_receipts_completes_takes_those_of_the_other() -> None:
    source, plain = Acknowledging(3, [3], ends=False), Chunked([["x"]], times=[1], ends=False)
    sink = Confirming(source, None)

    async def work() -> None:
        async with merge(source, plain).via(Batch(4)).to(sink).start(clock=VirtualClock()):
            await asyncio.sleep(2)
            assert sink.values == [[0, 1, 2, "x"]]
            assert source.ledger.acked == []
            sink.held.pop().release()
            assert sorted(source.ledger.acked) == [0, 1, 2]

    virtual(work())
