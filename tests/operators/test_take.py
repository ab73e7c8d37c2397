"""`Take` and `Skip`: exactly the first, exactly the rest."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from streamflow import Source
from streamflow.connectors import Collect
from streamflow.operators import Batch, Fold, Skip, Take
from tests.support import Chunked, cut, run, sizes


@given(st.integers(0, 30), st.integers(0, 20), sizes)
def test_the_first_and_the_rest(n: int, length: int, sizes: list[int]) -> None:
    source = Chunked(cut(range(length), sizes))
    assert run(source.via(Take(n)).to(Collect())) == list(range(length))[:n]
    assert run(source.via(Skip(n)).to(Collect())) == list(range(length))[n:]
    assert run(source.via(Skip(2)).via(Take(n)).to(Collect())) == list(range(length))[2 : 2 + n]


@given(st.integers(0, 12), sizes)
def test_the_steps_behind_a_take_complete(n: int, sizes: list[int]) -> None:
    endless = Chunked(cut(range(20), sizes), ends=False)
    assert run(endless.via(Take(n)).via(Batch(5)).to(Collect())) == [
        list(range(n))[start : start + 5] for start in range(0, n, 5)
    ]


def test_take_none_does_not_wait_for_a_silent_source() -> None:
    assert run(Chunked([], ends=False).via(Take(0)).to(Collect())) == []


def test_an_endless_source_is_not_read_on() -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    assert run(Source(endless).via(Take(3)).via(Fold(0, max)).to(Collect())) == [1, 2, 3]
    assert read < 3000
