"""The pipeline that is killed: ``python job.py SERVERS REPLICAS``. Windows and sums of each key, exactly once."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from attrs import frozen

from streamflow import Checkpoint, EventTime, Pipeline, run
from streamflow.codecs import Json
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.operators import Fold, Keyed, Sum, TumblingWindow

WINDOW = 5.0
OUT_OF_ORDER = 100.0
"""Seconds by which a message may be behind: messages that are sent again overtake each other."""


@frozen
class Event:
    key: str
    value: int
    at: float


def pipeline(servers: list[str], replicas: int) -> Pipeline[Any]:
    events = JetStreamSource("EVENTS", codec=Json(Event), servers=servers)
    time: Any = EventTime(
        lambda event: event.at, out_of_order=OUT_OF_ORDER, idle_after=timedelta(days=1), max_ahead=None
    )
    windows: Any = TumblingWindow(timedelta(seconds=WINDOW), time=time, into=Sum(lambda event: event.value))
    sums: Any = Fold(0, lambda total, event: total + event.value, state=int)

    def sink(stream: str) -> Any:
        settings = StreamSettings(f"{stream.lower()}.>", replicas=replicas)
        return JetStreamSink(
            stream,
            lambda pair: f"{stream.lower()}.{pair.key}",
            codec=Json(),
            create=settings,
            servers=servers,
        )

    return Pipeline(
        events.via(Keyed(lambda event: event.key, windows), name="windows").to(
            sink("WINDOWS"), step="to windows"
        ),
        events.via(Keyed(lambda event: event.key, sums), name="sums").to(sink("SUMS"), step="to sums"),
        name="chaos",
    )


if __name__ == "__main__":
    urls, count = sys.argv[1].split(","), int(sys.argv[2])
    run(
        pipeline(urls, count),
        checkpoint=Checkpoint(every=0.2, lease=1, servers=urls, replicas=count),
        delivery="exactly_once",
    )
