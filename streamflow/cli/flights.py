"""The demo's data: two weeks of flights, the order of their replay, and the answer to check against.

Nothing here knows of streams. `batch` computes in one plain loop what the demo's pipeline computes while
the flights arrive; if the two differ, the pipeline is wrong.
"""

from __future__ import annotations

import csv
import gzip
import importlib.resources
import io
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from attrs import frozen

DISORDER = timedelta(minutes=15)
WINDOW = timedelta(hours=6)

_FILE = "flights.csv.gz"


@frozen
class Flight:
    """One scheduled flight.

    `sched_dep` is the scheduled departure in New York time (an aware datetime); `dep_delay` is in minutes,
    negative when the flight left early and None when it was cancelled; `distance` is in miles.
    """

    carrier: str
    flight: int
    origin: str
    dest: str
    sched_dep: datetime
    dep_delay: int | None
    distance: int


def load(path: Path | str | None = None) -> list[Flight]:
    """Read the flights of `path`; by default those that come with the package, in the order of the file.

    An installed package carries the file as a resource, a checkout has it in `examples/data`. When it is in
    neither place, FileNotFoundError names both.
    """
    packed = Path(path).read_bytes() if path is not None else _bundled()
    rows = csv.DictReader(io.StringIO(gzip.decompress(packed).decode()))
    return [_flight(row) for row in rows]


def departure(flight: Flight) -> float:
    """When the flight left, in epoch seconds: the scheduled instant plus the delay.

    A cancelled flight never left. Its scheduled instant stands in, so that it has a place in the replay.
    """
    return flight.sched_dep.timestamp() + 60 * (flight.dep_delay or 0)


def arrival_order(
    flights: Iterable[Flight], disorder: timedelta = DISORDER, seed: int = 2013
) -> list[Flight]:
    """The flights as they reach the stream: by departure, out of order by at most `disorder`.

    Each report is held up by a random time below `disorder`, as reports from different airports would be.
    Whatever comes before a flight therefore departed at most `disorder` after it, which is what an event-time
    window with `out_of_order=disorder` allows for: nothing is late. The same seed gives the same order.
    """
    random = Random(seed)
    longest = disorder.total_seconds()
    return sorted(flights, key=lambda flight: departure(flight) + longest * random.random())


def batch(
    flights: Iterable[Flight], window: timedelta = WINDOW
) -> dict[tuple[str, float], tuple[int, float]]:
    """Number of flights and mean departure delay in minutes per carrier and window, computed in one go.

    Keys are (carrier, start of the window in epoch seconds). Windows are aligned to the epoch and hold the
    flights that departed in [start, start + window); cancelled flights are left out. Delays are whole minutes
    and their sum exact, so the mean does not depend on the order of the flights.
    """
    size = window.total_seconds()
    delays: defaultdict[tuple[str, float], list[int]] = defaultdict(list)
    for flight in flights:
        if flight.dep_delay is not None:
            delays[flight.carrier, departure(flight) // size * size].append(flight.dep_delay)
    return {key: (len(minutes), sum(minutes) / len(minutes)) for key, minutes in delays.items()}


def _bundled() -> bytes:
    resource = importlib.resources.files("streamflow.cli") / "data" / _FILE
    checkout = Path(__file__).resolve().parents[2] / "examples" / "data" / _FILE
    for place in (resource, checkout):
        if place.is_file():
            return place.read_bytes()
    raise FileNotFoundError(f"the flight data is missing: neither {resource} nor {checkout} exists")


def _flight(row: dict[str, str]) -> Flight:
    return Flight(
        carrier=row["carrier"],
        flight=int(row["flight"]),
        origin=row["origin"],
        dest=row["dest"],
        sched_dep=datetime.fromisoformat(row["sched_dep"]),
        dep_delay=int(row["dep_delay"]) if row["dep_delay"] else None,
        distance=int(row["distance"]),
    )
