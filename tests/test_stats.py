"""What `Running.stats` counts: each stage under a name of its own, and everything that leaves it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamflow import EventTime, Flow, Pipeline, Sink, Source
from streamflow.connectors import Discard
from streamflow.engine.connector import SinkContext, Writer
from streamflow.engine.observer import StatsObserver
from streamflow.operators import Count, Keyed, Map, Throttle, TumblingWindow
from tests.support import run


class Encoded(Sink[Any, int]):
    """A sink with a step of its own, as those with codecs have."""

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(str),)

    async def open(self, context: SinkContext) -> Writer[int]:
        return await Discard().open(context)


class Decoded(Source[Any]):
    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(int),)


def counts(pipeline: Pipeline[Any]) -> dict[str, tuple[int, int]]:
    observer = StatsObserver()
    run(pipeline, observers=[observer])
    return {name: (step.received, step.emitted) for name, step in observer.steps.items()}


def test_connectors_are_counted_apart_from_their_codecs() -> None:
    assert counts(Decoded(["1", "2"]).to(Encoded())) == {
        "Decoded": (2, 2),
        "Decoded → Encoded (codec)": (2, 2),
        "Encoded": (2, 2),
    }
    assert counts(Source([1, 2]).via(Throttle(9, per=1)).to(Encoded()))["Encoded (codec)"] == (2, 2)


def test_a_keyed_run_is_counted_once_and_windows_that_close_at_the_end_too() -> None:
    times = EventTime[int](lambda x: x)
    windows = TumblingWindow(timedelta(seconds=10), time=times, into=Count())
    assert counts(Source(range(25)).via(Keyed(lambda x: x % 2, windows)).to(Discard())) == {
        "Source": (25, 25),
        "Keyed": (25, 25),
        "Keyed/TumblingWindow": (25, 6),
        "Discard": (6, 6),
    }


def test_what_a_timer_lets_go_is_counted() -> None:
    assert counts(Source(range(5)).via(Throttle(2, per=1)).to(Discard()))["Throttle"] == (5, 5)
