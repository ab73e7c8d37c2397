"""A child process that a test talks with: it waits for what the child prints, and never for longer than a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

DEADLINE = 60.0
ROOT = Path(__file__).resolve().parent.parent


class Child:
    """A Python process in a session of its own, its output line by line."""

    def __init__(self, arguments: Sequence[str], cwd: Path, **environment: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_for(self, text: str) -> str:
        """Read on until a line contains ``text``, and return that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(
            f"ended with {self.process.wait()} and never printed {text!r}, but:\n{self.output}"
        )

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or as a terminal does it to all of its group."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self) -> int:
        """Read on to the end, and return the exit code."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout
        return self.process.wait()


@contextmanager
def child(*arguments: str, cwd: Path, **environment: str) -> Iterator[Child]:
    """Start ``python arguments``; whatever is left of its group at the end of the block or the deadline is killed."""
    started = Child(arguments, cwd, **environment)
    group = started.process.pid

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)

    watchdog = threading.Timer(DEADLINE, kill)
    watchdog.start()
    try:
        yield started
    finally:
        watchdog.cancel()
        watchdog.join()
        kill()
        started.process.wait()
        assert started.process.stdout is not None
        started.process.stdout.close()


def left_behind(folder: Path) -> list[int | Path]:
    """What is left of a child with its temporary files in ``folder``: those, and processes that were told of them."""
    left: list[int | Path] = list(folder.iterdir())
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked
            if str(folder).encode() in (process / "cmdline").read_bytes():
                left.append(int(process.name))
    return left
