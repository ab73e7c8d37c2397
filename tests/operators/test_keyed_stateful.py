"""Every operator that remembers, inside `Keyed`: each key gets what its elements alone would give, and when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import EventTime, Skip
from streamflow.clock import Handle
from streamflow.operators import (
    Batch,
    Count,
    CountWindow,
    Debounce,
    Deduplicate,
    Delay,
    DropWhile,
    Filter,
    Fold,
    Keyed,
    Map,
    Reduce,
    Sample,
    SessionWindow,
    SlidingWindow,
    StatefulMap,
    Sum,
    Take,
    TakeWhile,
    Throttle,
    Timeout,
    TumblingWindow,
)
from streamflow.operators import Skip as SkipFirst
from streamflow.testing import VirtualClock
from tests.arrivals import arriving, gaps, timed, times_of
from tests.support import Chunked, Recorder, chain, restarts, sizes, virtual

Element = tuple[str, int]
"""A key and a number that grows along the stream."""

event_time: Any = EventTime(lambda x: x / 4, max_ahead=None)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def has_key(key: str, element: Element) -> bool:
    return element[0] == key


OPERATORS: dict[str, Any] = {
    "StatefulMap": StatefulMap(0, lambda total, x: (total + x, total)),
    "TakeWhile": TakeWhile(lambda x: x % 7 != 6),
    "DropWhile": DropWhile(lambda x: x % 7 != 6),
    "SessionWindow": SessionWindow(seconds(0.7), into=Count()),
    "CountWindow": CountWindow(4, 2, into=Sum()),
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
    "TumblingWindow": TumblingWindow(seconds(1.3), into=Count()),
    "SlidingWindow": SlidingWindow(seconds(2.6), seconds(1.3), into=Sum()),
    "a chain": chain(Deduplicate(lambda x: x % 5, 2), Sample(1.3), Fold(0, lambda n, x: n + 1), Delay(0.4)),
}

# A key that waits makes the others wait as well, and they have one watermark: the same values, at other times.
SAME_VALUES: dict[str, Any] = {
    "Throttle": Throttle(2, per=1.1),
    "Throttle, evenly": Throttle(2, per=1.1, burst=1),
    "Delay of few": Delay(1.3, hold=2),
    "TumblingWindow by event time": TumblingWindow(seconds(2), time=event_time, into=Count()),
    "SlidingWindow by event time": SlidingWindow(seconds(4), seconds(2), time=event_time, into=Sum()),
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
        only: Any = Filter(partial(has_key, key))
        alone = timed(arriving(times, cuts, list(elements)), only.via(flow), on_error=Skip())
        mine = [(time, value) for time, (k, value) in result if k == key]
        if name in SAME_VALUES:
            assert [value for _, value in mine] == [value for _, value in alone]
        else:
            assert mine == alone


class Lagging(VirtualClock):
    """A loop that is busy: timers come a while after their time."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        return super().call_later(delay + 0.3, callback)


NOT_BY_COUNT = [name for name in OPERATORS if name not in ("Batch within", "TumblingWindow", "a chain")]


@pytest.mark.parametrize("name", NOT_BY_COUNT)
@settings(max_examples=25)
@given(gaps=gaps, cuts=sizes, ttl=st.sampled_from([None, 0.4]))
def test_timers_that_come_late_change_no_value(
    name: str, gaps: list[float], cuts: list[int], ttl: float | None
) -> None:
    keyed: Any = Keyed(lambda x: x % 3, OPERATORS[name], ttl=ttl)
    runs = []
    for clock in (VirtualClock(), Lagging()):
        sink = Recorder()
        pipeline = arriving(times_of(gaps), cuts).via(keyed).to(sink)
        virtual(pipeline.run(clock=clock, on_error=Skip()))
        runs.append(sorted(sink.values, key=lambda pair: pair[0]))
    assert runs[0] == runs[1]


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
