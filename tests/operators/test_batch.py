"""`Batch`: full, or in time, as a plain model says."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamflow import KeyedValue, Source
from streamflow.connectors import Collect
from streamflow.operators import Batch, Keyed
from tests.support import Chunked, cut, run, sizes, stamped

arrivals = st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.6]), max_size=30)
"""Gaps between elements."""


@given(st.integers(1, 9), st.integers(0, 40), sizes)
def test_batches_do_not_depend_on_chunks(size: int, count: int, sizes: list[int]) -> None:
    expected = [list(range(count))[start : start + size] for start in range(0, count, size)]
    assert run(Chunked(cut(range(count), sizes)).via(Batch(size)).to(Collect())) == expected


@given(st.integers(1, 5), arrivals, st.sampled_from([0.41, 1.03, 1.57]))
def test_a_batch_is_out_when_it_is_full_or_its_time_is_up(
    size: int, gaps: list[float], within: float
) -> None:
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    source = Chunked([[n] for n in range(len(gaps))], times=times)
    seen: list[tuple[float, Any]] = []
    run(source.via(Batch(size, within=within)).via(stamped(seen)).to(Collect()))
    assert rounded(seen) == rounded(modelled(times, size, within))


def modelled(times: list[float], size: int, within: float) -> list[tuple[float, list[int]]]:
    out: list[tuple[float, list[int]]] = []
    batch: list[int] = []
    due = 0.0
    for number, time in enumerate(times):
        if batch and due < time:
            out.append((due, batch))
            batch = []
        if not batch:
            due = time + within
        batch.append(number)
        if len(batch) == size:
            out.append((time, batch))
            batch = []
    return [*out, (times[-1], batch)] if batch else out


def rounded(seen: list[tuple[float, Any]]) -> list[tuple[float, Any]]:
    return [(round(time, 3), value) for time, value in seen]


def test_each_key_has_a_batch_of_its_own() -> None:
    keyed: Any = Keyed(lambda x: x % 2, Batch(2))
    assert run(Source(range(5)).via(keyed).to(Collect())) == [
        KeyedValue(0, [0, 2]),
        KeyedValue(1, [1, 3]),
        KeyedValue(0, [4]),
    ]


def test_a_batch_is_a_list_of_its_own() -> None:
    first, second = run(Source(range(4)).via(Batch(2)).to(Collect()))
    first.append(9)
    assert second == [2, 3]
