"""`FilterAsync`: what its predicate keeps, in order or not, failures by policy, receipts of what is dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Skip, Source, StepError
from streamflow.connectors import Collect
from streamflow.operators import FilterAsync, Take
from tests.support import Acknowledging, Chunked, Confirming, Recorder, cut, restarts, run, sizes


async def odd(x: int) -> object:
    """Takes its time; fails on 2, says what is no bool."""
    await asyncio.sleep(x * 7 % 5)
    if x == 2:
        raise ValueError("two")
    return [x] if x % 2 else []


@given(st.lists(st.integers(0, 9)), sizes, st.integers(1, 4), st.booleans(), st.sampled_from([None, 3.5]))
def test_it_keeps_what_a_list_comprehension_keeps(
    values: list[int], sizes: list[int], concurrency: int, ordered: bool, timeout: float | None
) -> None:
    flow = FilterAsync(odd, concurrency=concurrency, ordered=ordered, timeout=timeout)
    pipeline = Chunked(cut(values, sizes)).via(flow).to(Collect())
    expected = [x for x in values if x % 2 and (timeout is None or x * 7 % 5 < timeout)]
    for _ in range(2):
        result = run(pipeline, on_error=Skip())
        assert (result if ordered else sorted(result)) == (expected if ordered else sorted(expected))


def test_unordered_keeps_come_as_they_are_decided() -> None:
    async def later(x: int) -> bool:
        await asyncio.sleep(x)
        return x != 2

    assert run(Source([3, 1, 2]).via(FilterAsync(later, ordered=False)).to(Collect())) == [1, 3]
    assert run(Source([3, 1, 2]).via(FilterAsync(later)).to(Collect())) == [3, 1]


@given(sizes, st.booleans())
def test_what_is_dropped_is_acknowledged_and_what_is_kept_when_it_is_delivered(
    sizes: list[int], ordered: bool
) -> None:
    source = Acknowledging(20, sizes)
    flow = FilterAsync(odd, concurrency=3, ordered=ordered)
    run(source.via(flow).to(Confirming(source, 0.1)), on_error=Skip())
    source.ledger.check(deliver=range(1, 20, 2))
    assert sorted(source.ledger.acked) == list(range(20))


@given(sizes)
def test_what_take_leaves_over_comes_back(sizes: list[int]) -> None:
    source = Acknowledging(20, sizes)
    run(source.via(FilterAsync(odd, concurrency=3, on_error=Skip())).via(Take(3)).to(Confirming(source)))
    assert [x for x in sorted(source.ledger.acked) if x % 2] == [1, 3, 5]
    source.ledger.check(deliver=range(1, 20, 2))


def test_barriers_keep_their_place() -> None:
    def build() -> Any:
        sink, source = Recorder(), Chunked([[x, x + 1] for x in range(3, 40, 2)], times=range(19))
        return source.via(FilterAsync(odd, concurrency=3)).to(sink), sink, source

    assert restarts(build) > 2


def test_a_failing_predicate_fails_the_pipeline_with_its_element() -> None:
    with pytest.raises(StepError, match=r"step 'FilterAsync': failed on 2: ValueError: two"):
        run(Source([1, 2]).via(FilterAsync(odd)).to(Collect()))


def test_a_truth_that_cannot_be_told_is_a_failure() -> None:
    class Unclear:
        def __bool__(self) -> bool:
            raise ValueError("neither")

    async def unclear(x: int) -> Unclear:
        return Unclear()

    with pytest.raises(StepError, match=r"failed on 1: ValueError: neither"):
        run(Source([1]).via(FilterAsync(unclear)).to(Collect()))


def test_a_plain_predicate_is_an_error_that_says_so() -> None:
    plain: Any = bool
    flow: Any = FilterAsync(plain)
    with pytest.raises(StepError, match="await") as caught:
        run(Source([1]).via(flow).to(Collect()))
    assert "use Map or Filter" in "".join(getattr(caught.value.cause, "__notes__", []))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"predicate": 3}, "FilterAsync takes a coroutine function, not 3"),
        ({"predicate": odd, "concurrency": 0}, "FilterAsync's concurrency must be 1 or more"),
        ({"predicate": odd, "timeout": -1}, "FilterAsync's timeout must be more than zero"),
        ({"predicate": odd, "on_error": Skip}, "FilterAsync: on_error must be a policy"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        FilterAsync(**arguments)
