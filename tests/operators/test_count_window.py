"""`CountWindow`: so many elements of each key, as a plain model says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError, Pipeline, Skip, Source, Window
from streamflow.connectors import Collect
from streamflow.operators import Aggregator, CountWindow, Keyed, Mean, Sum, ToList
from tests.support import Chunked, Recorder, cut, restarts, run, sizes

spans = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda pair: (max(pair), min(pair)))
"""``n`` and ``every``."""
keys = st.lists(st.integers(0, 2), max_size=60)


def modelled(keys: Sequence[int], n: int, every: int) -> list[tuple[int, Window[list[int]]]]:
    """Elements are their positions."""
    mine: dict[int, list[int]] = {}
    out = []
    for position, key in enumerate(keys):
        seen = mine.setdefault(key, [])
        seen.append(position)
        start = len(seen) - n
        if start >= 0 and start % every == 0:
            out.append((key, Window(start, start + n, seen[start:])))
    for key, seen in mine.items():
        for start in range(0, len(seen), every):
            if start + n > len(seen):
                out.append((key, Window(start, start + n, seen[start:])))
    return out


@settings(max_examples=300)
@given(keys, spans, sizes)
def test_windows_of_each_key_do_not_depend_on_chunks(
    keys: list[int], span: tuple[int, int], sizes: list[int]
) -> None:
    n, every = span
    keyed: Any = Keyed(lambda position: keys[position], CountWindow(n, every))
    got = run(Chunked(cut(range(len(keys)), sizes)).via(keyed).to(Collect()))
    assert [tuple(pair) for pair in got] == modelled(keys, n, every)


@given(st.integers(0, 40), spans)
def test_without_keys_the_stream_is_counted(count: int, span: tuple[int, int]) -> None:
    got = run(Source(range(count)).via(CountWindow(*span)).to(Collect()))
    assert got == [window for _, window in modelled([0] * count, *span)]


@settings(max_examples=60)
@given(keys, spans, sizes, st.booleans())
def test_a_restart_from_any_checkpoint_changes_nothing(
    keys: list[int], span: tuple[int, int], sizes: list[int], means: bool
) -> None:
    chunks = cut(range(len(keys)), sizes)
    into: Any = Mean() if means else ToList(state=int)

    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        source, sink = Chunked(chunks, times=[0.7 * n for n in range(len(chunks))]), Recorder()
        keyed: Any = Keyed(lambda position: keys[position], CountWindow(*span, into=into))
        return source.via(keyed).to(sink), sink, source

    restarts(build, order=lambda emitted: sorted(emitted, key=lambda pair: (pair.key, pair.value.start)))


class Odd(Aggregator[int, int]):
    """Sums; fails to add 13, to merge with a sum of 100 and more, and to give the sum 7."""

    def initial(self) -> int:
        return 0

    def add(self, acc: int, value: int) -> int:
        if value == 13:
            raise ValueError("13")
        return acc + value

    def merge(self, left: int, right: int) -> int:
        if left >= 100 or right >= 100:
            raise ValueError("too much")
        return left + right

    def result(self, acc: int) -> int:
        if acc == 7:
            raise ValueError("7")
        return acc


@given(st.lists(st.sampled_from([1, 2, 3, 13, 100]), max_size=40), spans, sizes)
def test_what_fails_is_dropped_alone(values: list[int], span: tuple[int, int], sizes: list[int]) -> None:
    n, every = span
    got = run(
        Chunked(cut(values, sizes)).via(CountWindow(n, every, into=Odd())).to(Collect()), on_error=Skip()
    )
    added = [value for value in values if value != 13]
    windows = {float(start): added[start : start + n] for start in range(0, len(added), every)}
    for window in got:
        assert window.value == sum(windows[window.start])
    kept = {window.start for window in got}
    for start, mine in windows.items():
        # A window without a 100 merges; whether one with it does depends on the panes.
        assert start in kept or sum(mine) == 7 or 100 in mine


def test_the_number_of_merges_does_not_depend_on_how_many_windows_an_element_is_in() -> None:
    merges = 0

    class Counted(Sum[Any, int]):
        def merge(self, left: Any, right: Any) -> Any:
            nonlocal merges
            merges += 1
            return left + right

    for n in (10, 101, 1000):
        merges = 0
        got = run(Source(range(3000)).via(CountWindow(n, 2, into=Counted())).to(Collect()))
        assert [w.value for w in got] == [
            sum(range(start, min(start + n, 3000))) for start in range(0, 3000, 2)
        ]
        assert merges <= 3 * 3000


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0,), "n must be 1 or more"),
        ((2.5,), "n must be a whole number"),
        ((True,), "n must be a whole number"),
        ((3, 0), "every must be 1 or more"),
        ((3, 4), "must not be more than its n"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=f"CountWindow's .*{match}"):
        CountWindow(*arguments)
    with pytest.raises(ConfigurationError, match="CountWindow's into takes an aggregator"):
        CountWindow(3, into=Sum)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="CountWindow: on_error must be"):
        CountWindow(3, on_error=Skip)  # type: ignore[call-overload]
