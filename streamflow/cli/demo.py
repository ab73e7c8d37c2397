"""``streamflow demo``: two weeks of flights through a NATS server of its own, and a pipeline that keeps up with them.

`delays` is the pipeline, written as you would write yours. The rest replays the flights, shows what happens, reads the
results back and compares them with a plain loop over the file.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from attrs import frozen
from rich.console import Console

from streamflow.app import loop_factory, signals
from streamflow.cli.flights import DISORDER, WINDOW, Flight, arrival_order, batch, departure, load
from streamflow.cli.progress import Progress, Result
from streamflow.cli.report import explain, show_pipeline, show_results, where_to_look_next
from streamflow.codecs import Json
from streamflow.connectors import Collect
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.graph import Pipeline, Source
from streamflow.message import KeyedValue, Window
from streamflow.operators import Filter, Inspect, Keyed, Map, Mean, Throttle, TumblingWindow
from streamflow.policies import Checkpoint, EventTime
from streamflow.settings import Settings
from streamflow.testing.server import NatsServer

_REPLAY_SECONDS = 10.0
_TICKS_PER_SECOND = 20

FLIGHTS = StreamSettings(["flights.>"])
DELAYS = StreamSettings(["delays.>"])


@frozen
class Departure:
    """A flight that left: its carrier, when it left (epoch seconds), and how late it was (minutes)."""

    carrier: str
    at: float
    delay: int


def delays(until: int | Literal["end"] = "end", show: Callable[[Result], object] = repr) -> Pipeline[int]:
    """The mean departure delay of each carrier in windows of six hours, from the stream FLIGHTS into DELAYS.

    ``until`` is the sequence of the last flight to read. ``show`` is called with each window that closes.
    """
    windows = TumblingWindow(
        WINDOW,
        time=EventTime[Departure](lambda d: d.at, out_of_order=DISORDER),
        into=Mean[Departure](lambda d: d.delay),
    )
    return (
        JetStreamSource(
            "FLIGHTS",
            "flights.>",
            durable="delays",
            codec=Json(Flight),
            until=until,
            create=FLIGHTS,
            name="flights",
        )
        .via(Filter(lambda flight: flight.dep_delay is not None), name="departed")
        .via(
            Map(lambda flight: Departure(flight.carrier, departure(flight), flight.dep_delay or 0)),
            name="delay",
        )
        .via(Keyed(lambda d: d.carrier, windows), name="by carrier")
        .via(Inspect(show), name="show")
        .to(
            JetStreamSink("DELAYS", subject=lambda r: f"delays.{r.key}", codec=Json(), create=DELAYS),
            name="delays",
            step="delays",
        )
    )


def replay(flights: Iterable[Flight], rate: float) -> Pipeline[int]:
    """Publish flights into the stream FLIGHTS, so many per second."""
    burst = max(1, round(rate / _TICKS_PER_SECOND))
    return (
        Source(flights)
        .via(Throttle(burst, per=burst / rate))
        .to(
            JetStreamSink("FLIGHTS", subject=lambda f: f"flights.{f.carrier}", codec=Json(), create=FLIGHTS),
            name="replay",
        )
    )


def results() -> Pipeline[list[Result]]:
    """Read back what is in the stream DELAYS."""
    stored = JetStreamSource("DELAYS", "delays.>", codec=Json(KeyedValue[str, Window[float]]), until="end")
    return stored.to(Collect(), name="results")


def show(rate: float | None) -> int:
    """Run the demo; returns the exit code: 0, 1 if the results are wrong, 128 + the signal that interrupted it."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without box characters
    console = Console(highlight=False)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_interruptible(console, rate))


async def _interruptible(console: Console, rate: float | None) -> int:
    """The demo, taken down in order by SIGINT and SIGTERM."""
    work = asyncio.create_task(_demo(console, rate))
    heard: list[int] = []

    def interrupt(number: int) -> None:
        heard.append(number)
        work.cancel()

    with signals(interrupt):
        await asyncio.wait([work])
    if heard and work.cancelled():
        console.print("Interrupted. The server and its streams are gone.")
        return 128 + heard[0]
    return work.result()


async def _demo(console: Console, rate: float | None) -> int:
    flights = arrival_order(load())
    rate = rate or len(flights) / _REPLAY_SECONDS
    async with NatsServer() as server:
        explain(console, len(flights), rate, server.url)
        settings = Settings(servers=(server.url,))
        progress = Progress(console, len(flights))
        pipeline = delays(until=len(flights), show=progress.closed)
        await _compute(pipeline, replay(flights, rate), progress, settings)
        stored = await results().run(settings=settings)
    show_results(console, stored)
    show_pipeline(console, pipeline.describe())
    differences = _differences(stored, flights)
    if differences:
        console.print(f"[bold red]✘[/] differs from the batch computation: {differences}")
        return 1
    console.print(f"[bold green]✔[/] matches the batch computation: {len(stored)} windows\n")
    where_to_look_next(console, Path(__file__))
    return 0


async def _compute(
    pipeline: Pipeline[int], feed: Pipeline[int], progress: Progress, settings: Settings
) -> None:
    """Run both pipelines side by side, with the display. A failure of one stops the other."""
    async with (
        feed.start(settings=settings, observers=[progress.replay]) as feeding,
        pipeline.start(
            settings=settings,
            observers=[progress.stages],
            checkpoint=Checkpoint(),
            delivery="exactly_once",
        ) as running,
    ):
        jobs = [asyncio.create_task(feeding.wait()), asyncio.create_task(running.wait())]
        async with progress.shown():
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_EXCEPTION)
            for job in done:
                job.result()


def _differences(stored: list[Result], flights: list[Flight]) -> str:
    """How the results differ from those of a plain loop over the flights; nothing if they do not."""
    expected = {key: mean for key, (_, mean) in batch(flights).items()}
    found = {(result.key, result.value.start): result.value.value for result in stored}
    if len(found) != len(stored):
        return f"{len(stored) - len(found)} windows came twice"
    wrong = [key for key in expected | found if expected.get(key) != found.get(key)]
    if not wrong:
        return ""
    carrier, start = key = wrong[0]
    return (
        f"{len(wrong)} of {len(expected)} windows, such as {carrier} from {start:.0f}: "
        f"{found.get(key)} instead of {expected.get(key)}"
    )
