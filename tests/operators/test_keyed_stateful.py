"""Every operator that remembers, inside `Keyed`: each key gets what its elements alone would give, and when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import EventTime, Skip
from streamflow.operators import (
    Batch,
    Count,
    Debounce,
    Deduplicate,
    Delay,
    Filter,
    Fold,
    Keyed,
    Map,
    Reduce,
    Sample,
    SlidingWindow,
    Sum,
    Take,
    Throttle,
    Timeout,
    TumblingWindow,
)
from streamflow.operators import Skip as SkipFirst
from tests.arrivals import arriving, gaps, timed, times_of
from tests.support import Chunked, Recorder, chain, restarts, sizes

Element = tuple[str, int]
"""A key and a number that grows along the stream."""

event_time: Any = EventTime(lambda x: x / 4, max_ahead=None)

OPERATORS: dict[str, Any] = {
    "Fold": Fold(0, lambda total, x: total + x),
    "Reduce": Reduce(max),
    "Take": Take(3),
    "Skip": SkipFirst(2),
    "Batch": Batch(3),
    "Batch within": Batch(3, within=0.9),
    "Throttle discard": Throttle(2, per=1.1, mode="discard"),
    "Throttle burst": Throttle(2, per=1.1, mode="discard", burst=1),
    "Debounce": Debounce(0.6),
    "Sample": Sample(1.3),
    "Delay": Delay(1.3),
    "Timeout": Timeout(1.3),
    "Deduplicate": Deduplicate(lambda x: x % 3),
    "Deduplicate within": Deduplicate(lambda x: x % 3, 1.1),
    "TumblingWindow": TumblingWindow(1.3, into=Count()),  # type: ignore[arg-type]
    "SlidingWindow": SlidingWindow(2.6, 1.3, into=Sum()),  # type: ignore[arg-type]
    "a chain": chain(Deduplicate(lambda x: x % 5, 2), Sample(1.3), Fold(0, lambda n, x: n + 1), Delay(0.4)),
}

# A key that waits makes the others wait as well, and they have one watermark: the same values, at other times.
SAME_VALUES: dict[str, Any] = {
    "Throttle": Throttle(2, per=1.1),
    "Throttle, evenly": Throttle(2, per=1.1, burst=1),
    "Delay of few": Delay(1.3, hold=2),
    "TumblingWindow by event time": TumblingWindow(2, time=event_time, into=Count()),  # type: ignore[arg-type]
    "SlidingWindow by event time": SlidingWindow(4, 2, time=event_time, into=Sum()),  # type: ignore[arg-type]
    "Deduplicate by event time": Deduplicate(lambda x: x % 3, 2, time=event_time),
}


@pytest.mark.parametrize("name", [*OPERATORS, *SAME_VALUES])
@settings(max_examples=25)
@given(gaps=gaps, cuts=sizes, keys=st.lists(st.sampled_from("abc"), min_size=30, max_size=30))
def test_each_key_gets_what_its_elements_alone_give(
    name: str, gaps: list[float], cuts: list[int], keys: list[str]
) -> None:
    times = times_of(gaps)
    elements: list[Element] = list(zip(keys, range(len(times)), strict=False))
    operator = {**OPERATORS, **SAME_VALUES}[name]
    flow = chain(Map(lambda element: element[1]), operator)
    keyed: Any = Keyed(lambda element: element[0], flow)
    result = timed(arriving(times, cuts, list(elements)), keyed, on_error=Skip())
    for key in "abc":
        only: Any = Filter(lambda element, key=key: element[0] == key)
        alone = timed(arriving(times, cuts, list(elements)), only.via(flow), on_error=Skip())
        mine = [(time, value) for time, (k, value) in result if k == key]
        if name in SAME_VALUES:
            assert [value for _, value in mine] == [value for _, value in alone]
        else:
            assert mine == alone


@pytest.mark.parametrize("name", [*OPERATORS, *SAME_VALUES])
@settings(max_examples=5)
@given(gaps=gaps, cuts=sizes, keys=st.lists(st.sampled_from("abc"), min_size=30, max_size=30))
def test_a_restart_from_each_checkpoint_goes_on_exactly(
    name: str, gaps: list[float], cuts: list[int], keys: list[str]
) -> None:
    times = times_of(gaps)
    elements: list[Element] = list(zip(keys, range(len(times)), strict=False))
    flow = chain(Map(lambda element: element[1]), {**OPERATORS, **SAME_VALUES}[name])

    def build() -> tuple[Any, Recorder, Chunked]:
        source, sink = arriving(times, cuts, list(elements)), Recorder()
        keyed: Any = Keyed(lambda element: element[0], flow)
        return source.via(keyed).to(sink), sink, source

    restarts(build, order=lambda results: sorted(results, key=lambda pair: pair[0]), on_error=Skip())
