"""`round_robin`: element i to branch i mod n."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Pipeline, Source
from streamflow.connectors import Collect
from streamflow.operators import MapAsync, Take, merge, round_robin
from tests.support import Acknowledging, Chunked, Confirming, Recorder, cut, restarts, run, sizes


def collected(source: Source[Any], n: int) -> Any:
    return Pipeline(*(branch.to(Collect()) for branch in round_robin(source, n)))


@given(st.integers(0, 40), sizes, st.integers(1, 5))
def test_branches_take_turns_whatever_the_chunks(count: int, sizes: list[int], n: int) -> None:
    pipeline = collected(Chunked(cut(range(count), sizes)), n)
    expected = [list(range(count))[i::n] for i in range(n)]
    for _ in range(2):  # each run begins with the first branch
        assert run(pipeline) == (expected[0] if n == 1 else tuple(expected))


async def later(x: int) -> int:
    return x


def test_the_share_of_a_branch_that_has_ended_is_handed_back() -> None:
    source = Acknowledging(20, [20])
    first, second = round_robin(source, 2)
    run(Pipeline(first.via(Take(2)).to(Confirming(source)), second.to(Confirming(source))))
    assert sorted(source.ledger.acked) == [0, 1, 2, *range(3, 20, 2)]
    assert sorted(source.ledger.given_back) == list(range(4, 20, 2))


def test_a_restart_loses_and_doubles_nothing() -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        source, sink = Chunked([[0, 1, 2], [3], [4, 5, 6], [7]], times=[0.5, 1.5, 2.5, 3.5]), Recorder()
        first, second = round_robin(source, 2)
        return merge(first, second.via(MapAsync(later))).to(sink), sink, source

    assert restarts(build, order=sorted) > 2


@pytest.mark.parametrize("n", [0, 1.5])
def test_mistakes(n: Any) -> None:
    with pytest.raises(ConfigurationError, match="round_robin's n must be"):
        round_robin(Source([1]), n)
