"""`merge`: everything, in the order of arrival; what checkpoints and watermarks do there is in tests of the engine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Pipeline, Source
from streamflow.connectors import Collect
from streamflow.operators import merge
from tests.support import Acknowledging, Chunked, Confirming, Recorder, restarts, run


@given(st.lists(st.integers(0, 2), max_size=20))
def test_elements_come_in_the_order_of_arrival(arrivals: list[int]) -> None:
    def source(number: int) -> Chunked:
        own = [time for time, origin in enumerate(arrivals) if origin == number]
        return Chunked([[(number, time)] for time in own], f"s{number}", times=own)

    merged = merge(*(source(number) for number in range(3)))
    assert run(merged.to(Collect())) == [(origin, time) for time, origin in enumerate(arrivals)]


def test_one_stream_is_merged_with_itself() -> None:
    source = Source([1, 2])
    assert sorted(run(merge(source, source).to(Collect()))) == [1, 1, 2, 2]
    assert run(merge(source).to(Collect())) == [1, 2]


def test_a_restart_loses_and_doubles_nothing() -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        slow = Chunked([["a"], ["b"], ["c"]], "slow", times=[0.5, 2.2, 4.6])
        fast, sink = Chunked([[n] for n in range(9)], "fast", times=[n / 2 for n in range(9)]), Recorder()
        return merge(fast, slow).to(sink), sink, fast

    assert restarts(build, order=lambda values: sorted(values, key=str)) > 3


def test_messages_of_both_are_acknowledged() -> None:
    source, other = Acknowledging(9, [2, 4], name="one"), Source(range(100, 104))
    sink = Confirming(source)
    run(merge(source, other).to(sink))
    assert sorted(source.ledger.acked) == list(range(9))
    assert sorted(sink.values) == [*range(9), *range(100, 104)]


def test_mistakes() -> None:
    wrong: Any = [1]
    with pytest.raises(ConfigurationError, match=r"merge\(\) needs at least one stream"):
        merge()
    with pytest.raises(ConfigurationError, match=r"merge takes streams, not \[1\]"):
        merge(Source([1]), wrong)
