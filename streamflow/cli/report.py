"""What the demo tells before and after: what happens, the results, the pipeline, and where to look next."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from streamflow.cli.progress import Result, span
from streamflow.graph import Graph
from streamflow.message import Window


def explain(console: Console, flights: int, rate: float, url: str) -> None:
    """Say what is about to happen."""
    console.print(
        "[bold]streamflow demo[/]\n\n"
        f"{flights:,} flights were to leave New York in the first two weeks of 2013. They are replayed into the NATS "
        f"stream FLIGHTS at {rate:,.0f} a second (about {flights / rate:.0f} s), up to 15 minutes out of order.\n"
        "Meanwhile a pipeline reads them and computes the mean departure delay of each carrier in windows of six "
        "hours of event time. A window is published to the stream DELAYS as soon as the watermark passes its end.\n\n"
        f"[dim]An embedded nats-server is at {url}, its streams in a temporary folder.\n"
        "Open windows and results are committed every second, in one batch: after a crash nothing is lost or twice.[/]"
        "\n"
    )


def show_results(console: Console, results: list[Result]) -> None:
    """A table of the carriers, the latest first."""
    carriers: defaultdict[str, list[Window[float]]] = defaultdict(list)
    for result in results:
        carriers[result.key].append(result.value)
    table = Table(
        title="Departure delays, read back from the stream DELAYS", title_justify="left", title_style="bold"
    )
    table.add_column("carrier")
    table.add_column("windows", justify="right")
    table.add_column("mean of means", justify="right")
    table.add_column("worst window", no_wrap=True)
    table.add_column("its mean", justify="right")
    means = {carrier: fmean(window.value for window in windows) for carrier, windows in carriers.items()}
    for carrier in sorted(means, key=means.__getitem__, reverse=True):
        windows = carriers[carrier]
        worst = max(windows, key=lambda window: window.value)
        table.add_row(
            carrier, str(len(windows)), f"{means[carrier]:+.1f} min", span(worst), f"{worst.value:+.1f} min"
        )
    console.print()
    console.print(table)


def show_pipeline(console: Console, graph: Graph) -> None:
    """Draw a pipeline that is a line."""
    console.print("\n[bold]The pipeline[/]")
    width = max(len(step.name) for step in graph.steps)
    for number, step in enumerate(graph.steps):
        corner = "┌" if number == 0 else "└" if number == len(graph.steps) - 1 else "├"
        console.print(f"  {corner} {step.name:{width}}  [dim]{step.type}[/]")
    console.print()


def where_to_look_next(console: Console, demo: Path) -> None:
    """Point to what a newcomer may want to read or try."""
    console.print("[bold]Where to look next[/]")
    console.print(f"  the code       {demo}, function delays", soft_wrap=True)
    for what, command in (
        ("its graph", "streamflow graph streamflow.cli.demo:delays -o delays.svg"),
        ("a server", "streamflow server"),
        ("your pipeline", "streamflow run module:pipeline"),
    ):
        console.print(f"  {what:13}  {command}", soft_wrap=True)
