"""`Sample`: the latest element of each period of the clock that had one."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError
from streamflow.operators import Keyed, Sample
from tests.arrivals import arriving, gaps, rounded, timed, times_of
from tests.support import Acknowledging, Chunked, Confirming, Recorder, restarts, run, sizes


def model(times: list[float], every: float) -> list[tuple[float, int]]:
    latest = {math.floor(time / every): number for number, time in enumerate(times)}
    return [(min((period + 1) * every, times[-1]), number) for period, number in latest.items()]


@given(gaps, sizes, st.sampled_from([0.25, 0.5, 1.0, 4.0]))
def test_each_period_gives_its_latest_element(gaps: list[float], cuts: list[int], every: float) -> None:
    times = times_of(gaps)
    assert timed(arriving(times, cuts), Sample(every)) == rounded(model(times, every))


@given(st.integers(0, 2_000_000_000), st.sampled_from([0.1, 0.3, 1 / 3, 7.7]))
def test_a_period_ends_after_each_element_of_it(start: int, every: float) -> None:
    logic: Any = Sample(every).transform()
    end = logic.due(float(start), None)
    assert start < end <= start + every * 1.001 + 1e-6
    assert logic.due(end, None) > end


@settings(max_examples=20)
@given(gaps, sizes)
def test_a_restart_keeps_the_periods(gaps: list[float], cuts: list[int]) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        source, sink = arriving(times_of(gaps), cuts), Recorder()
        keyed: Any = Keyed(lambda x: x % 2, Sample(1.5, state=int))
        return source.via(keyed).to(sink), sink, source

    restarts(build, order=sorted)


@given(sizes)
def test_a_superseded_element_is_acknowledged_at_once(cuts: list[int]) -> None:
    source = Acknowledging(20, cuts)
    assert run(source.via(Sample(10)).to(Confirming(source, None))) == [19]
    assert sorted(source.ledger.acked) == list(range(19))
    source.ledger.check(deliver=[19])


@pytest.mark.parametrize("every", [0, -1, "1", float("inf")])
def test_the_time_is_positive(every: Any) -> None:
    with pytest.raises(ConfigurationError, match="Sample's every must be"):
        Sample(every)
