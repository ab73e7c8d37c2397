"""Standard input and output of a real child process: pipes, files, a reader that went away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT

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


def child(code: str, **pipes: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)  # type: ignore[call-overload,no-any-return]


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


@pytest.mark.parametrize("closed", ["<&-"])
def test_a_closed_standard_input_is_said(closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, UPPER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "standard input is closed" in done.stderr
    assert done.returncode == 1
