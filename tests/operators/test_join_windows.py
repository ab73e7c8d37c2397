"""`join` within a window: the pairs of a nested loop over the elements that are in one window."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError, EventTime, Pipeline, Skip, Source, StepError
from streamflow.connectors import Collect
from streamflow.operators import Count, Filter, SlidingWindow, TumblingWindow, join, merge
from tests.operators.test_join import HOWS, arrivals, at, hows, key, ordered, streams
from tests.support import Acknowledging, Chunked, Recorder, restarts, run

TIME = EventTime[Any](at, out_of_order=30, max_ahead=None)


def modelled(arrivals: list[tuple[int, int, int]], size: int, every: int, how: str) -> list[Any]:
    events = [(number, key, float(time)) for number, (_, key, time) in enumerate(arrivals)]
    out: list[Any] = []
    for start in range(-size, 40, every):
        for group in range(3):
            sides = [
                [
                    e
                    for e in events
                    if arrivals[e[0]][0] == side and e[1] == group and start <= e[2] < start + size
                ]
                for side in (0, 1)
            ]
            out += [(left, right) for left in sides[0] for right in sides[1]]
            if not sides[1] and how in ("left", "outer"):
                out += [(left, None) for left in sides[0]]
            if not sides[0] and how in ("right", "outer"):
                out += [(None, right) for right in sides[1]]
    return out


@settings(max_examples=60)
@given(arrivals, hows, st.booleans(), st.booleans())
def test_pairs_are_those_of_the_model(
    arrivals: list[tuple[int, int, int]], how: Any, chunked: bool, sliding: bool
) -> None:
    window: Any = (
        SlidingWindow(timedelta(seconds=6), timedelta(seconds=2), time=TIME)
        if sliding
        else TumblingWindow(timedelta(seconds=4), time=TIME)
    )
    left, right = streams(arrivals, chunked=chunked)
    pipeline: Any = join(left, right, (key, key), window, how).to(Collect())
    size, every = (6, 2) if sliding else (4, 4)
    for _ in range(2):
        assert ordered(run(pipeline)) == ordered(modelled(arrivals, size, every, how))


@settings(max_examples=30)
@given(arrivals, hows)
def test_a_restart_from_any_checkpoint_goes_on(arrivals: list[tuple[int, int, int]], how: Any) -> None:
    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        clock, sink = Chunked([["tick"]], "clock", times=[9.7]), Recorder()
        window = TumblingWindow(timedelta(seconds=4), time=EventTime(at, out_of_order=4, max_ahead=None))
        joined: Any = join(*streams(arrivals), (key, key), window, how, state=tuple[int, int, float])
        return merge(joined, clock.via(Filter(lambda _: False))).to(sink), sink, clock

    assert restarts(build, order=ordered) >= 9


@pytest.mark.parametrize("how", HOWS)
def test_by_the_clock(how: Any) -> None:
    left, right = (
        Chunked([["a"], ["b"]], "left", times=[1, 12]),
        Chunked([["a"], ["a"]], "right", times=[9, 11]),
    )
    result = run(join(left, right, (str, str), TumblingWindow(timedelta(seconds=10)), how).to(Collect()))
    expected: list[Any] = [("a", "a")]
    expected += [("b", None)] if how in ("left", "outer") else []
    expected += [(None, "a")] if how in ("right", "outer") else []
    assert ordered(result) == ordered(expected)


def test_what_is_late_reaches_its_sink_as_it_was() -> None:
    source = Acknowledging(4, [1])
    late: list[Any] = []

    class Late(Collect[Any]):
        def flows(self) -> Any:
            from streamflow.operators import Inspect

            return (Inspect(late.append),)

    window = TumblingWindow(timedelta(seconds=10), time=EventTime(lambda x: 100 - 30 * x), late=Late())
    joined = join(source, Source[int]([]), (bool, bool), window, "left")
    result = run(joined.to(Collect()), delivery="best_effort")
    assert late == [1, 2, 3]
    assert result == [(0, None)]
    assert sorted(source.ledger.acked) == [0, 1, 2, 3]


def test_failures_go_to_the_policy() -> None:
    left: Any = Source([(0, 1, 5.0), (1, [], 1.0), (2, 1, None)])
    window = TumblingWindow(timedelta(seconds=10), time=EventTime(at))
    joined = join(left, Source([(9, 1, 7.0)]), (key, key), window, name="payments")
    with pytest.raises(StepError, match="step 'payments/TumblingWindow'"):
        run(joined.to(Collect()))
    assert run(joined.to(Collect()), on_error=Skip()) == [((0, 1, 5.0), (9, 1, 7.0))]


@pytest.mark.parametrize(
    ("window", "options", "says"),
    [
        ({}, {"time": TIME}, r"give time= and late= to the window"),
        ({}, {"late": Collect()}, r"give time= and late= to the window"),
        ({"into": Count()}, {}, "leave out into="),
        ({"time": TIME, "lateness": 3}, {}, "must be emitted once"),
        ({"emit": "update"}, {}, "must be emitted once"),
    ],
)
def test_mistakes(window: Any, options: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        join(Source([1]), Source([1]), (key, key), TumblingWindow(timedelta(1), **window), **options)
