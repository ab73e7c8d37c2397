"""`TakeWhile` and `DropWhile`: up to the first that is different, and from it on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile, takewhile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError, GuaranteeError, Pipeline, Skip, Source
from streamflow.connectors import Collect, Discard
from streamflow.operators import (
    Batch,
    DropWhile,
    FlatMap,
    Keyed,
    Map,
    MapAsync,
    PassThrough,
    TakeWhile,
    fan_out,
)
from tests.support import Acknowledging, Chunked, Confirming, Recorder, chain, cut, restarts, run, sizes

numbers = st.lists(st.integers(0, 9), max_size=30)


def small(x: int) -> bool:
    return x < 7


def taken(values: list[int], *, inclusive: bool = False) -> list[int]:
    first = list(takewhile(small, values))
    return values[: len(first) + 1] if inclusive else first


@given(numbers, sizes)
def test_up_to_the_first_that_is_different_and_from_it_on(values: list[int], sizes: list[int]) -> None:
    source = Chunked(cut(values, sizes))
    assert run(source.via(TakeWhile(small)).to(Collect())) == taken(values)
    assert run(source.via(TakeWhile(small, inclusive=True)).to(Collect())) == taken(values, inclusive=True)
    pipeline = source.via(DropWhile(small)).to(Collect())
    for _ in range(2):
        assert run(pipeline) == list(dropwhile(small, values))


@given(numbers, sizes, st.booleans())
def test_each_key_ends_and_begins_by_itself(values: list[int], sizes: list[int], inclusive: bool) -> None:
    pairs = [(number % 3, x) for number, x in enumerate(values)]
    source = Chunked(cut(pairs, sizes))

    def keyed(flow: Any) -> Any:
        return Keyed(lambda pair: pair[0], chain(Map(lambda pair: pair[1]), flow))

    some = run(source.via(keyed(TakeWhile(small, inclusive=inclusive))).to(Collect()))
    rest = run(source.via(keyed(DropWhile(small))).to(Collect()))
    for key in range(3):
        alone = [x for k, x in pairs if k == key]
        assert [x for k, x in some if k == key] == taken(alone, inclusive=inclusive)
        assert [x for k, x in rest if k == key] == list(dropwhile(small, alone))


@given(st.lists(st.integers(0, 9), max_size=20), sizes)
def test_an_element_on_which_the_predicate_fails_goes_to_the_policy(
    values: list[int], sizes: list[int]
) -> None:
    def picky(x: int) -> bool:
        return small(x + 0 // (x % 3))

    good = [x for x in values if x % 3]
    source = Chunked(cut(values, sizes))
    assert run(source.via(TakeWhile(picky)).to(Collect()), on_error=Skip()) == taken(good)
    # Behind the first that is passed on nothing is asked any more.
    start = next((i for i, x in enumerate(values) if x % 3 and not small(x)), len(values))
    assert run(source.via(DropWhile(picky)).to(Collect()), on_error=Skip()) == values[start:]


def test_an_endless_source_is_not_read_on_and_what_follows_completes() -> None:
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            yield read
            read += 1

    assert run(Source(endless).via(TakeWhile(small)).via(Batch(5)).to(Collect())) == [[0, 1, 2, 3, 4], [5, 6]]
    assert read < 3000
    silent = Chunked([[1, 9]], ends=False)
    assert run(silent.via(TakeWhile(small)).to(Collect())) == [1]


def test_only_its_own_branch_ends() -> None:
    left, right = fan_out(Source(range(20)), 2)
    pipeline = Pipeline(left.via(TakeWhile(small)).to(Collect()), right.to(Collect()))
    assert run(pipeline) == (list(range(7)), list(range(20)))


# Receipts


async def passed(x: int) -> int:
    return x


@pytest.mark.parametrize(
    "before",
    [
        None,
        Map(lambda x: x),
        FlatMap(lambda x: [x]),
        MapAsync(passed),
        PassThrough().via(MapAsync(passed)).via(Map(lambda x: x)),
    ],
    ids=["source", "map", "flat_map", "async", "three stages"],
)
@pytest.mark.parametrize("inclusive", [False, True])
@settings(max_examples=20)
@given(sizes=sizes, n=st.integers(0, 22), delay=st.sampled_from([0.0, 0.2]))
def test_what_is_left_over_goes_back(
    before: Any, inclusive: bool, sizes: list[int], n: int, delay: float
) -> None:
    source = Acknowledging(20, sizes)
    stream: Any = source if before is None else source.via(before)
    flow: Any = TakeWhile(lambda x: x < n, inclusive=inclusive)
    used = list(range(min(n + inclusive, 20)))
    assert run(stream.via(flow).to(Confirming(source, delay))) == used
    source.ledger.check(deliver=used)
    assert sorted(source.ledger.acked) == used


@given(sizes=sizes, n=st.integers(0, 12))
def test_what_one_branch_leaves_over_is_acknowledged_by_the_other(sizes: list[int], n: int) -> None:
    source = Acknowledging(20, sizes)
    left, right = fan_out(source, 2)
    short: Any = left.via(TakeWhile(lambda x: x < n))
    run(Pipeline(short.to(Confirming(source)), right.to(Confirming(source, 0.1))))
    source.ledger.check()
    assert sorted(source.ledger.acked) == list(range(20))


@pytest.mark.parametrize("flow", [TakeWhile(small), DropWhile(small)], ids=["take", "drop"])
def test_what_a_key_drops_is_acknowledged(flow: Any) -> None:
    source = Acknowledging(20, [3, 8, 4])
    keyed: Any = Keyed(lambda x: x % 3, flow)
    result = run(source.via(keyed).to(Confirming(source)), delivery="best_effort")
    source.ledger.check(deliver=[x for _, x in result])
    assert sorted(source.ledger.acked) == list(range(20))


def test_a_drop_while_that_forgets_would_drop_what_it_passed_before() -> None:
    with pytest.raises(GuaranteeError, match="step 'DropWhile'"):
        run(Acknowledging(3).via(DropWhile(small)).to(Discard()))
    run(Acknowledging(3).via(TakeWhile(small)).to(Discard()))


# Checkpoints


@pytest.mark.parametrize(
    "flow",
    [
        TakeWhile(lambda x: x < 13),
        TakeWhile(lambda x: x < 13, inclusive=True),
        TakeWhile(lambda x: x < 13).via(Batch(50, within=3)),
        DropWhile(lambda x: x < 11),
        Keyed(lambda x: x % 3, TakeWhile(lambda x: x % 8 < 6)),
        Keyed(lambda x: x % 3, DropWhile(lambda x: x % 8 < 6)),
    ],
    ids=["take", "inclusive", "take, batch", "drop", "keyed take", "keyed drop"],
)
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 5), min_size=4, max_size=10), gap=st.sampled_from([0.3, 0.55, 1.25]))
def test_a_restart_remembers_what_is_over_and_what_has_begun(flow: Any, cuts: list[int], gap: float) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        chunks = cut(range(24), cuts)
        source, sink = Chunked(chunks, times=[gap * number for number in range(len(chunks))]), Recorder()
        return source.via(flow).to(sink), sink, source

    restarts(build)


# Arguments


async def coroutine(x: int) -> bool:
    return True


@pytest.mark.parametrize("operator", [TakeWhile, DropWhile])
def test_what_makes_no_sense_is_refused(operator: Any) -> None:
    name = operator.__name__
    for wrong in (None, 3, "p"):
        with pytest.raises(ConfigurationError, match=f"{name} takes a function, not"):
            operator(wrong)
    with pytest.raises(ConfigurationError, match=f"{name} takes a plain function"):
        operator(coroutine)
    with pytest.raises(ConfigurationError, match=f"{name}: on_error must be a policy"):
        operator(small, on_error=Skip)
