"""File sources and sinks when something is wrong: bad records, unreadable and unwritable files, pipes, stops."""

from __future__ import annotations

import asyncio
import gzip
import os
import select
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import streamflow
from streamflow import (
    CodecError,
    ConfigurationError,
    ConnectorError,
    KeyedValue,
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
from streamflow.engine.connector import Reader, SourceContext
from streamflow.operators import Map
from tests.connectors.test_files import (
    Context,
    Plain,
    Row,
    done,
    reading,
    store,
)
from tests.support import Acknowledging, AcknowledgingReader, Ledger, real, run, until


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
