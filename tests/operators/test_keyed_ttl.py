"""`Keyed` with ``ttl``: a key that no element came for in so long begins anew, and costs nothing meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError
from streamflow.connectors import Collect, Discard
from streamflow.engine.stateful import StatefulStep
from streamflow.operators import (
    Batch,
    Count,
    Deduplicate,
    Filter,
    Fold,
    Keyed,
    Reduce,
    Take,
    Throttle,
    Timeout,
    TumblingWindow,
)
from streamflow.testing import VirtualClock
from tests.arrivals import arriving, gaps, times_of
from tests.support import Chunked, Recorder, chain, restarts, run, sizes, virtual

AFFECTED: dict[str, Any] = {
    "Fold": Fold(0, lambda n, x: n + 1),
    "Reduce": Reduce(max),
    "Take": Take(2),
    "Deduplicate": Deduplicate(lambda x: x % 2),
    "Deduplicate within": Deduplicate(lambda x: x % 2, 2),
    "two": chain(Take(3), Fold(0, lambda n, x: n + 1)),
}

UNAFFECTED: dict[str, Any] = {
    "Batch": Batch(2),
    "TumblingWindow": TumblingWindow(timedelta(seconds=5), into=Count()),
    "Throttle": Throttle(1, per=2),
    "Throttle discard": Throttle(1, per=2, mode="discard"),
    "Throttle burst": Throttle(1, per=2, mode="discard", burst=2),
}


def sessions(times: list[float], keys: list[str], ttl: float) -> list[Any]:
    """For each element a key that is another one after each time of idleness."""
    last: dict[str, float] = {}
    number: dict[str, int] = {}
    out = []
    for key, time in zip(keys, times, strict=False):
        if key in last and last[key] + ttl <= time:
            number[key] = number.get(key, 0) + 1
        last[key] = time
        out.append((key, number.get(key, 0)))
    return out


def keys_of(number: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from("abc"), min_size=number, max_size=number)


@pytest.mark.parametrize("name", AFFECTED)
@given(gaps=gaps, cuts=sizes, keys=keys_of(30), ttl=st.sampled_from([0.3, 0.5, 1.0, 1.7]))
def test_a_forgotten_key_begins_anew(
    name: str, gaps: list[float], cuts: list[int], keys: list[str], ttl: float
) -> None:
    times = times_of(gaps)
    names = sessions(times, keys, ttl)
    keyed: Any = Keyed(lambda x: keys[x], AFFECTED[name], ttl=ttl)
    result = run(arriving(times, cuts).via(keyed).to(Collect()))
    never: Any = Keyed(lambda x: names[x], AFFECTED[name])
    expected = run(arriving(times, cuts).via(never).to(Collect()))
    if name == "two":
        # The second step goes by what comes to it: it may forget a key that the first remembers.
        assert [k for k, _ in result] == [k for (k, _), _ in expected]
    else:
        assert result == [(key, value) for (key, _), value in expected]


@pytest.mark.parametrize("name", UNAFFECTED)
@given(gaps=gaps, cuts=sizes, keys=keys_of(30))
def test_what_holds_or_bounds_is_not_affected(
    name: str, gaps: list[float], cuts: list[int], keys: list[str]
) -> None:
    times = times_of(gaps)
    results = [
        run(
            arriving(times, cuts)
            .via(Keyed[Any, Any, Any](lambda x: keys[x], UNAFFECTED[name], ttl=ttl))
            .to(Collect())
        )
        for ttl in (None, 0.1)
    ]
    assert results[0] == results[1]


def test_each_step_goes_by_the_elements_that_come_to_it() -> None:
    flow = chain(Filter(lambda x: x % 10), Fold(0, lambda n, x: n + 1))
    keyed: Any = Keyed(lambda x: "k", flow, ttl=2)
    source = arriving([0, 1, 2, 3, 4, 5], values=[1, 10, 2, 3, 10, 5])
    assert [count for _, count in run(source.via(keyed).to(Collect()))] == [1, 1, 2, 1]


@pytest.mark.parametrize("name", [*AFFECTED, "Timeout"])
def test_keys_are_forgotten_without_further_input(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[Any] = []
    start = StatefulStep.start

    def noting(self: StatefulStep) -> Any:
        tables.append(self.table)
        return start(self)

    monkeypatch.setattr(StatefulStep, "start", noting)
    keyed: Any = Keyed(lambda x: x, {**AFFECTED, "Timeout": Timeout(9)}[name], ttl=3.3)
    source = Chunked([list(range(100)), list(range(100, 150))], ends=False)

    async def work() -> None:
        async with source.via(keyed).to(Discard()).start(clock=VirtualClock()):
            await asyncio.sleep(1)
            assert all(len(table.space()) == 150 for table in tables)
            await asyncio.sleep(3)
            for table in tables:
                assert not any(table.spaces.values())
                assert table.timers.next() is None
                assert table.first_seen() is None

    virtual(work())
    assert tables


@given(st.floats(0.001, 1e9), st.floats(0.001, 1e6))
def test_a_timer_of_any_length_finds_its_key_idle(start: float, ttl: float) -> None:
    keyed: Any = Keyed(lambda x: x, Fold(0, lambda n, x: n + 1), ttl=ttl)
    source = arriving([start, start + 2 * ttl + 1], values=[1, 1])
    assert run(source.via(keyed).to(Collect()), start=start) == [(1, 1), (1, 1)]


@pytest.mark.parametrize("name", AFFECTED)
@settings(max_examples=15)
@given(gaps=gaps, cuts=sizes, keys=keys_of(30), ttl=st.sampled_from([0.5, 1.7]))
def test_a_restart_forgets_when_it_would_have(
    name: str, gaps: list[float], cuts: list[int], keys: list[str], ttl: float
) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        source, sink = arriving(times_of(gaps), cuts), Recorder()
        keyed: Any = Keyed(lambda x: keys[x], AFFECTED[name], ttl=ttl)
        return source.via(keyed).to(sink), sink, source

    restarts(build)


@pytest.mark.parametrize("ttl", [0, -1, "1", float("nan")])
def test_a_ttl_is_positive(ttl: Any) -> None:
    with pytest.raises(ConfigurationError, match="Keyed's ttl must be"):
        Keyed(lambda x: x, Fold(0, lambda n, x: n), ttl=ttl)
