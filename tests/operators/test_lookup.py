"""`Lookup` in mappings: the model is a dict; what happens to a missing key; tables that live for a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import (
    ConfigurationError,
    ConnectorError,
    Fail,
    KeyedValue,
    MissingKeyError,
    Skip,
    Source,
    StepError,
)
from streamflow.connectors import Collect
from streamflow.engine.connector import Table, WorkContext
from streamflow.engine.plan import make_plan
from streamflow.engine.promises import check
from streamflow.operators import Filter, Inspect, Keyed, Lookup, Map
from tests.support import Acknowledging, Chunked, Confirming, Recorder, chain, cut, restarts, run, sizes

keys = st.integers(0, 5)


# Mappings


@given(st.lists(keys), sizes, st.dictionaries(keys, st.text()), st.booleans())
def test_each_is_joined_with_its_entry_and_a_missing_key_is_left_to_the_policy(
    values: list[int], sizes: list[int], table: dict[int, str], fused: bool
) -> None:
    flow: Any = Lookup(table, lambda x: x, on_error=Skip())
    if fused:
        flow = chain(Map(lambda x: x), Filter(lambda x: True), flow)
    result = run(Chunked(cut(values, sizes)).via(flow).to(Collect()))
    assert result == [(x, table[x]) for x in values if x in table]


@given(st.lists(keys), sizes, st.dictionaries(keys, st.text()), st.none() | st.text())
def test_a_missing_key_takes_the_default(
    values: list[int], sizes: list[int], table: dict[int, str], default: str | None
) -> None:
    lookup: Any = Lookup(table, lambda x: x, default)
    result = run(Chunked(cut(values, sizes)).via(lookup).to(Collect()))
    assert result == [(x, table.get(x, default)) for x in values]


@given(st.lists(keys), sizes, st.dictionaries(keys, st.text()))
def test_inside_keyed_all_keys_share_the_table(
    values: list[int], sizes: list[int], table: dict[int, str]
) -> None:
    keyed: Any = Keyed(lambda x: x % 2, Lookup(table, lambda x: x))
    result = run(Chunked(cut(values, sizes)).via(keyed).to(Collect()), on_error=Skip())
    assert result == [KeyedValue(x % 2, (x, table[x])) for x in values if x in table]


@given(st.lists(keys), sizes)
def test_a_mapping_that_changes_is_seen_from_the_next_element_on(values: list[int], sizes: list[int]) -> None:
    table: dict[int, int] = {}

    def count(x: int) -> None:
        table[x] = table.get(x, 0) + 1

    expected, seen = [], dict[int, int]()
    for x in values:
        seen[x] = seen.get(x, 0) + 1
        expected.append((x, seen[x]))
    counted: Any = chain(Inspect(count), Lookup(table, lambda x: x))
    assert run(Chunked(cut(values, sizes)).via(counted).to(Collect())) == expected


def test_a_missing_key_is_named() -> None:
    with pytest.raises(
        StepError, match=r"step 'Lookup': failed on 'b2': MissingKeyError: .* no entry for 'b'$"
    ):
        run(Source(["a1", "b2"]).via(Lookup({"a": 1}, lambda x: x[0])).to(Collect()))
    with pytest.raises(KeyError, match=r"^the table has no entry for 'b'$"):
        raise MissingKeyError("b")


def test_what_came_before_a_missing_key_is_delivered() -> None:
    sink = Recorder()
    with pytest.raises(StepError, match="no entry for 3"):
        run(Source([1, 2, 3, 1]).via(Lookup({1: "a", 2: "b"}, lambda x: x)).to(sink), on_error=Fail())
    assert sink.values == [(1, "a"), (2, "b")]


def test_a_message_whose_key_is_missing_is_acknowledged_as_dropped() -> None:
    source = Acknowledging(6, [4])
    lookup: Any = Lookup({1: 0, 4: 0}, lambda x: x)
    assert run(source.via(lookup).to(Confirming(source)), on_error=Skip()) == [(1, 0), (4, 0)]
    source.ledger.check(deliver=[1, 4])
    assert sorted(source.ledger.acked) == list(range(6))


def test_an_error_of_the_key_function_is_not_a_missing_entry() -> None:
    lookup: Any = Lookup({1: 1}, lambda x: {}[x], default=0)
    with pytest.raises(StepError, match=r"failed on 1: KeyError: 1"):
        run(Source([1]).via(lookup).to(Collect()))


def test_an_unhashable_key_goes_to_the_policy_even_with_a_default() -> None:
    table: dict[Any, int] = {1: 1}
    lookup: Any = Lookup(table, lambda x: x, default=0)
    with pytest.raises(StepError, match=r"failed on \[1\]: TypeError: unhashable"):
        run(Source([[1]]).via(lookup).to(Collect()))


class Squares:
    """Asked by key, and nothing else."""

    def __getitem__(self, key: int, /) -> int:
        if key > 3:
            raise KeyError(key)
        return key * key


@pytest.mark.parametrize("table", [Squares(), [0, 1, 4, 9]], ids=["object", "list"])
def test_whatever_can_be_asked_by_key_is_a_table(table: Any) -> None:
    lookup: Any = Lookup(table, lambda x: x, default=None)
    assert run(Source([2, 3, 4]).via(lookup).to(Collect())) == [(2, 4), (3, 9), (4, None)]


def test_a_second_run_and_a_restart_ask_the_table_of_that_time() -> None:
    table = {0: "a", 1: "b"}
    pipeline = Source([0, 1]).via(Lookup(table, lambda x: x)).to(Collect())
    assert run(pipeline) == [(0, "a"), (1, "b")]
    table[0] = "c"
    assert run(pipeline) == [(0, "c"), (1, "b")]

    def build() -> Any:
        source, sink = Chunked([[0], [1], [0]], times=[0.5, 1.5, 2.5]), Recorder()
        return source.via(Lookup(table, lambda x: x)).to(sink), sink, source

    assert restarts(build) > 1


@pytest.mark.parametrize(
    ("table", "key"),
    [(None, len), (3, len), ("ab", len), (dict, len), ({"a"}, len), ({}, "a"), ({}, None)],
    ids=repr,
)
def test_what_cannot_be_asked_is_refused(table: Any, key: Any) -> None:
    with pytest.raises(ConfigurationError, match="Lookup"):
        Lookup(table, key)
    with pytest.raises(ConfigurationError, match="Lookup: on_error"):
        Lookup({}, len, on_error=Skip)  # type: ignore[call-overload]


def test_outputs_behind_a_table_that_changes_have_no_stable_ids() -> None:
    def stable(*flows: Any) -> bool:
        plan = make_plan(
            Acknowledging(1).via(chain(*flows)).to(Collect()), delivery="at_least_once", checkpoint=None
        )
        check(plan)
        return plan.sinks[0].stable

    same: Any = Map(lambda x: x)
    assert stable(same)
    assert not stable(same, Lookup({}, lambda x: x), same)


# Tables that live for a run


class Opened(Table[int, int]):
    """Counts who has opened and closed it; the uses in one run share it."""

    def __init__(self, entries: Mapping[int, int], error: Exception | None = None) -> None:
        self.entries = entries
        self.error = error
        self.events: list[str] = []

    async def open(self, context: WorkContext) -> Mapping[int, int]:
        return await context.run.resources.get(("opened", id(self)), self._open, self._close)

    async def _open(self) -> Mapping[int, int]:
        if self.error is not None:
            raise self.error
        self.events.append("open")
        return self.entries

    async def _close(self, entries: Mapping[int, int]) -> None:
        self.events.append("close")


def test_a_table_is_opened_once_for_each_run_and_closed_after_it() -> None:
    table = Opened({1: 10, 2: 20})
    lookup = Lookup(table, lambda x: x)
    seen: Any = Inspect(lambda x: table.events.append(f"saw {x}"))
    again: Any = Lookup(table, lambda pair: pair[0], default=0)
    pipeline = Source([1, 2]).via(chain(seen, lookup, again)).to(Collect())
    assert table.events == []
    for _ in range(2):
        table.events.clear()
        assert run(pipeline) == [((1, 10), 10), ((2, 20), 20)]
        assert table.events == ["open", "saw 1", "saw 2", "close"]


def test_a_table_inside_keyed_with_a_policy_of_its_own() -> None:
    table = Opened({1: 10})
    keyed: Any = Keyed(lambda x: x, chain(Map(lambda x: x), Lookup(table, lambda x: x, on_error=Skip())))
    assert run(Source([1, 2]).via(keyed).to(Collect())) == [(1, (1, 10))]


@pytest.mark.parametrize("error", [OSError("no such table"), ConnectorError("no such table")])
def test_a_table_that_does_not_open_fails_the_run_with_its_place(error: Exception) -> None:
    table = Opened({}, error)
    pipeline = Source([1]).via(Lookup(table, lambda x: x), name="names").to(Collect(), name="p")
    with pytest.raises(ConnectorError, match=r"^pipeline 'p', step 'names': .*no such table"):
        run(pipeline)


def test_a_table_is_closed_when_the_run_fails() -> None:
    table = Opened({1: 10})
    with pytest.raises(StepError, match="no entry for 2"):
        run(Source([1, 2]).via(Lookup(table, lambda x: x)).to(Collect()))
    assert table.events == ["open", "close"]
