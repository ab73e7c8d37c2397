"""`streamflow demo` as a process, from end to end and interrupted. It is right, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamflow import KeyedValue, Window
from streamflow.cli import demo
from streamflow.cli.flights import arrival_order, batch, load
from tests.child import DEADLINE, Child, child, left_behind

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WINDOWS = 670


@contextmanager
def running_demo(folder: Path, *arguments: str) -> Iterator[Child]:
    temporary = folder / "temporary"
    temporary.mkdir()
    with child("-m", "streamflow.cli", "demo", *arguments, cwd=folder, TMPDIR=str(temporary)) as started:
        yield started
    assert not left_behind(temporary)


def test_without_a_terminal_it_prints_lines_and_the_results_are_right(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--rate", "6000") as shown:
        assert shown.end() == 0, shown.output
        assert f"matches the batch computation: {WINDOWS} windows" in shown.output
    lines = [line for line in shown.lines if " s  replayed " in line]
    assert "replayed 12,208  read 12,208" in lines[-1]
    assert f"lag 0  watermark 2013-01-15 04:52 UTC  windows {WINDOWS}" in lines[-1]
    assert "Open windows and results are committed" in shown.output
    assert re.search(r"├ by carrier +Keyed", shown.output)
    assert "\x1b" not in shown.output
    carriers = {flight.carrier for flight in load()}
    assert all(re.search(rf"│ {carrier} +│ +\d+ │", shown.output) for carrier in carriers)


def test_windows_appear_while_flights_arrive(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--rate", "4000") as shown:
        line = shown.wait_for(" latest ")
        counts = re.search(r"replayed ([\d,]+) .* windows (\d+)", line)
        assert counts is not None
        assert 0 < int(counts[2]) < WINDOWS
        assert 0 < int(counts[1].replace(",", "")) < 12_208
        shown.send(signal.SIGINT)
        assert shown.end() == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_neither_server_nor_files(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with running_demo(tmp_path, "--rate", "500") as shown:
        shown.wait_for("replayed")
        assert {type(left) for left in left_behind(tmp_path / "temporary")} == {int, type(tmp_path)}
        shown.send(number, group=True)
        assert shown.end() == code, shown.output
        assert shown.lines[-1] == "Interrupted. The server and its streams are gone.\n"


def test_interrupted_at_once_it_leaves_nothing_either(tmp_path: Path) -> None:
    with running_demo(tmp_path, "--rate", "500") as shown:
        shown.wait_for("streamflow demo")
        shown.send(signal.SIGINT, group=True)
        assert shown.end() == 130, shown.output


def test_on_a_terminal_it_draws_a_table(tmp_path: Path) -> None:
    import pty

    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    environment |= {"PYTHONPATH": os.getcwd(), "TMPDIR": str(tmp_path / "temporary")}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "streamflow.cli", "demo", "--rate", "6000"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        raw = read_all(ours, process)
        assert process.wait() == 0, raw
    shown = CONTROL.sub("", raw)
    assert f"matches the batch computation: {WINDOWS} windows" in shown
    assert raw.count("latest windows") > 3  # drawn again and again, in place
    assert "\x1b[1A" in raw
    assert re.search(r"by carrier/TumblingWindow +12,126 +[\d,]+ +670", shown)
    assert not left_behind(tmp_path / "temporary")


def read_all(terminal: int, process: subprocess.Popen[bytes]) -> str:
    """Everything that a process writes to its terminal; killed at the deadline."""
    chunks: list[bytes] = []
    end = time.monotonic() + DEADLINE
    try:
        while chunk := os.read(terminal, 65536):
            chunks.append(chunk)
            if time.monotonic() > end:
                process.kill()
    except OSError:  # how Linux tells that the other side is closed
        pass
    finally:
        os.close(terminal)
    return b"".join(chunks).decode(errors="replace")


def test_wrong_results_are_told() -> None:
    flights = arrival_order(load())[:500]
    right = [
        KeyedValue(carrier, Window(start, start + 6 * 3600.0, mean))
        for (carrier, start), (_, mean) in batch(flights).items()
    ]
    assert demo._differences(right, flights) == ""
    assert demo._differences(right[1:], flights).startswith(f"1 of {len(right)} windows, such as ")
    assert demo._differences([*right, right[0]], flights) == "1 windows came twice"
    first = right[0]
    wrong = KeyedValue(first.key, Window(first.value.start, first.value.end, first.value.value + 1))
    assert f"{first.value.value + 1} instead of {first.value.value}" in demo._differences(
        [wrong, *right[1:]], flights
    )


def test_the_pipeline_of_the_demo_can_be_drawn() -> None:
    graph = demo.delays().describe()
    assert [step.name for step in graph.steps] == [
        "flights",
        "departed",
        "delay",
        "by carrier",
        "show",
        "delays",
    ]
