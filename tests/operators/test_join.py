"""`join` within a time span: the pairs of a nested loop, what is late or alone by the watermark, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import (
    ConfigurationError,
    EventTime,
    GuaranteeError,
    Pipeline,
    ProcessingTime,
    Skip,
    Source,
    StepError,
)
from streamflow.connectors import Collect, Discard, Into, QueueSource
from streamflow.operators import Count, Filter, Inspect, Keyed, Take, TumblingWindow, fan_out, join, merge
from streamflow.testing import VirtualClock
from tests.support import Acknowledging, Chunked, Recorder, restarts, run, stamped, until, virtual

Event = tuple[int, int, float]
"""A running number, a key and a time."""

HOWS = ["inner", "left", "right", "outer"]
hows: Any = st.sampled_from(HOWS)
arrivals = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 20)), max_size=25)
"""In the order in which they come: side, key, time."""


def key(event: Any) -> int:
    return event[1]  # type: ignore[no-any-return]


def at(event: Any) -> float:
    return event[2]  # type: ignore[no-any-return]


def streams(arrivals: Sequence[tuple[int, int, float]], *, chunked: bool = False) -> tuple[Chunked, Chunked]:
    """Arrival *i* comes at *i* + 0.5, or together with those of its side that follow at once."""
    chunks: list[list[list[Event]]] = [[], []]
    events = [(number, key, float(time)) for number, (_, key, time) in enumerate(arrivals)]
    for side, group in groupby(events, key=lambda event: arrivals[event[0]][0]):
        own = list(group)
        chunks[side] += [own] if chunked else [[event] for event in own]
    left, right = (
        Chunked(own, name, times=[chunk[0][0] + 0.5 for chunk in own])
        for own, name in zip(chunks, ("left", "right"), strict=True)
    )
    return left, right


@define
class Model:
    """The join in plain Python, one element after the other."""

    within: float
    lag: float
    how: str
    held: tuple[list[Event], list[Event]] = field(factory=lambda: ([], []))
    tops: list[float] = field(factory=lambda: [float("-inf")] * 2)
    watermark: float = float("-inf")
    matched: set[int] = field(factory=set)
    late: list[Event] = field(factory=list)
    out: list[Any] = field(factory=list)

    def run(self, arrivals: Sequence[tuple[int, int, float]]) -> Model:
        sides = [side for side, _, _ in arrivals]
        for number, (side, key, time) in enumerate(arrivals):
            self.take(side, (number, key, float(time)))
            self.advance([each in sides[number + 1 :] for each in (0, 1)])
        self.expire(float("inf"))
        return self

    def take(self, side: int, event: Event) -> None:
        if event[2] < self.watermark:
            self.late.append(event)
            return
        for other in self.held[1 - side]:
            if other[1] == event[1] and abs(other[2] - event[2]) <= self.within:
                self.matched |= {event[0], other[0]}
                self.out.append((other, event) if side else (event, other))
        self.held[side].append(event)
        self.tops[side] = max(self.tops[side], event[2])

    def advance(self, active: list[bool]) -> None:
        times = [top - self.lag for top, goes_on in zip(self.tops, active, strict=True) if goes_on]
        if times and min(times) > self.watermark:
            self.watermark = min(times)
            self.expire(self.watermark)

    def expire(self, until: float) -> None:
        wanted = {"inner": (), "left": (0,), "right": (1,), "outer": (0, 1)}[self.how]
        due = sorted(
            (event[2], event[0], side)
            for side in wanted
            for event in self.held[side]
            if event[0] not in self.matched and event[2] + self.within < until
        )
        for _, number, side in due:
            event = next(event for event in self.held[side] if event[0] == number)
            self.matched.add(number)
            self.out.append((None, event) if side else (event, None))


def ordered(pairs: Iterable[Any]) -> list[Any]:
    return sorted(pairs, key=repr)


@settings(max_examples=300)
@given(arrivals, st.sampled_from([0, 1, 3, 7.5]), st.sampled_from([0, 2, 30]), hows, st.booleans())
def test_pairs_late_and_lonely_elements_are_those_of_the_model(
    arrivals: list[tuple[int, int, float]], within: float, lag: float, how: Any, chunked: bool
) -> None:
    late = Collect[Any]()
    time = EventTime(at, out_of_order=lag, max_ahead=None)
    left, right = streams(arrivals, chunked=chunked)
    seen: list[Any] = []
    joined = join(left, right, (key, key), within, how, time=time, late=late)
    model = Model(within, lag, how).run(arrivals)

    async def work() -> list[Any]:
        async with joined.via(Inspect(seen.append)).to(Collect()).start(clock=VirtualClock()) as running:
            result = await running.wait()
            assert sum(stats.late for stats in running.stats().steps.values()) == len(model.late)
        return result

    for _ in range(2):
        assert ordered(virtual(work())) == ordered(model.out)


@given(arrivals, st.sampled_from([1, 3]), hows)
def test_the_order_of_the_results_does_not_depend_on_chunks(
    arrivals: list[tuple[int, int, float]], within: float, how: Any
) -> None:
    time = EventTime(at, out_of_order=2, max_ahead=None)
    one, other = (
        run(join(*streams(arrivals, chunked=chunked), (key, key), within, how, time=time).to(Collect()))
        for chunked in (False, True)
    )
    assert one == other


@settings(max_examples=50)
@given(arrivals, hows, st.booleans())
def test_a_restart_from_any_checkpoint_goes_on(
    arrivals: list[tuple[int, int, float]], how: Any, by_clock: bool
) -> None:
    time: Any = ProcessingTime() if by_clock else EventTime(at, out_of_order=2, max_ahead=None)

    def build() -> tuple[Pipeline[list[Any]], Recorder, Chunked]:
        clock, sink = Chunked([["tick"]], "clock", times=[9.7]), Recorder()
        left, right = streams(arrivals)
        joined: Any = join(left, right, (key, key), 3, how, time=time, state=tuple[int, int, float])
        return merge(joined, clock.via(Filter(lambda _: False))).to(sink), sink, clock

    assert restarts(build, order=ordered) >= 9


def test_what_is_alone_goes_by_the_watermark_exactly() -> None:
    seen: list[Any] = []
    left = Chunked(
        [[(0, 1, 10.0)], [(1, 2, 15.0)], [(2, 3, 15.5)], [(3, 9, 99.0)]], "left", times=[1, 2, 3, 9]
    )
    right = Chunked([[(0, 5, 50.0)], [(1, 1, 60.0)]], "right", times=[0.5, 8])
    joined = join(left, right, (key, key), timedelta(seconds=5), "left", time=EventTime(at))
    run(joined.via(stamped(seen)).to(Discard()))
    # At 15 a partner of 10 may still come: 15 itself is not late.
    assert seen[0] == (3, ((0, 1, 10.0), None))


@pytest.mark.parametrize("how", HOWS)
def test_by_the_clock_elements_meet_for_so_long(how: Any) -> None:
    left = Chunked([["a"], ["b"], ["c"]], "left", times=[0, 10, 20])
    right = Chunked([["a"], ["b"], ["d"]], "right", times=[5, 15.1, 30])
    seen: list[Any] = []
    run(join(left, right, (str, str), 5, how).via(stamped(seen)).to(Discard()))
    alone: dict[str, list[Any]] = {
        "left": [(15, ("b", None)), (25, ("c", None))],
        "right": [(20.1, (None, "b")), (30, (None, "d"))],
    }
    expected: list[Any] = [(5.0, ("a", "a")), *alone.get(how, [])]
    if how == "outer":
        expected += [*alone["left"], *alone["right"]]
    assert [(round(time, 3), pair) for time, pair in seen] == sorted(expected)


def test_each_side_may_have_its_own_time() -> None:
    left, right = Source([{"id": 1, "ms": 5000}]), Source([(1, datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC))])
    joined = join(
        left,
        right,
        (lambda x: x["id"], lambda x: x[0]),
        timedelta(seconds=2),
        time=(EventTime(lambda x: x["ms"] / 1000), EventTime(lambda x: x[1])),
    )
    assert len(run(joined.to(Collect()))) == 1


def test_a_quiet_stream_lets_go_of_what_is_alone() -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    seen: list[Any] = []

    async def work() -> None:
        time = EventTime(at, idle_after=10)
        left, right = QueueSource(queue), Chunked([[(0, 7, 100.0)]], "right", ends=False)
        joined = join(left, right, (key, key), 5, "outer", time=time).via(stamped(seen)).to(Discard())
        async with joined.start(clock=VirtualClock()) as running:
            queue.put_nowait((0, 1, 101.0))
            await asyncio.sleep(60)
            assert [pair for _, pair in seen] == [(None, (0, 7, 100.0)), ((0, 1, 101.0), None)]
            assert [round(when) for when, _ in seen] == [14, 15]
            await running.stop()

    virtual(work())


def test_state_goes_when_the_watermark_has_passed() -> None:
    """Also where one side is far ahead: the namespaces that are left are those that may still be of use."""
    held: list[int] = []
    events = [(n, n % 7, float(n)) for n in range(50_000)]
    left, right = fan_out(Source(events), 2)
    joined = join(left, right, (key, key), 10, "outer", time=EventTime(at, max_ahead=None))
    step, _ = joined.end
    make = step.element.transform

    class Watched(type(step.element)):  # type: ignore[misc]
        def transform(self) -> Any:
            logic = make()
            process = logic.process

            def watched(scope: Any, rows: Any) -> Any:
                held.append(len(scope.table.spaces))
                return process(scope, rows)

            logic.process = watched
            return logic

    object.__setattr__(step.element, "__class__", Watched)
    assert run(joined.to(Into(Count()))) == 50_000 + 2 * sum(50_000 - d for d in range(7, 11, 7))
    assert max(held) < 2 * 20_000 / 10
    assert held[-1] < 2 * 20_000 / 10


# Bad input


def test_failures_go_to_the_policy_and_move_nothing() -> None:
    bad: list[Any] = [
        (0, 1, 5.0),
        (1, [], 1.0),
        (2, 1, None),
        (3, 1, float("nan")),
        (4, 1, float("inf")),
        (5, 1),
        (6, 1, 6),
    ]
    stream = join(Chunked([bad], "bad"), Source([(9, 1, 7.0)]), (key, key), 5, time=EventTime(at))
    with pytest.raises(StepError, match=r"step 'join': failed on \(1, \[\], 1.0\): TypeError: unhashable"):
        run(stream.to(Collect()))
    assert sorted(pair[0][0] for pair in run(stream.to(Collect()), on_error=Skip())) == [0, 6]


def test_a_clock_that_is_wrong_makes_nobody_late() -> None:
    events = [(0, 1, 10.0), (1, 1, 1e12), (2, 1, 11.0)]
    left, right = Chunked([events], "left"), Chunked([[(5, 1, 12.0)]], "right", times=[1.0])

    async def work() -> None:
        joined = join(left, right, (key, key), 5, time=EventTime(at))
        async with joined.to(Collect()).start(clock=VirtualClock()) as running:
            assert sorted(pair[0][0] for pair in await running.wait()) == [0, 2]
            assert running.stats().steps["join"].ahead == 1

    virtual(work())


# Receipts, watermarks, ends


def test_it_remembers() -> None:
    source = Acknowledging(3, name="left")
    joined = join(source, source, (bool, bool), 5, time=EventTime(lambda x: x)).to(Discard())
    with pytest.raises(GuaranteeError, match="step 'join'"):
        run(joined)
    run(joined, delivery="best_effort")
    assert sorted(source.ledger.acked) == [0, 1, 2]


def test_late_messages_reach_their_sink() -> None:
    source, late = Acknowledging(3, [1]), Collect[int]()
    joined = join(
        source, Source(range(2)), (bool, bool), 0, time=EventTime(lambda x: -x, max_ahead=None), late=late
    )
    run(joined.to(Discard()), delivery="best_effort")
    assert sorted(source.ledger.acked) == [0, 1, 2]


def test_a_take_behind_tells_both_sides() -> None:
    pairs = join(
        Source(range(10**9)), Source(range(10**9)), (lambda x: 0, lambda x: 0), 1, time=EventTime(float)
    )
    assert len(run(pairs.via(Take(3)).to(Collect()))) == 3


def test_a_drain_emits_nothing_that_only_the_end_would() -> None:
    left = Chunked([[(0, 1, 10.0)]], "left", ends=False)
    right = Chunked([[(0, 1, 11.0), (1, 2, 12.0)]], "right", ends=False)
    seen: list[Any] = []

    async def work() -> None:
        joined = join(left, right, (key, key), 5, "outer", time=EventTime(at)).via(Inspect(seen.append))
        async with joined.to(Discard()).start(clock=VirtualClock()) as running:
            await until(lambda: seen)
            await running.drain()

    virtual(work())
    assert seen == [((0, 1, 10.0), (0, 1, 11.0))]


@settings(max_examples=200)
@given(arrivals)
def test_later_windows_have_nothing_late(arrivals: list[tuple[int, int, float]]) -> None:
    """The watermark of the join is a promise that counts; the pairs themselves are as far out of order as may be."""
    arrivals = sorted(arrivals, key=lambda arrival: arrival[2])
    left, right = streams(arrivals)
    time = EventTime(at, max_ahead=None)
    joined: Any = join(left, right, (key, key), 3, "outer", time=time)
    late = Collect[Any]()
    earlier = EventTime[Any](lambda pair: min(at(e) for e in pair if e), out_of_order=3, max_ahead=None)
    window = TumblingWindow(timedelta(seconds=5), time=earlier, into=Count(), late=late)

    async def work() -> int:
        pipeline = joined.via(Keyed(lambda pair: key(pair[0] or pair[1]), window)).to(Collect())
        async with pipeline.start(clock=VirtualClock()) as running:
            result = await running.wait()
            assert sum(stats.late for stats in running.stats().steps.values()) == 0
        return sum(r.value.value for r in result)

    assert virtual(work()) == len(Model(3, 0, "outer").run(arrivals).out)


ANY: Any = 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on": key}, r"join's on must be a pair of functions, \(left key, right key\)"),
        ({"on": (key, 3)}, "join's on takes a function, not 3"),
        ({"within": -1}, "join's within must be zero or more and finite"),
        ({"within": "1s"}, "join's within must be a timedelta or a number of seconds"),
        ({"within": Take(3)}, "join's within must be a duration or a window over time"),
        ({"how": "full"}, "join's how must be 'inner', 'left', 'right' or 'outer', not 'full'"),
        ({"time": at}, r"join's time must be EventTime\(extract\), a pair of those or ProcessingTime\(\)"),
        ({"time": (EventTime(at),)}, r"join's time must be"),
        ({"late": 3}, r"join's late must be a sink such as Collect\(\)"),
        ({"late": Collect()}, "by processing time nothing is late; late= needs EventTime"),
        ({"on_error": Skip}, "join: on_error must be a policy"),
        ({"left": 3}, "join takes streams, not 3"),
        ({"name": 3}, "the name of a step must be a text"),
    ],
)
def test_mistakes(options: Any, says: str) -> None:
    arguments: Any = {"left": Source([1]), "right": Source([1]), "on": (key, key), "within": 1, **options}
    with pytest.raises(ConfigurationError, match=says):
        join(**arguments)
