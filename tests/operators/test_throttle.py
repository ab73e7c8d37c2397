"""`Throttle`: a bound that holds for every interval, exactly as a sliding log says."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamflow.connectors import Collect
from streamflow.operators import Keyed, Throttle
from tests.support import Chunked, run, stamped

gaps = st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 3.0]), max_size=30)


def arrived(gaps: list[float]) -> tuple[Chunked, list[float]]:
    """One element at each time; those at the same time in one chunk."""
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    distinct = sorted(set(times))
    chunks = [[n for n, time in enumerate(times) if time == at] for at in distinct]
    return Chunked(chunks, times=distinct), times


def rounded(seen: list[tuple[float, Any]]) -> list[tuple[float, Any]]:
    return [(round(time, 3), value) for time, value in seen]


@given(gaps, st.integers(1, 4), st.sampled_from([0.5, 1.0, 2.0]))
def test_backpressure_lets_each_pass_as_soon_as_the_bound_allows(
    gaps: list[float], most: int, per: float
) -> None:
    source, times = arrived(gaps)
    passed: list[float] = []
    for time in times:
        passed.append(max([time, *passed[-1:], *([passed[-most] + per] if len(passed) >= most else [])]))
    seen: list[tuple[float, Any]] = []
    run(source.via(Throttle(most, per=per)).via(stamped(seen)).to(Collect()))
    assert rounded(seen) == rounded(list(zip(passed, range(len(times)), strict=True)))


@given(gaps, st.integers(1, 4), st.sampled_from([0.5, 1.0, 2.0]))
def test_discard_drops_what_is_over_the_bound(gaps: list[float], most: int, per: float) -> None:
    source, times = arrived(gaps)
    passed: list[tuple[float, Any]] = []
    for number, time in enumerate(times):
        if len([1 for other, _ in passed if other > time - per]) < most:
            passed.append((time, number))
    seen: list[tuple[float, Any]] = []
    run(source.via(Throttle(most, per=per, mode="discard")).via(stamped(seen)).to(Collect()))
    assert rounded(seen) == rounded(passed)


@given(gaps)
def test_each_key_has_a_bound_of_its_own(gaps: list[float]) -> None:
    source, times = arrived(gaps)
    keyed: Any = Keyed(lambda x: x % 3, Throttle(1, per=1, mode="discard"))
    passed: dict[int, list[float]] = {}
    expected = []
    for number, time in enumerate(times):
        mine = passed.setdefault(number % 3, [])
        if not mine or mine[-1] <= time - 1:
            mine.append(time)
            expected.append((number % 3, number))
    assert run(source.via(keyed).to(Collect())) == expected
