"""`Delay`: everything a while later, in order, and no more at a time than it may hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError, Source
from streamflow.connectors import Collect
from streamflow.operators import Batch, Delay, Keyed
from streamflow.testing import VirtualClock
from tests.arrivals import arriving, gaps, rounded, timed, times_of
from tests.support import Acknowledging, Chunked, Confirming, Recorder, chain, restarts, run, sizes, virtual


@given(gaps, sizes, st.sampled_from([0.1, 1.0, 2.5]))
def test_each_element_leaves_so_much_later(gaps: list[float], cuts: list[int], by: float) -> None:
    times = times_of(gaps)
    assert timed(arriving(times, cuts), Delay(by)) == rounded([(t + by, n) for n, t in enumerate(times)])


@given(gaps, sizes, st.integers(1, 4))
def test_a_bound_holds_back_what_is_behind_it(gaps: list[float], cuts: list[int], hold: int) -> None:
    times = times_of(gaps)
    seen = timed(arriving([float(n) for n in range(len(gaps))], values=times), Delay(10, hold=hold))
    # One at a time comes: so many are held, and each that leaves lets one in.
    expected: list[tuple[float, float]] = []
    for number, value in enumerate(times):
        entered = max(float(number), expected[number - hold][0] if number >= hold else 0.0)
        expected.append((entered + 10, value))
    assert seen == rounded(expected)


@given(sizes, st.sampled_from([0.5, 2.0]))
def test_nothing_is_acknowledged_before_it_has_left(cuts: list[int], delay: float) -> None:
    source = Acknowledging(20, cuts)
    keyed: Any = Keyed(lambda x: x % 3, Delay(1, hold=5))
    run(source.via(keyed).to(Confirming(source, delay)))
    source.ledger.check()
    assert sorted(source.ledger.acked) == list(range(20))


def test_a_drain_gives_back_what_is_held() -> None:
    source = Acknowledging(20, [5], ends=False)

    async def work() -> None:
        async with source.via(Delay(10)).to(Confirming(source)).start(clock=VirtualClock()) as running:
            await asyncio.sleep(1)
            await running.drain()

    virtual(work())
    assert sorted(source.ledger.of("rejected")) == list(range(20))


@settings(max_examples=20)
@given(gaps, sizes, st.sampled_from([2, 100]))
def test_a_restart_goes_on_with_what_is_held(gaps: list[float], cuts: list[int], hold: int) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        source, sink = arriving(times_of(gaps), cuts), Recorder()
        keyed: Any = Keyed(lambda x: x % 2, Delay(1.7, hold=hold, state=int))
        return source.via(keyed).to(sink), sink, source

    restarts(build, order=sorted)


def test_the_end_waits_for_what_is_held_also_behind_another_step() -> None:
    flow = chain(Delay(3), Batch(2), Delay(4, hold=1))
    assert run(Source(range(3)).via(flow).to(Collect())) == [[0, 1], [2]]


@pytest.mark.parametrize("arguments", [{"by": 0}, {"by": "1"}, {"by": 1, "hold": 0}, {"by": 1, "hold": 1.5}])
def test_bounds_are_positive(arguments: Any) -> None:
    with pytest.raises(ConfigurationError, match="Delay's (by|hold) must be"):
        Delay(**arguments)
