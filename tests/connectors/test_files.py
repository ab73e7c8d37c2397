"""File sources and sinks against the same data in plain Python; restarts, failures, and threads that end."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import os
import select
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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

import streamflow
from streamflow import (
    Checkpoint,
    CodecError,
    ConfigurationError,
    ConnectorError,
    KeyedValue,
    Pipeline,
    Skip,
    Source,
    StepError,
    Window,
)
from streamflow.connectors import (
    Collect,
    CsvSink,
    CsvSource,
    Discard,
    ForEach,
    JsonLinesSink,
    JsonLinesSource,
    TextFileSink,
    TextFileSource,
    _lines,
)
from streamflow.connectors import _blocking as blocking
from streamflow.engine.checkpoint import Snapshot
from streamflow.engine.chunk import CHUNK_SIZE
from streamflow.engine.connector import Reader, SourceContext
from streamflow.operators import Map, Take
from streamflow.testing import MemoryStore
from tests.support import Acknowledging, AcknowledgingReader, Ledger, real, run, until

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


# Failures


def test_a_bad_line_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"name": "a", "count": 1}\n\n{"name": 3}\nnonsense\n{"name": "b", "count": 2}\n')
    with pytest.raises(StepError, match=r"'JsonLinesSource'.*line 3") as caught:
        done(JsonLinesSource(path, Row).to(Collect()))
    assert isinstance(caught.value.cause, streamflow.CodecError)
    good = done(JsonLinesSource(path, Row).to(Collect()), on_error=streamflow.Skip())
    assert good == [Row("a", 1), Row("b", 2)]
    own = JsonLinesSource(path, Row, on_error=streamflow.Skip())
    assert done(own.to(Discard())) == 2


def test_a_row_of_another_length_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('name,count\n"a\nb",1\nshort\nc,2,3\nd,4\n')
    with pytest.raises(StepError, match=r"data.csv, line 4: 1 fields, and the header has 2"):
        done(CsvSource(path).to(Collect()))
    rows = done(CsvSource(path, Plain).to(Collect()), on_error=streamflow.Skip())
    assert rows == [Plain("a\nb", 1), Plain("d", 4)]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        ConnectorError, match=r"pipeline 'p', step 'TextFileSource': .*missing.txt.*No such file"
    ):
        done(TextFileSource(tmp_path / "missing.txt").to(Discard(), name="p"))
    (tmp_path / "bad.gz").write_bytes(b"not zipped at all")
    with pytest.raises(ConnectorError, match="bad.gz"):
        done(TextFileSource(tmp_path / "bad.gz").to(Discard()))
    zipped = gzip.compress(b"line\n" * 100_000)
    (tmp_path / "cut.gz").write_bytes(zipped[: len(zipped) // 2])
    with pytest.raises(ConnectorError, match=r"cut.gz', line \d+: Compressed file ended"):
        done(TextFileSource(tmp_path / "cut.gz").to(Discard()))
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ConnectorError, match="latin.txt"):
        done(TextFileSource(tmp_path / "latin.txt").to(Discard()))
    assert done(TextFileSource(tmp_path / "latin.txt", encoding="latin-1").to(Collect())) == ["é"]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError, match=r"step 'TextFileSink': cannot write .*nowhere"):
        done(Source(["x"]).to(TextFileSink(tmp_path / "nowhere" / "file")))
    with pytest.raises(ConnectorError, match="No space left"):
        done(Source(["x"] * 100_000).to(TextFileSink("/dev/full")))
    with pytest.raises(StepError, match="line break"):
        done(Source(["a\nb"]).to(TextFileSink(tmp_path / "file")))
    with pytest.raises(StepError, match="no named fields"):
        done(Source([1]).to(CsvSink(tmp_path / "file")))
    with pytest.raises(StepError, match="a record of b does not fit the columns a"):
        done(Source([{"a": 1}, {"b": 1}]).to(CsvSink(tmp_path / "file")))
    assert (tmp_path / "file").read_text() == "a\n1\n"


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_messages_are_acknowledged_when_their_lines_are_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    written: list[list[int]] = []

    class Watched(Ledger):
        def note(self, what: str, positions: Iterable[int]) -> None:
            if positions := list(positions):
                data = path.read_bytes()
                if path.suffix == ".gz":
                    data = zlib.decompressobj(31).decompress(data)
                written.append([int(line) for line in data.split()])
                assert what == "acked"
                assert set(positions) <= set(written[-1])
            super().note(what, positions)

    class Watching(Acknowledging):
        async def open(self, context: SourceContext) -> Reader:
            reader = await super().open(context)
            assert isinstance(reader, AcknowledgingReader)
            self.ledger = reader.ledger = Watched()
            return reader

    source = Watching(20, [3, 4])
    assert run(source.to(JsonLinesSink(path))) == 20
    assert sorted(source.ledger.acked) == list(range(20)) == written[-1]
    assert len(written) == 3


def test_undecodable_bytes_are_named_and_what_comes_before_them_is_read(tmp_path: Path) -> None:
    for number in (1, 2, 3000):
        good = [f"{n}é" for n in range(1, number)]
        path = store(
            tmp_path / "data.txt", "".join(f"{line}\n" for line in good).encode() + b"ab\xffc\nrest\n"
        )
        for size in (5, blocking.PIECE):
            seen: list[str] = []
            said = rf"data.txt', line {number}: byte 0xff is no utf-8 text: invalid start byte"
            with reading(size), pytest.raises(ConnectorError, match=said):
                done(TextFileSource(path).to(ForEach(seen.append)))
            assert seen == good


def test_csv_that_is_none(tmp_path: Path) -> None:
    path = store(tmp_path / "data.csv", b'a,b\n1,2\n3,"x"y\n4,5\n6,"open\n7,8\n')
    with pytest.raises(StepError, match="data.csv, line 3: malformed: ',' expected after '\"'"):
        done(CsvSource(path).to(Collect()))
    rows = done(CsvSource(path, on_error=Skip()).to(Collect()))
    assert rows == [{"a": "1", "b": "2"}, {"a": "4", "b": "5"}]
    with pytest.raises(ConnectorError, match="line 2: the header has 'a' twice"):
        done(CsvSource(store(path, b"a,b,a\n1,2,3\n")).to(Collect()))
    with pytest.raises(ConnectorError, match=r"line 3: byte 0xff"):
        done(CsvSource(store(path, b"a\n1\n\xff\n")).to(Collect()), on_error=Skip())
    with pytest.raises(
        StepError, match="line 2: ValidationError: Expected `int`, got `str` - at `\\$.count`"
    ):
        done(CsvSource(store(path, b"name,count\na,one\n"), Row).to(Collect()))
    with pytest.raises(StepError, match="line 2: ValidationError: Object missing required field `count`"):
        done(CsvSource(store(path, b"name\na\n"), Row).to(Collect()))


def test_records_without_room_in_csv(tmp_path: Path) -> None:
    for record in (KeyedValue("a", Window(0.0, 1.0, 2)), {"a": [1]}, {"a": Row("b", 1)}):
        with pytest.raises(StepError, match="is no scalar"):
            done(Source([record]).to(CsvSink(tmp_path / "out.csv")))
    with pytest.raises(StepError, match="cannot encode"):
        done(Source([{"a": object()}]).to(CsvSink(tmp_path / "out.csv")))
    good = Source([{"a": [1]}, {"a": 1}, {"b": 1}, {"a": 2}]).to(
        CsvSink(tmp_path / "out.csv", on_error=Skip())
    )
    assert done(good) == 2
    assert (tmp_path / "out.csv").read_text() == "a\n1\n2\n"


def test_text_that_cannot_be_a_line(tmp_path: Path) -> None:
    values: list[Any] = ["a\nb", "a\r", 3, "é", "ok"]
    sink = TextFileSink(tmp_path / "out.txt", encoding="ascii", on_error=Skip())
    assert done(Source(values).to(sink)) == 1
    with pytest.raises(StepError, match="TextFileSink writes str, not int"):
        done(Source([3]).to(TextFileSink(tmp_path / "out.txt")))  # type: ignore[arg-type]


def test_a_file_without_lines_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = store(tmp_path / "zeros.gz", bytes(1_000_000))
    with pytest.MonkeyPatch.context() as patch, reading(1000):
        patch.setattr(_lines, "LONGEST", 100_000)
        with pytest.raises(ConnectorError, match="zeros.gz', line 1: a line is longer than 100000"):
            done(TextFileSource(path).to(Collect()))


@pytest.mark.parametrize("make", [TextFileSource, JsonLinesSource, CsvSource])
def test_paths_that_cannot_be_opened(tmp_path: Path, make: Any) -> None:
    with pytest.raises(ConnectorError, match="No such file"):
        done(make(tmp_path / "missing").to(Discard()))
    with pytest.raises(ConnectorError, match="Is a directory"):
        done(make(tmp_path).to(Discard()))


def test_a_file_that_must_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = store(tmp_path / "secret", b"x\n")
    path.chmod(0)
    with pytest.raises(ConnectorError, match="Permission denied"):
        done(TextFileSource(path).to(Discard()))
    with pytest.raises(ConnectorError, match="Permission denied"):
        done(Source(["x"]).to(TextFileSink(path)))


def test_nonsense_is_refused_at_once(tmp_path: Path) -> None:
    for make in (TextFileSource, JsonLinesSource, CsvSource, TextFileSink, JsonLinesSink, CsvSink):
        for path in (None, 3, b"x", "", "a\0b"):
            with pytest.raises(ConfigurationError, match=f"{make.__name__} takes the path of a file"):
                make(path)  # type: ignore[arg-type]
    bad: list[Callable[[], object]] = [
        lambda: TextFileSource("x", encoding="no-such"),
        lambda: TextFileSink("x", encoding="base64"),
        lambda: JsonLinesSource("x", object()),
        lambda: JsonLinesSource("x", on_error=Skip),  # type: ignore[call-overload]
        lambda: CsvSource("x", int),
        lambda: CsvSource("x", list[int]),
        lambda: CsvSource("x", Context),
        lambda: CsvSource("x", delimiter=""),
        lambda: CsvSink("x", delimiter="ab"),
        lambda: CsvSink("x", []),
        lambda: CsvSink("x", "name"),
    ]
    for make_bad in bad:
        with pytest.raises(ConfigurationError):
            make_bad()


def test_the_disk_is_full_at_any_time() -> None:
    sinks: list[Any] = [TextFileSink("/dev/full"), CsvSink("/dev/full", ["a"]), JsonLinesSink("/dev/full")]
    for sink, value in zip(sinks, ["x", {"a": 1}, "x"], strict=True):
        with pytest.raises(ConnectorError, match="cannot write to '/dev/full': No space left on device"):
            done(Source([value]).to(sink))


def test_devices_take_what_they_take() -> None:
    assert done(Source(["x"] * 5000).to(TextFileSink("/dev/null"))) == 5000
    assert done(TextFileSource("/dev/null").to(Collect())) == []


# Pipes, stops and threads


def test_a_named_pipe_is_read_as_lines_come_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def work(end: str) -> list[str]:
        seen: list[str] = []
        async with TextFileSource(path).to(ForEach(seen.append)).start() as running:
            with path.open("w") as pipe:
                for number in range(3):
                    pipe.write(f"{number}\n")
                    pipe.flush()
                    while len(seen) <= number:
                        await asyncio.sleep(0)
                await getattr(running, end)()
        return seen

    for end in ("stop", "drain"):
        assert real(work(end)) == ["0", "1", "2"]


def test_a_named_pipe_that_nobody_writes_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    async def work() -> None:
        async with CsvSource(tmp_path / "pipe").to(Discard()).start() as running:
            await running.stop()

    real(work())


def test_a_named_pipe_that_nobody_reads_is_an_error_or_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ConnectorError, match="cannot write to"):
        done(Source(["x"]).to(TextFileSink(path)))

    async def work() -> int:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            async with Source(["x" * 1_000_000]).to(TextFileSink(path)).start() as running:
                await until(lambda: select.select([reader], [], [], 0)[0])
                await running.stop()  # the pipe is full before all of it is written
            return len(os.read(reader, 100))
        finally:
            os.close(reader)

    assert real(work()) == 100


ENDS: Sequence[str] = ("drain", "stop", "cancel", "fail")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_no_thread_outlives_a_run(tmp_path: Path, end: str, suffix: str) -> None:
    source = store(tmp_path / f"in{suffix}", b"x\n" * 300_000)
    target = tmp_path / f"out{suffix}"

    def fail(line: str) -> str:
        if end == "fail" and len(seen) > 5000:
            raise ValueError("enough")
        seen.append(line)
        return line

    seen: list[str] = []
    pipeline = TextFileSource(source).via(Map(fail)).to(TextFileSink(target))

    async def work() -> None:
        if end == "cancel":
            task = asyncio.create_task(pipeline.run())
            await until(lambda: len(seen) > 2000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        async with pipeline.start() as running:
            await until(lambda: len(seen) > 2000)
            if end == "fail":
                with pytest.raises(StepError, match="enough"):
                    await running.wait()
            elif end == "drain":
                await running.drain()
            else:
                await running.stop()

    if end == "fail":
        with pytest.raises(StepError, match="enough"):
            real(work())
    else:
        real(work())
    assert 2000 < len(seen) < 300_000
    if end == "drain":  # finished in every respect
        assert done(TextFileSource(target).to(Collect())) == seen


def test_reading_stays_one_block_ahead(tmp_path: Path) -> None:
    path = store(tmp_path / "in", b"x\n" * 100_000)
    reads: list[int] = []

    async def work() -> None:
        source = TextFileSource(path)
        reader = await source.open(Context("in"))  # type: ignore[arg-type]
        try:
            await reader.read()
            taken = len(reads)
            await asyncio.get_running_loop().run_in_executor(reader._worker._executor, int)  # type: ignore[attr-defined]
            assert len(reads) <= taken + 1 <= 3
        finally:
            await reader.close()

    with reading(2048), pytest.MonkeyPatch.context() as patch:
        read = blocking.Input.read

        def counted(self: blocking.Input) -> bytes:
            reads.append(1)
            return read(self)

        patch.setattr(blocking.Input, "read", counted)
        real(work())
    assert len(reads) <= 3


def test_a_source_can_run_twice(tmp_path: Path) -> None:
    source = JsonLinesSource(store(tmp_path / "in", b"1\n2\n"), int)
    assert done(source.to(Collect())) == done(source.to(Collect())) == [1, 2]


def test_errors_of_the_codec_are_codec_errors_with_their_cause(tmp_path: Path) -> None:
    path = store(tmp_path / "in", b"{\n")
    with pytest.raises(StepError, match=r"in, line 1: Json\(\) cannot decode") as caught:
        done(JsonLinesSource(path).to(Collect()))
    assert isinstance(caught.value.cause, CodecError)
    assert isinstance(caught.value.cause.__cause__, msgspec.DecodeError)
