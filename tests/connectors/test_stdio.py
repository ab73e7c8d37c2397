"""Standard input and output of a real child process: pipes, files, terminals, a reader that went away."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from streamflow import CodecError, ConfigurationError, ConnectorError, KeyedValue, Skip, Source, StepError
from streamflow.codecs import Json, Text
from streamflow.connectors import Collect, StdinSource, StdoutSink
from tests.repository import ROOT
from tests.support import DEADLINE, real

UPPER = """
import asyncio
from streamflow.connectors import StdinSource, StdoutSink
from streamflow.operators import Map
print(asyncio.run(StdinSource().via(Map(str.upper)).to(StdoutSink()).run()))
"""

DRAIN = """
import asyncio
from streamflow.connectors import StdinSource, StdoutSink

async def main():
    async with StdinSource().to(StdoutSink()).start() as running:
        while not running.stats().steps["StdoutSink"].received:
            await asyncio.sleep(0.01)
        await running.drain()
    print("drained")

asyncio.run(main())
"""

STOP = """
import asyncio, sys, threading
from itertools import count
from streamflow import Source
from streamflow.connectors import StdoutSink

async def main():
    async with Source(count).to(StdoutSink(lambda n: "x" * 1000)).start() as running:
        received = -1
        while received != (now := running.stats().steps.get("Source", 0) and running.stats().steps["Source"].received):
            received = now
            await asyncio.sleep(0.2)  # until nothing moves any more
        await running.stop()
    print(threading.active_count(), "thread", file=sys.stderr)

asyncio.run(main())
"""

QUIET = """
import asyncio
from datetime import timedelta
from streamflow import EventTime
from streamflow.codecs import Json
from streamflow.connectors import StdinSource, StdoutSink
from streamflow.operators import Count, TumblingWindow

time = EventTime(lambda x: x, idle_after=timedelta(milliseconds=100))
window = TumblingWindow(timedelta(seconds=1), time=time, into=Count())
asyncio.run(StdinSource(Json(float)).via(window).to(StdoutSink(lambda w: str(w.value))).run())
"""

PRINTS = """
import asyncio, sys
from streamflow import Source
from streamflow.codecs import Json
from streamflow.connectors import StdoutSink
print("before")
print(asyncio.run(Source([{"a": 1}, "ë"]).to(StdoutSink(codec=Json())).run()))
"""

ENDLESS = """
import asyncio
from itertools import count
from streamflow import Source, StreamflowError
from streamflow.connectors import StdoutSink
try:
    asyncio.run(Source(count).to(StdoutSink()).run())
except StreamflowError as error:
    import os, sys
    print(error, file=sys.stderr, flush=True)
    os._exit(3)  # standard output is gone: the interpreter would complain again
"""


@contextmanager
def child(code: str, **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs the code. It is killed after the deadline, so that a test fails instead of hanging."""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        timer = threading.Timer(DEADLINE, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def test_lines_of_a_pipe_come_and_go() -> None:
    with child(UPPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate("eins\nzwei\r\ndrei é".encode(), timeout=30)
    assert out.decode() == "EINS\nZWEI\nDREI É\n3\n"


def test_a_file_can_be_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_text("".join(f"a{n}\n" for n in range(20_000)))
    with path.open("rb") as file, child(UPPER, stdin=file, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=30)
    assert out.decode().splitlines() == [f"A{n}" for n in range(20_000)] + ["20000"]


def test_a_drain_does_not_wait_for_a_line() -> None:
    with child(DRAIN, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"first\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"first\n"
        assert process.stdout.readline() == b"drained\n"  # standard input is still open
        assert process.wait(30) == 0


def test_a_reader_that_went_away_is_an_error() -> None:
    with child(ENDLESS, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert "step 'StdoutSink': cannot write to standard output" in process.stderr.read().decode()
        assert process.wait(30) == 3


def test_a_reader_that_does_not_read_does_not_hold_up_a_stop() -> None:
    with child(STOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"1 thread\n"  # and standard output is still unread
        assert process.wait(30) == 0


def test_what_was_printed_before_comes_before() -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with child(PRINTS, stdout=subprocess.PIPE, env=env) as process:
        out, _ = process.communicate(timeout=30)
    assert out.decode() == 'before\n{"a":1}\n"ë"\n2\n'


def test_a_quiet_input_lets_windows_close() -> None:
    with child(QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"0.1\n0.2\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"2\n"  # standard input is still open
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_terminal_is_read_line_by_line_until_its_end() -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with child(UPPER, stdin=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            os.write(ours, line)
            assert process.stdout.readline() == line.upper()
        os.write(ours, b"\x04")  # control-D
        assert process.stdout.read() == b"2\n"
        assert process.wait(30) == 0
    os.close(ours)


def test_standard_input_stays_usable_and_blocking() -> None:
    code = (
        DRAIN
        + """
import os, sys
assert os.get_blocking(0)
print(input())
"""
    )
    with child(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"first\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"first\n"
        assert process.stdout.readline() == b"drained\n"
        out, _ = process.communicate(b"second\n", timeout=30)
    assert out == b"second\n"


@pytest.mark.parametrize("pipe", ["stdin", "stdout"])
def test_a_closed_standard_stream_is_said(pipe: str) -> None:
    closed, which = {"stdin": ("<&-", "input"), "stdout": (">&-", "output")}[pipe]
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, UPPER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        input=None if pipe == "stdin" else "x",
    )
    assert f"standard {which} is closed" in done.stderr
    assert done.returncode == 1


# In this process, on a pipe instead of standard input


@frozen
class Order:
    total: int


def read(data: bytes, source: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with open(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        async def work() -> list[Any]:
            found: list[Any] = await source.to(Collect()).run(**options)
            return found

        return real(work())


def test_lines_are_text_or_what_a_codec_makes_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(b"", StdinSource(), monkeypatch) == []
    assert read(b"\n\n a\r\n\nb", StdinSource(), monkeypatch) == ["", "", " a", "", "b"]
    assert read("é\n".encode("latin-1"), StdinSource(Text("latin-1")), monkeypatch) == ["é"]
    assert read(b'{"total":1}\n{"total":2}', StdinSource(Json(Order)), monkeypatch) == [Order(1), Order(2)]


def test_a_line_that_does_not_decode_is_named_and_can_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StepError, match=r"standard input, line 2: Json\(Order\) cannot decode") as caught:
        read(b'{"total":1}\nx\n', StdinSource(Json(Order)), monkeypatch)
    assert isinstance(caught.value.cause, CodecError)
    assert read(b"a\n\xff\nb\n", StdinSource(), monkeypatch, on_error=Skip()) == ["a", "b"]
    assert read(b"a\n\xff\nb\n", StdinSource(on_error=Skip()), monkeypatch) == ["a", "b"]


def test_an_input_without_descriptor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (io.StringIO("a"), None):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(ConnectorError, match="standard input is closed, or is no file"):
            real(StdinSource().to(Collect()).run())


# In this process, with standard output replaced


def write(values: list[Any], sink: StdoutSink[Any], **options: Any) -> int:
    async def work() -> int:
        return await Source(values).to(sink).run(**options)

    return real(work())


def test_lines_go_to_what_replaced_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert write([1, "é", None], StdoutSink()) == 3
    assert write([2], StdoutSink(lambda n: f"<{n}>")) == 1
    assert write([KeyedValue("a", 1)], StdoutSink(codec=Json())) == 1
    assert capsys.readouterr().out == '1\né\nNone\n<2>\n{"key":"a","value":1}\n'


def test_elements_that_cannot_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    sink = StdoutSink[Any](codec=Json(), on_error=Skip())
    assert write([object(), 1], sink) == 1
    with pytest.raises(StepError, match="makes int, not str"):
        write([1], StdoutSink(lambda n: n))
    assert capsys.readouterr().out == "1\n"


def test_a_replaced_output_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.StringIO()
    stdout.close()
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(ConnectorError, match="cannot write to standard output: I/O operation on closed file"):
        write([1], StdoutSink())


def test_nonsense_is_refused_at_once() -> None:
    for make in (
        lambda: StdinSource(Json),  # type: ignore[call-overload]
        lambda: StdinSource(on_error=Skip),  # type: ignore[call-overload]
        lambda: StdoutSink("x"),  # type: ignore[arg-type]
        lambda: StdoutSink(codec=Json),  # type: ignore[arg-type]
        lambda: StdoutSink(repr, codec=Json()),
    ):
        with pytest.raises(ConfigurationError):
            make()
