"""``align=``: windows of calendar days, also where a day has no midnight, 23 hours, or half an hour more."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import EventTime, Source, Window
from streamflow.connectors import Collect
from streamflow.operators import Count, SlidingWindow, TumblingWindow
from tests.support import Chunked, cut, run, sizes

DAY = timedelta(days=1)
CHANGES = {
    "Europe/Berlin": [date(2024, 3, 31), date(2024, 10, 27)],
    "Australia/Lord_Howe": [date(2024, 4, 7), date(2024, 10, 6)],  # half an hour
    "America/Sao_Paulo": [date(2018, 2, 17), date(2018, 11, 4)],  # 23:00 again; no midnight
    "America/Havana": [date(2024, 3, 10), date(2024, 11, 3)],  # no midnight; midnight twice
    "Pacific/Apia": [date(2011, 12, 29)],  # the day after it was left out
    "Asia/Kathmandu": [date(1986, 1, 1)],  # a quarter of an hour, for good
    "UTC": [date(1970, 1, 1), date(1969, 12, 31)],
}
days = st.sampled_from([(zone, day) for zone, days in CHANGES.items() for day in days])


def midnight(day: date, zone: str) -> float:
    """When a day begins: the first minute, by UTC, whose date there is that day or later."""
    tz = ZoneInfo(zone)
    instant = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while instant.astimezone(tz).date() < day:
        instant += timedelta(minutes=15)
    return instant.timestamp()


def tumbling(zone: str, days: int = 1, offset: timedelta = timedelta(0)) -> Any:
    time: Any = EventTime(lambda t: t, out_of_order=timedelta(days=9), max_ahead=None)
    return TumblingWindow(days * DAY, time=time, into=Count(), align=zone, offset=offset)


@given(days, st.lists(st.integers(-100, 100), max_size=30), sizes)
def test_an_element_is_in_the_day_that_its_clock_on_the_wall_shows(
    change: tuple[str, date], quarters: list[int], sizes: list[int]
) -> None:
    zone, day = change
    tz = ZoneInfo(zone)
    first = midnight(day, zone)
    times = [first + 900 * quarter for quarter in quarters]
    expected: dict[date, int] = {}
    for time in times:
        local = datetime.fromtimestamp(time, tz).date()
        expected[local] = expected.get(local, 0) + 1
    got = run(Chunked(cut(times, sizes)).via(tumbling(zone)).to(Collect()))
    assert [(w.start_at.astimezone(tz).date(), w.value) for w in got] == sorted(expected.items())
    for window in got:
        shown = window.start_at.astimezone(tz).date()
        assert window.start == midnight(shown, zone)
        assert window.end == midnight(shown + DAY, zone)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2024, 3, 31), 23),
        ("Europe/Berlin", date(2024, 10, 27), 25),
        ("Europe/Berlin", date(2024, 6, 1), 24),
        ("Australia/Lord_Howe", date(2024, 4, 7), 24.5),
        ("Australia/Lord_Howe", date(2024, 10, 6), 23.5),
        ("America/Sao_Paulo", date(2018, 2, 17), 25),
        ("America/Sao_Paulo", date(2018, 11, 4), 23),
    ],
)
def test_a_day_is_as_long_as_its_zone_says(zone: str, day: date, hours: float) -> None:
    (window,) = run(Source([midnight(day, zone) + 60]).via(tumbling(zone)).to(Collect()))
    assert window.end - window.start == hours * 3600
    assert window.start_at.astimezone(ZoneInfo(zone)).date() == day


def test_a_day_may_begin_some_hours_after_midnight_by_the_wall_clock() -> None:
    tz = ZoneInfo("Europe/Berlin")
    times = [datetime(2024, 3, 31, hour, tzinfo=tz).timestamp() for hour in (3, 5, 6, 7)]
    got = run(Source(times).via(tumbling("Europe/Berlin", offset=timedelta(hours=6))).to(Collect()))
    six = [datetime(2024, 3, day, 6, tzinfo=tz).timestamp() for day in (30, 31)]
    assert got == [Window(six[0], six[1], 2), Window(six[1], six[1] + 86_400, 2)]


@given(days, st.lists(st.integers(-300, 300), max_size=30))
def test_sliding_days_are_the_sums_of_days(change: tuple[str, date], quarters: list[int]) -> None:
    """Windows of three days, one beginning each day."""
    zone, day = change
    times = [midnight(day, zone) + 900 * quarter for quarter in quarters]
    time: Any = EventTime(lambda t: t, out_of_order=timedelta(days=9), max_ahead=None)
    sliding = SlidingWindow(3 * DAY, DAY, time=time, into=Count(), align=zone)
    got = run(Source(times).via(sliding).to(Collect()))
    tz = ZoneInfo(zone)
    dates = [datetime.fromtimestamp(time, tz).date() for time in times]
    expected = {}
    for first in {each - back * DAY for each in dates for back in range(3)}:
        expected[midnight(first, zone)] = sum(first <= each < first + 3 * DAY for each in dates)
    if zone != "Pacific/Apia":
        assert {w.start: w.value for w in got} == expected
    assert len(times) == 0 or sum(w.value for w in got) == 3 * len(times)


def test_several_days_are_counted_from_the_epoch() -> None:
    """A week that is so many days long begins on a Thursday, as 1970-01-01 was one; ``offset`` moves it."""
    monday = midnight(date(2024, 7, 1), "Europe/Berlin")
    weekly = tumbling("Europe/Berlin", 7, offset=4 * DAY)
    (window,) = run(Source([monday, monday + 6.9 * 86_400]).via(weekly).to(Collect()))
    assert window == Window(monday, monday + 7 * 86_400, 2)
