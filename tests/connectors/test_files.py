"""File sources and sinks against the same data in plain Python; restarts, failures, and threads that end."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

import streamflow
from streamflow import Checkpoint, ConnectorError, Pipeline, Source, StepError
from streamflow.connectors import (
    Collect,
    CsvSink,
    CsvSource,
    Discard,
    JsonLinesSink,
    JsonLinesSource,
    TextFileSink,
    TextFileSource,
)
from streamflow.operators import Take
from streamflow.testing import MemoryStore
from tests.support import Acknowledging, run

lines = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8), max_size=30
)
names = st.sampled_from(["data.txt", "data.txt.gz"])
few = settings(max_examples=30, deadline=None)


@frozen
class Row:
    name: str
    count: int


@dataclass
class Plain:
    name: str
    count: int


def done(pipeline: Pipeline[Any], **options: Any) -> Any:
    """Run in real time: threads do the work."""
    before = {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
    result = asyncio.run(asyncio.wait_for(pipeline.run(**options), 30))
    assert {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")} <= before
    return result


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


text = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=6)


@few
@given(rows=st.lists(st.builds(Row, text, st.integers(-9, 9)), min_size=1, max_size=20))
def test_rows_come_back_typed_with_quotes_and_line_breaks_in_fields(rows: list[Row]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        done(Source(rows).to(CsvSink(path)))
        assert done(CsvSource(path, Row).to(Collect())) == rows
        plain = done(CsvSource(path).to(Collect()))
        assert plain == [{"name": row.name, "count": str(row.count)} for row in rows]


def test_many_blocks_in_order_and_positions(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"{n}\n" for n in range(5000)))
    assert done(TextFileSource(path).to(Collect())) == [str(n) for n in range(5000)]
    store = MemoryStore()
    done(TextFileSource(path).to(Collect()), checkpoint=Checkpoint(store=store))
    assert store.history[-1].positions == {"TextFileSource": 5000}
    cut = streamflow.engine.checkpoint.Snapshot(1, {"TextFileSource": 4990})
    rest = done(TextFileSource(path).to(Collect()), checkpoint=Checkpoint(store=MemoryStore.at(cut)))
    assert rest == [str(n) for n in range(4990, 5000)]


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
    with pytest.raises(StepError, match=r"line 4: the row has another number of fields"):
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
    with pytest.raises(ConnectorError, match=r"cut.gz', after line \d+"):
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
    with pytest.raises(ConnectorError, match="does not fit the columns"):
        done(Source([{"a": 1}, {"b": 1}]).to(CsvSink(tmp_path / "file")))


def test_messages_are_acknowledged_when_their_lines_are_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    source = Acknowledging(20, [3, 4])
    assert run(source.to(JsonLinesSink(path))) == 20
    assert sorted(source.ledger.acked) == list(range(20))
    assert path.read_text() == "".join(f"{n}\n" for n in range(20))
