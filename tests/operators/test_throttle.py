"""`Throttle`: a bound that holds for every interval, or a bucket of tokens, exactly as plain models say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError
from streamflow.connectors import Collect
from streamflow.operators import Keyed, Throttle
from streamflow.operators.throttle import _Throttling
from tests.arrivals import arriving, gaps, rounded, timed, times_of
from tests.support import Acknowledging, Chunked, Confirming, Recorder, restarts, run, sizes

modes = st.sampled_from(["backpressure", "discard"])


def logged(times: list[float], most: int, per: float) -> list[float]:
    passed: list[float] = []
    for time in times:
        passed.append(max([time, *passed[-1:], *([passed[-most] + per] if len(passed) >= most else [])]))
    return passed


def bucket(
    times: list[float], most: int, per: float, burst: int, *, discard: bool
) -> list[tuple[float, int]]:
    """Tokens counted one by one."""
    tokens, at = float(burst), 0.0
    passed: list[tuple[float, int]] = []
    for number, time in enumerate(times):
        now = max(time, at)
        tokens = min(burst, tokens + (now - at) * most / per)
        at = now
        if tokens < 1 - 1e-9:
            if discard:
                continue
            at += (1 - tokens) * per / most
            tokens = 1.0
        tokens -= 1
        passed.append((at, number))
    return passed


@given(gaps, sizes, st.integers(1, 4), st.sampled_from([0.5, 1.0, 2.0]))
def test_backpressure_lets_each_pass_as_soon_as_the_bound_allows(
    gaps: list[float], cuts: list[int], most: int, per: float
) -> None:
    times = times_of(gaps)
    expected = list(zip(logged(times, most, per), range(len(times)), strict=True))
    assert timed(arriving(times, cuts), Throttle(most, per=per)) == rounded(expected)


@given(gaps, sizes, st.integers(1, 4), st.sampled_from([0.5, 1.0, 2.0]))
def test_discard_drops_what_is_over_the_bound(
    gaps: list[float], cuts: list[int], most: int, per: float
) -> None:
    times = times_of(gaps)
    passed: list[tuple[float, int]] = []
    for number, time in enumerate(times):
        if len([1 for other, _ in passed if other > time - per]) < most:
            passed.append((time, number))
    throttle: Throttle[int] = Throttle(most, per=per, mode="discard")
    assert timed(arriving(times, cuts), throttle) == rounded(passed)


@given(gaps, sizes, st.integers(1, 4), st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 5), modes)
def test_with_a_burst_tokens_come_evenly(
    gaps: list[float], cuts: list[int], most: int, per: float, burst: int, mode: Any
) -> None:
    times = times_of(gaps)
    throttle: Throttle[int] = Throttle(most, per=per, mode=mode, burst=burst)
    expected = bucket(times, most, per, burst, discard=mode == "discard")
    assert timed(arriving(times, cuts), throttle) == rounded(expected)


def test_a_burst_of_one_spaces_elements_evenly() -> None:
    throttle: Throttle[int] = Throttle(4, per=1, burst=1)
    assert timed(arriving([0.0] * 4), throttle) == [(0.0, 0), (0.25, 1), (0.5, 2), (0.75, 3)]


@given(gaps)
def test_each_key_has_a_bound_of_its_own(gaps: list[float]) -> None:
    times = times_of(gaps)
    keyed: Any = Keyed(lambda x: x % 3, Throttle(1, per=1, mode="discard"))
    passed: dict[int, list[float]] = {}
    expected = []
    for number, time in enumerate(times):
        mine = passed.setdefault(number % 3, [])
        if not mine or mine[-1] <= time - 1:
            mine.append(time)
            expected.append((number % 3, number))
    assert run(arriving(times).via(keyed).to(Collect())) == expected


@pytest.mark.parametrize("burst", [None, 2])
@settings(max_examples=15)
@given(gaps=gaps, cuts=sizes, mode=modes)
def test_a_restart_goes_on_with_the_same_bound(
    burst: int | None, gaps: list[float], cuts: list[int], mode: Any
) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        source, sink = arriving(times_of(gaps), cuts), Recorder()
        return source.via(Throttle(2, per=3, mode=mode, burst=burst, state=int)).to(sink), sink, source

    restarts(build)


@pytest.mark.parametrize("burst", [None, 3])
@pytest.mark.parametrize("mode", ["backpressure", "discard"])
def test_keys_are_forgotten_when_nothing_depends_on_them_any_more(
    burst: int | None, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[int] = []
    on_timer = _Throttling.on_timer

    def noting(self: Any, scope: Any, key: Any) -> Any:
        yield from on_timer(self, scope, key)
        known.append(len(scope.table.space()))

    monkeypatch.setattr(_Throttling, "on_timer", noting)
    keyed: Any = Keyed(lambda x: x % 50, Throttle(1, per=1, mode=mode, burst=burst), ttl=0.1)
    source = arriving([0.0] * 100 + [9.0], values=[*range(100), 0])
    result = run(source.via(keyed).to(Collect()))
    assert len(result) == (51 if mode == "discard" and burst is None else 101)
    assert 0 in known


def test_what_waits_is_taken_in_constant_time() -> None:
    count = 60_000
    throttle: Throttle[int] = Throttle(1_000_000, per=1, burst=1)
    sizes = [1000] * (count // 1000)
    source = Acknowledging(count, sizes)
    assert run(source.via(throttle).to(Confirming(source))) == list(range(count))
    source.ledger.check()


@pytest.mark.parametrize("burst", [0, -1, 1.5, True])
def test_a_burst_is_a_positive_number(burst: Any) -> None:
    with pytest.raises(ConfigurationError, match="Throttle's burst must be"):
        Throttle(1, per=1, burst=burst)
