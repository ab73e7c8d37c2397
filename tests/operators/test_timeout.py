"""`Timeout`: the error policy hears of a stream, or a key, that has fallen silent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import Checkpoint, ConfigurationError, Skip, Source, StepError
from streamflow.connectors import Collect, ForEach
from streamflow.engine.observer import StatsObserver
from streamflow.operators import Keyed, MapAsync, Throttle, Timeout
from streamflow.testing import MemoryStore
from tests.arrivals import arriving, gaps, rounded, timed, times_of
from tests.support import chain, run, sizes


def expected_timeouts(times: list[float], after: float) -> int:
    """By times of which none is both an element's and the end of a wait."""
    count = 0
    for before, time in zip([0.0, *times], times, strict=False):
        while before + after < time:
            count += 1
            before += after
    return count


@given(gaps, sizes, st.sampled_from([0.21, 0.61, 1.13]))
def test_each_silence_counts(gaps: list[float], cuts: list[int], after: float) -> None:
    times = times_of(gaps)
    stats = StatsObserver()
    seen = timed(arriving(times, cuts), Timeout(after), on_error=Skip(), observers=[stats])
    assert seen == rounded([(time, number) for number, time in enumerate(times)])
    assert stats.steps["Timeout"].failed == expected_timeouts(times, after)


@given(gaps, sizes, st.sampled_from([0.21, 0.61, 1.13]))
def test_the_first_silence_fails_the_pipeline(gaps: list[float], cuts: list[int], after: float) -> None:
    times = times_of(gaps)
    seen: list[Any] = []
    pipeline = arriving(times, cuts).via(Timeout(after)).to(ForEach(seen.append))
    if not expected_timeouts(times, after):
        run(pipeline)
        return
    message = rf"step 'Timeout': failed: TimeoutError: no element came for {after} s"
    with pytest.raises(StepError, match=message) as raised:
        run(pipeline)
    assert isinstance(raised.value.cause, TimeoutError)
    silent = next(n for n in range(1, len(times) + 1) if expected_timeouts(times[:n], after))
    assert seen == list(range(silent - 1))


@given(gaps, sizes)
def test_each_key_that_has_been_seen_waits_by_itself(gaps: list[float], cuts: list[int]) -> None:
    times = times_of(gaps)
    expected = 0
    for key in range(3):
        mine = [time for number, time in enumerate(times) if number % 3 == key]
        # From its first element to the end of the stream.
        expected += expected_timeouts([time - mine[0] for time in [*mine, times[-1]]], 1.13) if mine else 0
    stats = StatsObserver()
    keyed: Any = Keyed(lambda x: x % 3, Timeout(1.13))
    run(arriving(times, cuts).via(keyed).to(Collect()), on_error=Skip(), observers=[stats])
    assert stats.steps["Keyed/Timeout"].failed == expected


def test_a_key_that_is_silent_is_named() -> None:
    keyed: Any = Keyed(lambda x: "ab"[x], Timeout(2))
    with pytest.raises(StepError, match="no element of the key 'b' came for 2 s"):
        run(arriving([0, 0, 1.5, 2.5], values=[0, 1, 0, 0]).via(keyed).to(Collect()))


@pytest.mark.parametrize("slow", [Throttle(1, per=5), MapAsync(lambda x: asyncio.sleep(5, x), concurrency=1)])
@pytest.mark.parametrize("waits", [True, False])
def test_elements_that_a_slow_consumer_keeps_from_being_read_have_come(slow: Any, waits: bool) -> None:
    source: Any = arriving([0.0] * 6, [1] * 6) if waits else Source(range(6))
    flow = chain(Timeout(2), slow, Throttle(1, per=1))
    assert run(source.via(flow).to(Collect())) == list(range(6))


def test_the_wait_begins_anew_with_a_restart() -> None:
    store = MemoryStore()

    def pipeline() -> Any:
        keyed: Any = Keyed(lambda x: x, Timeout(5))
        return arriving([0.5, 6.5], values=["a", "a"]).via(keyed).to(Collect(), name="p")

    with pytest.raises(StepError):
        run(pipeline(), checkpoint=Checkpoint(every=1, store=store))
    assert len(store.history) > 3
    # It has been down for a while: no reason to fail at once, and for ever.
    last = MemoryStore.at(store.history[-1], "p")
    assert run(pipeline(), start=6.0, checkpoint=Checkpoint(every=1, store=last)) == [("a", "a")]
    last = MemoryStore.at(store.history[-1], "p")
    with pytest.raises(StepError, match="'a' came for 5 s"):
        run(pipeline(), start=-1.0, checkpoint=Checkpoint(every=1, store=last))


@settings(max_examples=10)
@given(gaps)
def test_checkpoints_do_not_move_the_wait(gaps: list[float]) -> None:
    times = times_of(gaps)
    stats = StatsObserver()
    checkpoint = Checkpoint(every=0.5, store=MemoryStore())
    run(
        arriving(times).via(Timeout(0.91)).to(Collect()),
        on_error=Skip(),
        observers=[stats],
        checkpoint=checkpoint,
    )
    assert stats.steps["Timeout"].failed == expected_timeouts(times, 0.91)


@pytest.mark.parametrize("after", [0, -1, "1", float("inf")])
def test_the_time_is_positive(after: Any) -> None:
    with pytest.raises(ConfigurationError, match="Timeout's after must be"):
        Timeout(after)
