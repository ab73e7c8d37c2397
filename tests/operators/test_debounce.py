"""`Debounce`: the latest element, once none has come for a while."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError
from streamflow.operators import Debounce, Keyed
from tests.arrivals import arriving, gaps, rounded, timed, times_of
from tests.support import Acknowledging, Chunked, Confirming, Recorder, restarts, run, sizes


def model(times: list[float], quiet: float) -> list[tuple[float, int]]:
    out = []
    for number, time in enumerate(times):
        if number + 1 == len(times):
            out.append((time, number))  # the end of the stream
        elif times[number + 1] >= time + quiet:
            out.append((time + quiet, number))
    return out


@given(gaps, sizes, st.sampled_from([0.1, 0.5, 1.0]))
def test_an_element_is_out_when_none_has_come_for_so_long(
    gaps: list[float], cuts: list[int], quiet: float
) -> None:
    times = times_of(gaps)
    assert timed(arriving(times, cuts), Debounce(quiet)) == rounded(model(times, quiet))


@settings(max_examples=20)
@given(gaps, sizes)
def test_a_restart_goes_on_with_the_element_that_waits(gaps: list[float], cuts: list[int]) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        source, sink = arriving(times_of(gaps), cuts), Recorder()
        keyed: Any = Keyed(lambda x: x % 2, Debounce(0.9, state=int))
        return source.via(keyed).to(sink), sink, source

    restarts(build, order=sorted)


@given(sizes)
def test_a_superseded_element_is_acknowledged_at_once(cuts: list[int]) -> None:
    source = Acknowledging(20, cuts)
    keyed: Any = Keyed(lambda x: x % 2, Debounce(1))
    result = run(source.via(keyed).to(Confirming(source, None)))
    assert sorted(result) == [(0, 18), (1, 19)]
    assert sorted(source.ledger.acked) == list(range(18))
    source.ledger.check(deliver=[18, 19])


@pytest.mark.parametrize("quiet", [0, -1, "1", float("nan")])
def test_the_time_is_positive(quiet: Any) -> None:
    with pytest.raises(ConfigurationError, match="Debounce's quiet must be"):
        Debounce(quiet)
