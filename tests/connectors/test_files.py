"""File sources and sinks against the same data in plain Python; restarts, failures, and threads that end."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import (
    Checkpoint,
    ConnectorError,
    Pipeline,
    Source,
    StepError,
)
from streamflow.connectors import (
    Collect,
    CsvSink,
    CsvSource,
    JsonLinesSink,
    JsonLinesSource,
    TextFileSink,
    TextFileSource,
)
from streamflow.connectors import _blocking as blocking
from streamflow.engine.checkpoint import Snapshot
from streamflow.engine.chunk import CHUNK_SIZE
from streamflow.operators import Take
from streamflow.testing import MemoryStore
from tests.support import real

lines = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8), max_size=30
)
names = st.sampled_from(["data.txt", "data.txt.gz"])
pieces = st.sampled_from([1, 2, 3, 7, 64, blocking.PIECE])
few = settings(max_examples=30)


@frozen
class Row:
    name: str
    count: int


@dataclass
class Plain:
    name: str
    count: int


def done(pipeline: Pipeline[Any], **options: Any) -> Any:
    """Run in real time, since threads do the work, and check that they end."""

    async def work() -> Any:
        return await pipeline.run(**options)

    return real(work())


@contextmanager
def reading(size: int) -> Iterator[None]:
    """Have files read in pieces of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking, "PIECE", size)
        yield


def restarted(source: Source[Any], position: int) -> Any:
    """What a run reads that begins at a saved position."""
    store = MemoryStore.at(Snapshot(1, {type(source).__name__: position}))
    return done(source.to(Collect()), checkpoint=Checkpoint(store=store))


def store(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def expected_lines(text: str) -> list[str]:
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


# What is written comes back


@few
@given(lines=lines, name=names)
def test_lines_come_back(lines: list[str], name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        assert done(Source(lines).to(TextFileSink(path))) == len(lines)
        assert done(TextFileSource(path).to(Collect())) == lines


@few
@given(
    values=st.lists(
        st.recursive(st.integers(-5, 5) | st.text(max_size=3), st.lists, max_leaves=4), max_size=20
    )
)
def test_json_lines_come_back(values: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.jsonl.gz"
        done(Source(values).to(JsonLinesSink(path)))
        assert done(JsonLinesSource(path).to(Collect())) == values
        unzipped = gzip.decompress(path.read_bytes()).decode()
        assert [json.loads(line) for line in unzipped.split("\n")[:-1]] == values


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text("a,\"\r\n'\ufeff", max_size=6)


@few
@given(rows=st.lists(st.builds(Row, text, st.integers(-9, 9)), min_size=1, max_size=20))
def test_rows_come_back_typed_with_quotes_and_line_breaks_in_fields(rows: list[Row]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        done(Source(rows).to(CsvSink(path)))
        assert done(CsvSource(path, Row).to(Collect())) == rows
        with path.open(newline="") as file:
            assert [(row["name"], int(row["count"])) for row in csv.DictReader(file)] == [
                (r.name, r.count) for r in rows
            ]
        plain = done(CsvSource(path).to(Collect()))
        assert plain == [{"name": row.name, "count": str(row.count)} for row in rows]


moments = st.datetimes(timezones=st.just(UTC))
rates = st.decimals(allow_nan=False, allow_infinity=False)


class Typed(msgspec.Struct):
    at: datetime
    rate: Decimal
    share: float | None
    ok: bool
    note: str | None
    data: bytes


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str


class Pair(NamedTuple):
    name: str
    number: int = 3


class Entry(TypedDict):
    name: str
    count: int


@few
@given(
    rows=st.lists(
        st.builds(Typed, moments, rates, st.none() | st.floats(-9, 9), st.booleans(), text, st.binary())
    )
)
def test_scalars_of_all_kinds_come_back(rows: list[Typed]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv.gz"
        done(Source(rows).to(CsvSink(path)))
        assert done(CsvSource(path, Typed).to(Collect())) == rows


@pytest.mark.parametrize(
    ("records", "kind", "text"),
    [
        ([Row("a", 1)], Row, "name,count\na,1\n"),
        ([Plain("a", 1)], Plain, "name,count\na,1\n"),
        ([Pair("a", 1)], Pair, "name,number\na,1\n"),
        ([Entry(name="a", count=1)], Entry, "name,count\na,1\n"),
        ([Renamed("a")], Renamed, "firstName\na\n"),
        ([Renamed("")], Renamed, 'firstName\n""\n'),
    ],
)
def test_records_of_all_kinds_come_back_in_the_order_of_their_fields(
    tmp_path: Path, records: list[Any], kind: Any, text: str
) -> None:
    path = tmp_path / "data.csv"
    assert done(Source(records).to(CsvSink(path))) == len(records)
    assert path.read_text() == text
    assert done(CsvSource(path, kind).to(Collect())) == records


def test_columns_can_be_named_and_parted_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    sink = CsvSink(path, ["count", "name"], delimiter=";")
    done(Source([Row("a;b", 1), {"name": "c", "count": None}]).to(sink))
    assert path.read_text() == 'count;name\n1;"a;b"\n;c\n'
    assert done(CsvSource(path, delimiter=";").to(Collect())) == [
        {"count": "1", "name": "a;b"},
        {"count": "", "name": "c"},
    ]
    assert done(Source([]).to(sink)) == 0
    assert path.read_text() == "count;name\n"
    assert done(CsvSource(path, delimiter=";").to(Collect())) == []


# What is read does not depend on how it is read


@few
@given(
    text=st.text("ab\r\n\0é€", max_size=40),
    name=names,
    size=pieces,
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_text_is_cut_at_line_feeds_wherever_pieces_end(
    text: str, name: str, size: int, encoding: str
) -> None:
    with TemporaryDirectory() as folder, reading(size):
        path = store(Path(folder) / name, text.encode(encoding))
        assert done(TextFileSource(path, encoding=encoding).to(Collect())) == expected_lines(text)


@few
@given(
    values=st.lists(st.none() | st.dictionaries(st.text(max_size=3), st.integers())),
    ends=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"]),
    start=st.sampled_from(["", "\n", "\ufeff", "\ufeff\n"]),
    name=names,
    size=pieces,
)
def test_json_lines_with_blank_lines_and_a_mark(
    values: list[Any], ends: str, start: str, name: str, size: int
) -> None:
    with TemporaryDirectory() as folder, reading(size):
        written = start + ends.join(json.dumps(value) for value in values)
        path = store(Path(folder) / name, written.encode())
        assert done(JsonLinesSource(path).to(Collect())) == values


@few
@given(
    rows=st.lists(st.tuples(text, text), max_size=8),
    name=names,
    size=pieces,
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_records_are_those_of_the_csv_module(
    rows: list[tuple[str, str]], name: str, size: int, mark: str
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([('first "1"', "second"), *rows])
    with TemporaryDirectory() as folder, reading(size):
        path = store(Path(folder) / name, (mark + out.getvalue()).encode())
        assert done(CsvSource(path).to(Collect())) == [{'first "1"': a, "second": b} for a, b in rows]


# Positions


@few
@given(text=st.text("ab\n", max_size=20), name=names, size=pieces)
def test_text_goes_on_behind_every_line(text: str, name: str, size: int) -> None:
    with TemporaryDirectory() as folder, reading(size):
        path = store(Path(folder) / name, text.encode())
        whole = expected_lines(text)
        for position in range(len(whole) + 1):
            assert restarted(TextFileSource(path), position) == whole[position:]


def every_position(make: Callable[[], Source[Any]]) -> list[tuple[int, list[Any]]]:
    """The positions at which checkpoints of a slow run were taken, with what it had read by then."""
    history: list[tuple[int, list[Any]]] = []

    async def work() -> None:
        source, seen = make(), list[Any]()
        reader = await source.open(Context(type(source).__name__))  # type: ignore[arg-type]
        try:
            while (chunk := await reader.read()) is not None:
                seen += chunk.values
                history.append((reader.position(), list(seen)))
        finally:
            await reader.close()

    real(work())
    return history


class Context:
    """As much of a `SourceContext` as a reader of a file needs."""

    position = None

    def __init__(self, step: str) -> None:
        self.step = step


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (CsvSource, b'a,b\n1,"x\ny"\n\n2,z\r\n3,"\n\n"\n\n'),
        (JsonLinesSource, b"1\n\n2\n\n\n3\n\n"),
        (TextFileSource, b"a\n\nb\nc"),
    ],
)
def test_each_source_goes_on_at_each_of_its_positions(tmp_path: Path, make: Any, data: bytes) -> None:
    path = store(tmp_path / "data.gz", data)
    with reading(1):
        source = make(path)
        flows = source.flows()
        decode: Callable[[Any], Any] = flows[0].f if flows else lambda line: line
        whole = done(source.to(Collect()))
        history = every_position(lambda: source)
        assert len(history) == len(whole) > 2
        for position, seen in history:
            assert [decode(value) for value in seen] + restarted(source, position) == whole


def test_chunks_are_no_larger_than_chunks_may_be(tmp_path: Path) -> None:
    path = store(tmp_path / "numbers", b"".join(b"%d\n" % n for n in range(5000)))
    for make in (TextFileSource, JsonLinesSource, CsvSource):
        seen = [len(values) for _, values in every_position(lambda make=make: make(path))]  # type: ignore[misc]
        sizes = [after - before for before, after in zip([0, *seen], seen, strict=False)]
        assert max(sizes) == CHUNK_SIZE
        assert len(sizes) == 5


def test_many_blocks_in_order_and_positions(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"{n}\n" for n in range(5000)))
    assert done(TextFileSource(path).to(Collect())) == [str(n) for n in range(5000)]
    saved = MemoryStore()
    done(TextFileSource(path).to(Collect()), checkpoint=Checkpoint(store=saved))
    assert saved.history[-1].positions == {"TextFileSource": 5000}
    assert restarted(TextFileSource(path), 4990) == [str(n) for n in range(4990, 5000)]


@pytest.mark.parametrize("make", [TextFileSource, JsonLinesSource, CsvSource])
def test_a_file_that_has_become_shorter_is_not_the_one_that_was_read(tmp_path: Path, make: Any) -> None:
    path = store(tmp_path / "data", b"1\n2\n3\n")
    with pytest.raises(ConnectorError, match="cannot go on in .*data': it ends with line 3, and 4 lines"):
        restarted(make(path), 4)


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_what_a_checkpoint_counts_is_in_the_file(tmp_path: Path, name: str) -> None:
    source, target = tmp_path / "in.txt", tmp_path / name
    source.write_text("".join(f"{n}\n" for n in range(50_000)))
    counted: list[tuple[int, int]] = []

    class Reading(MemoryStore):
        async def commit(self, pipeline: str, change: Snapshot) -> None:
            data = target.read_bytes()
            if target.suffix == ".gz":
                data = zlib.decompressobj(31).decompress(data)
            counted.append((change.positions["TextFileSource"], data.count(b"\n")))
            await super().commit(pipeline, change)

    checkpoint = Checkpoint(every=timedelta(milliseconds=1), store=Reading())
    assert done(TextFileSource(source).to(JsonLinesSink(target)), checkpoint=checkpoint) == 50_000
    assert len(counted) > 1
    assert all(position <= written for position, written in counted)


# Ends


def test_a_branch_that_takes_a_few_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("x\n" * 100_000)
    assert len(done(TextFileSource(path).via(Take(3)).to(Collect()))) == 3


def test_appending_goes_on_below(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for _ in range(2):
        done(Source([Plain("a", 1)]).to(CsvSink(path, append=True)))
    assert path.read_text() == "name,count\na,1\na,1\n"
    done(Source([Plain("b", 2)]).to(CsvSink(path)))
    assert path.read_text() == "name,count\nb,2\n"


def test_appending_to_other_columns_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "rows.csv.gz", b"name,count\na,1\n")
    assert done(Source([{"count": 2, "name": "b"}]).to(CsvSink(path, append=True))) == 1
    assert gzip.decompress(path.read_bytes()) == b"name,count\na,1\nb,2\n"
    with pytest.raises(ConnectorError, match=r"its columns are \['name', 'count'\], not \['name'\]"):
        done(Source([{"name": "b"}]).to(CsvSink(path, ["name"], append=True)))
    with pytest.raises(StepError, match="a record of name does not fit the columns name, count"):
        done(Source([{"name": "b"}]).to(CsvSink(path, append=True)))
    assert gzip.decompress(path.read_bytes()) == b"name,count\na,1\nb,2\n"


@pytest.mark.parametrize("name", ["out.txt", "out.txt.gz"])
def test_text_and_json_are_appended(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    done(Source(["a"]).to(TextFileSink(path, append=True)))
    done(Source([1, 2]).to(JsonLinesSink(path, append=True)))
    assert done(TextFileSource(path).to(Collect())) == ["a", "1", "2"]
    done(Source(["b"]).to(TextFileSink(path)))
    assert done(TextFileSource(path).to(Collect())) == ["b"]
