"""`fan_out`: every branch has everything, and none waits for another longer than a channel is full."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Pipeline, Source
from streamflow.connectors import Collect, Discard
from streamflow.engine.channel import CAPACITY
from streamflow.engine.chunk import CHUNK_SIZE
from streamflow.operators import Inspect, MapAsync, Take, fan_out
from streamflow.testing import VirtualClock
from tests.support import Acknowledging, Chunked, Confirming, cut, run, sizes, virtual


@given(st.lists(st.integers()), sizes, st.integers(1, 4))
def test_every_branch_has_everything(values: list[int], sizes: list[int], n: int) -> None:
    branches = fan_out(Chunked(cut(values, sizes)), n)
    pipeline: Any = Pipeline(*(branch.to(Collect()) for branch in branches))
    assert run(pipeline) == (values if n == 1 else (values,) * n)


def test_a_message_is_acknowledged_when_all_branches_have_delivered_it() -> None:
    source = Acknowledging(20, [4, 3, 5])
    one, other = fan_out(source, 2)
    run(Pipeline(one.to(Confirming(source, 0.3)), other.to(Confirming(source, 0.1))))
    source.ledger.check(sinks=2)
    assert sorted(source.ledger.acked) == list(range(20))


def test_a_slow_branch_holds_the_other_back_as_far_as_its_channel_is_full() -> None:
    async def never(x: int) -> int:
        await asyncio.Event().wait()
        return x

    passed = 0

    def note(_: int) -> None:
        nonlocal passed
        passed += 1

    async def work() -> None:
        slow, fast = fan_out(Source(count()), 2)
        pipeline = Pipeline(
            slow.via(MapAsync(never, concurrency=1)).to(Discard()), fast.via(Inspect(note)).to(Discard())
        )
        async with pipeline.start(clock=VirtualClock()) as running:
            await asyncio.sleep(10)
            seen = passed
            assert CAPACITY <= seen <= CAPACITY + 2 * CHUNK_SIZE
            await asyncio.sleep(10)
            assert passed == seen
            await running.stop()

    virtual(work())


def test_a_branch_that_ends_early_leaves_the_others_alone() -> None:
    few, all_of_them = fan_out(Source(range(5000)), 2)
    pipeline = Pipeline(few.via(Take(3)).to(Collect()), all_of_them.to(Collect()))
    assert run(pipeline) == ([0, 1, 2], list(range(5000)))


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_mistakes(n: Any) -> None:
    with pytest.raises(ConfigurationError, match="fan_out's n must be"):
        fan_out(Source([1]), n)
