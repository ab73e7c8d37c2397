"""``late=``: what comes too late for a window arrives at its sink, and is acknowledged when that has confirmed it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import Checkpoint, EventTime, Pipeline
from streamflow.connectors import Collect
from streamflow.operators import Count, Keyed, Map, SessionWindow, SlidingWindow, TumblingWindow
from streamflow.testing import MemoryStore, VirtualClock
from tests.operators.windows import (
    Event,
    Model,
    PaneModel,
    SessionModel,
    event_time,
    events,
    key_of,
    modes,
    spans,
)
from tests.support import Acknowledging, Chunked, Confirming, Recorder, cut, run, sizes, virtual

SECOND = timedelta(seconds=1)
WINDOWS: dict[str, Any] = {
    "tumbling": lambda **options: TumblingWindow(10 * SECOND, **options),
    "sliding": lambda **options: SlidingWindow(10 * SECOND, 4 * SECOND, **options),
    "session": lambda **options: SessionWindow(5 * SECOND, **options),
}
MODELS: dict[str, Any] = {
    "tumbling": lambda *mode: PaneModel(*mode, spans=spans(10, 10)),
    "sliding": lambda *mode: PaneModel(*mode, spans=spans(10, 4)),
    "session": lambda *mode: SessionModel(*mode, gap=5),
}
kinds = pytest.mark.parametrize("kind", WINDOWS)


@kinds
@given(events=events, sizes=sizes, mode=modes, keyed=st.booleans())
def test_who_is_late_arrives_at_its_sink_in_order(
    kind: str, events: list[Event], sizes: list[int], mode: Any, keyed: bool
) -> None:
    emit, lateness = mode
    late = Recorder()
    window = WINDOWS[kind](time=EventTime(event_time), lateness=lateness, emit=emit, late=late)
    source = Chunked(cut(events, sizes))
    flow: Any = Keyed(key_of, window) if keyed else window
    got = run(source.via(flow).to(Collect()))
    model: Model = MODELS[kind](0, lateness, emit)
    model.run(events if keyed else [(0, time, number) for _, time, number in events])
    assert len(got) == len(model.out)
    assert [number for _, _, number in late.values] == [number for _, _, number in model.late]


@kinds
@settings(max_examples=30)
@given(events=events, sizes=sizes, delay=st.sampled_from([0.0, 0.3]), apart=st.booleans())
def test_each_message_is_acknowledged_once_and_late_ones_when_their_sink_has_confirmed(
    kind: str, events: list[Event], sizes: list[int], delay: float, apart: bool
) -> None:
    """Also with a step before it that tells messages apart."""
    source = Acknowledging(len(events), sizes)
    late = Confirming(source, delay)
    window = WINDOWS[kind](time=EventTime(lambda position: events[position][1]), late=late)
    flow: Any = Map(lambda x: x).via(window) if apart else window
    run(source.via(flow).to(Collect()), delivery="best_effort")
    model = MODELS[kind](0).run((0, time, number) for _, time, number in events)
    source.ledger.check(deliver=[number for _, _, number in model.late])
    assert sorted(source.ledger.acked) == list(range(len(events)))
    assert late.values == [number for _, _, number in model.late]


@kinds
def test_late_messages_that_are_never_confirmed_are_never_acknowledged(kind: str) -> None:
    times = [0, 100, 1, 2, 101]
    source = Acknowledging(len(times), [1, 1, 1, 1, 1], ends=False)
    late = Confirming(source, None)
    window = WINDOWS[kind](time=EventTime(lambda position: times[position]), late=late)

    async def work() -> None:
        pipeline = source.via(window).to(Collect())
        async with pipeline.start(clock=VirtualClock(), delivery="best_effort") as running:
            await asyncio.sleep(1)
            await running.stop()

    virtual(work())
    assert sorted(source.ledger.acked) == [0, 1, 4]
    assert sorted(source.ledger.returned) == [2, 3]


@kinds
@settings(max_examples=30)
@given(events=events, sizes=sizes)
def test_barriers_reach_the_sink_of_late_elements_as_well(
    kind: str, events: list[Event], sizes: list[int]
) -> None:
    """From every checkpoint on, both sinks get what they had not got before it."""
    chunks = cut(events, sizes)

    def build() -> tuple[Pipeline[list[Any]], Recorder, Recorder, Chunked]:
        late, sink = Recorder(), Recorder()
        source = Chunked(chunks, times=[0.7 * n for n in range(len(chunks))])
        time = EventTime(event_time, idle_after=timedelta(days=1))
        window = WINDOWS[kind](time=time, late=late, into=Count())
        flow: Any = window.via(Map(_plain))
        return source.via(flow).to(sink, name="late"), sink, late, source

    store = MemoryStore()
    pipeline, sink, late, source = build()
    checkpoint = Checkpoint(every=SECOND, store=store)
    run(pipeline, checkpoint=checkpoint)
    for index, snapshot in enumerate(store.history):
        again, more, later, _ = build()
        restarted = Checkpoint(every=SECOND, store=MemoryStore.at(snapshot, again.name))
        run(again, start=source.injected[index], checkpoint=restarted)
        for whole, rest in ((sink, more), (late, later)):
            before = whole.values[: whole.marks[index]] if index < len(whole.marks) else whole.values
            assert before + rest.values == whole.values


def _plain(window: Any) -> tuple[float, float, int]:
    return window.start, window.end, window.value
