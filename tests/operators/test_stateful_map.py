"""`StatefulMap`: each output from the state so far, whatever the chunks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import (
    Checkpoint,
    ConfigurationError,
    GuaranteeError,
    KeyedValue,
    Pipeline,
    Skip,
    Source,
    StateError,
)
from streamflow.connectors import Collect, Discard
from streamflow.operators import Keyed, StatefulMap
from streamflow.testing import MemoryStore
from tests.support import Acknowledging, Chunked, Confirming, Recorder, cut, restarts, run, sizes

numbers = st.lists(st.integers(-9, 9), max_size=30)


def step(state: int, x: int) -> tuple[int, tuple[int, int]]:
    return state * 2 - x, (state, x)


def modelled(values: list[int], initial: int = 5) -> list[tuple[int, int]]:
    out = []
    for x in values:
        initial, made = step(initial, x)
        out.append(made)
    return out


@given(numbers, sizes)
def test_each_output_is_made_of_the_state_before_it(values: list[int], sizes: list[int]) -> None:
    pipeline = Chunked(cut(values, sizes)).via(StatefulMap(5, step)).to(Collect())
    assert run(pipeline) == modelled(values)
    assert run(pipeline) == modelled(values), "a second run begins anew"


@given(numbers, sizes)
def test_each_key_has_a_state_of_its_own(values: list[int], sizes: list[int]) -> None:
    keyed: Any = Keyed(lambda x: x % 3, StatefulMap(5, step))
    result = run(Chunked(cut(values, sizes)).via(keyed).to(Collect()))
    assert [out[1] for _, out in result] == values
    for key in range(3):
        assert [out for k, out in result if k == key] == modelled([x for x in values if x % 3 == key])


@given(numbers, sizes)
def test_an_element_that_fails_leaves_the_state_as_it_was(values: list[int], sizes: list[int]) -> None:
    def failing(state: int, x: int) -> tuple[int, tuple[int, int]]:
        return step(state, x) if x % 3 else ("what", "is", "wrong")  # type: ignore[return-value]

    result = run(Chunked(cut(values, sizes)).via(StatefulMap(5, failing)).to(Collect()), on_error=Skip())
    assert result == modelled([x for x in values if x % 3])


def remember(seen: set[int], x: int) -> tuple[set[int], bool]:
    is_new = x not in seen
    seen.add(x)
    return seen, is_new


def test_a_mutable_state_is_made_for_each_key_and_may_change_in_place() -> None:
    keyed: Any = Keyed(lambda x: x % 2, StatefulMap(set[int], remember))
    assert run(Source([1, 2, 1, 2, 3]).via(keyed).to(Collect())) == [
        KeyedValue(1, True),
        KeyedValue(0, True),
        KeyedValue(1, False),
        KeyedValue(0, False),
        KeyedValue(1, True),
    ]


@pytest.mark.parametrize("is_keyed", [False, True])
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 5), min_size=4, max_size=10), gap=st.sampled_from([0.3, 0.55, 1.25]))
def test_a_restart_goes_on_with_the_state(is_keyed: bool, cuts: list[int], gap: float) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        chunks = cut([x * 7 % 10 for x in range(24)], cuts)
        source = Chunked(chunks, times=[gap * number for number in range(len(chunks))])
        sink = Recorder()
        flow: Any = StatefulMap(set, remember)
        return source.via(Keyed(lambda x: x % 2, flow) if is_keyed else flow).to(sink), sink, source

    restarts(build)


def test_a_state_that_is_not_what_the_initial_value_is_has_its_type_given() -> None:
    def both(last: Any, x: int) -> tuple[Any, int]:
        return (x, x), x

    store = MemoryStore()
    checkpoint = Checkpoint(every=timedelta(seconds=1), store=store)
    source = Chunked([[1], [2], [3]], times=[0, 2, 4])
    with pytest.raises(StateError, match="state="):
        run(source.via(StatefulMap(None, both)).to(Discard()), checkpoint=checkpoint)
    run(source.via(StatefulMap(None, both, state=tuple[int, int])).to(Discard()), checkpoint=checkpoint)
    assert len(store.history) > 2


def test_messages_are_acknowledged_and_the_state_needs_a_checkpoint() -> None:
    source = Acknowledging(9, [4, 2])
    pipeline = source.via(StatefulMap(0, lambda n, x: (n + 1, x))).to(Confirming(source))
    with pytest.raises(GuaranteeError, match="step 'StatefulMap'"):
        run(pipeline)
    assert run(pipeline, delivery="best_effort") == list(range(9))
    source.ledger.check()


@pytest.mark.parametrize("f", [None, 3, "f"])
def test_what_is_no_function_is_refused(f: Any) -> None:
    with pytest.raises(ConfigurationError, match="StatefulMap takes a function, not"):
        StatefulMap(0, f)


def test_a_coroutine_function_and_a_policy_class_are_refused() -> None:
    async def f(state: int, x: int) -> tuple[int, int]:
        return state, x

    wrong: Any = f
    with pytest.raises(ConfigurationError, match="StatefulMap takes a plain function"):
        StatefulMap(0, wrong)
    policy: Any = Skip
    with pytest.raises(ConfigurationError, match="StatefulMap: on_error must be a policy"):
        StatefulMap(0, step, on_error=policy)
