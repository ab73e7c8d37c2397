"""`run` and `App` as processes: signals, exit codes, and one clear line for what failed."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamflow import App, ConfigurationError, Pipeline, Source, run
from streamflow.connectors import Collect
from streamflow.testing import NatsServer
from tests.child import Child, child

PREAMBLE = """
import asyncio, os, sys, threading
if "WITHOUT_UVLOOP" in os.environ:
    sys.modules["uvloop"] = None
from streamflow import App, Skip, Source, run
from streamflow.connectors import Collect, Into
from streamflow.operators import Count, Map, MapAsync

async def endless():
    for number in range(10**9):
        yield number
        await asyncio.sleep(0.001)

started, finished = [], []

async def slowly(number):
    started.append(number)
    if number == 20:
        print("busy", flush=True)
    await asyncio.sleep(0.3)
    finished.append(number)
    return number

async def never(number):
    print("stuck", flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        print("let go", flush=True)

def one_of(number):
    return 10 // number
"""

IN_FLIGHT = """
if __name__ == "__main__":
    count = run(Source(endless).via(MapAsync(slowly, concurrency=50)).to(Into(Count()), name="jobs"))
    assert started == finished and len(started) == count > 20, (started, finished, count)
    print("all", count)
"""

STUCK = 'run(Source(endless).via(MapAsync(never)).to(Collect(), name="jobs"))'


@contextmanager
def service(folder: Path, code: str, **environment: str) -> Iterator[Child]:
    """Run a script that begins with `PREAMBLE`."""
    (folder / "service.py").write_text(f"{PREAMBLE}\n{code}\n", encoding="utf-8")
    with child("service.py", cwd=folder, **environment) as started:
        yield started


LOOPS = [{}, {"WITHOUT_UVLOOP": "1"}]


@pytest.mark.parametrize("loop", LOOPS, ids=["installed loop", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, number: signal.Signals, loop: dict[str, str]) -> None:
    with service(tmp_path, IN_FLIGHT, **loop) as jobs:
        jobs.wait_for("busy")
        jobs.send(number)
        assert jobs.end() == 0, jobs.output
        assert "all " in jobs.output
        assert f"draining signal={number.name}" in jobs.output
        assert "drained pipeline=jobs" in jobs.output


@pytest.mark.parametrize("loop", LOOPS, ids=["installed loop", "asyncio"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_stops_at_once(
    tmp_path: Path, number: signal.Signals, code: int, loop: dict[str, str]
) -> None:
    with service(tmp_path, STUCK, STREAMFLOW_DRAIN_TIMEOUT="3600", **loop) as jobs:
        jobs.wait_for("stuck")
        jobs.send(number)
        jobs.wait_for("draining")
        # Not two that a supervisor sends as one, but a second one.
        other = signal.SIGINT if number is signal.SIGTERM else signal.SIGTERM
        jobs.send(other)
        assert jobs.end() == code, jobs.output
        assert "let go" in jobs.output
        assert "stopping now reason='asked again'" in jobs.output


def test_a_signal_that_is_sent_to_process_and_group_counts_once(tmp_path: Path) -> None:
    twice = """
import signal
import socket
async def interrupt(number):
    if number == 20:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    return await slowly(number)
"""
    with service(tmp_path, twice + IN_FLIGHT.replace("MapAsync(slowly", "MapAsync(interrupt")) as jobs:
        assert jobs.end() == 0, jobs.output
        assert "all " in jobs.output


def test_a_drain_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with service(tmp_path, STUCK, STREAMFLOW_DRAIN_TIMEOUT="0.2") as jobs:
        jobs.wait_for("stuck")
        jobs.send(signal.SIGTERM)
        assert jobs.end() == 143, jobs.output
        assert "let go" in jobs.output
        assert "stopping now reason='not drained within 0.2 s'" in jobs.output


def test_a_third_signal_ends_even_a_step_that_keeps_the_loop_busy(tmp_path: Path) -> None:
    code = """
def busy(number):
    print("busy", flush=True)
    while True:
        pass
run(Source([1]).via(Map(busy)).to(Collect()))
"""
    with service(tmp_path, code) as jobs:
        jobs.wait_for("busy")
        jobs.send(signal.SIGINT)
        jobs.send(signal.SIGTERM)
        # The loop is busy and tells nobody when it has them: send until one ends it.
        while jobs.process.poll() is None:
            jobs.send(signal.SIGINT)
        assert jobs.end() in (-signal.SIGINT, -signal.SIGTERM)


def test_a_signal_while_connectors_open_ends_the_run(tmp_path: Path) -> None:
    code = """
from streamflow import Sink
class Unreachable(Sink):
    async def open(self, context):
        print("opening", flush=True)
        await asyncio.sleep(3600)
run(Source(endless).to(Unreachable()))
"""
    with service(tmp_path, code) as jobs:
        jobs.wait_for("opening")
        jobs.send(signal.SIGTERM)
        assert jobs.end() == 0, jobs.output


def test_ctrl_c_reaches_worker_processes_too_and_drains_all_the_same(tmp_path: Path) -> None:
    code = """
def work(number):
    import time
    if number == 50:
        print("busy", flush=True)
    time.sleep(0.01)
    return number
if __name__ == "__main__":
    count = run(Source(endless).via(Map(work, executor="process", concurrency=2)).to(Into(Count())))
    print("all", count)
"""
    with service(tmp_path, code) as jobs:
        jobs.wait_for("busy")
        jobs.send(signal.SIGINT, group=True)
        assert jobs.end() == 0, jobs.output
        assert "all " in jobs.output
        assert "Traceback" not in jobs.output


FAILING = 'run(Source([5, 0]).via(Map(one_of)).to(Collect(), name="jobs"))\nprint("not reached")'


def test_a_failure_is_one_clear_line_and_exit_code_1(tmp_path: Path) -> None:
    with service(tmp_path, FAILING) as jobs:
        assert jobs.end() == 1
        started, failed = jobs.lines
        assert "started pipeline=jobs" in started
        assert "pipeline 'jobs', step 'Map': failed on 0: ZeroDivisionError" in failed


def test_the_traceback_is_there_for_those_who_debug(tmp_path: Path) -> None:
    with service(tmp_path, FAILING, STREAMFLOW_LOG_LEVEL="debug") as jobs:
        assert jobs.end() == 1
        assert "in one_of\n    return 10 // number" in jobs.output


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            'run(Source([1]).to(Collect()), delivery="exactly_once")',
            "delivery='exactly_once' commits outputs",
        ),
        ('run(Source([1]).to(Collect()), delivery="perhaps")', "delivery must be one of"),
        ("run(Source([1]).to(Collect()), speed=3)", "unknown option 'speed'"),
    ],
)
def test_a_run_that_is_refused_is_one_clear_line(tmp_path: Path, code: str, reason: str) -> None:
    with service(tmp_path, code) as jobs:
        assert jobs.end() == 1
        (line,) = jobs.lines
        assert reason in line


def test_wrong_settings_are_one_clear_line(tmp_path: Path) -> None:
    with service(tmp_path, "run(Source([1]).to(Collect()))", STREAMFLOW_LOG_LEVEL="loud") as jobs:
        assert jobs.end() == 1
        (line,) = jobs.lines
        assert "log_level must be one of debug, info, warning, error, not 'loud'" in line


def test_logs_as_json(tmp_path: Path) -> None:
    with service(tmp_path, FAILING, STREAMFLOW_LOG_FORMAT="json") as jobs:
        assert jobs.end() == 1
        started, failed = map(json.loads, jobs.lines)
        assert (started["event"], started["level"], started["pipeline"]) == ("started", "info", "jobs")
        assert (failed["event"], failed["level"]) == ("failed", "error")
        assert failed["error"].endswith("ZeroDivisionError: integer division or modulo by zero")


def test_dropped_elements_are_logged_and_counted(tmp_path: Path) -> None:
    code = "print(run(Source([5, 0, 0, 0, 2]).via(Map(one_of)).to(Collect()), on_error=Skip()))"
    with service(tmp_path, code, STREAMFLOW_LOG_FORMAT="json") as jobs:
        assert jobs.end() == 0
        _, first, rest, finished = map(json.loads, jobs.lines[:4])
        assert (first["event"], first["count"]) == ("element dropped by its error policy", 1)
        assert (rest["count"], rest["total"], rest["step"]) == (2, 3, "Map")
        assert finished["failed"] == 3
        assert jobs.lines[4] == "[2, 5]\n"


def test_best_effort_says_what_a_crash_loses(tmp_path: Path) -> None:
    with service(tmp_path, 'run(Source([1]).to(Collect()), delivery="best_effort")') as jobs:
        assert jobs.end() == 0
        assert "at_its_end='what steps remember is lost'" in jobs.output


def test_pipelines_side_by_side(tmp_path: Path) -> None:
    code = """
both = App(Source([1, 2]).to(Collect(), name="few"), Source(range(1000)).to(Into(Count()), name="many"))
print(both.run(), both.results)
"""
    with service(tmp_path, code) as jobs:
        assert jobs.end() == 0
        assert jobs.lines[-1] == "0 ([1, 2], 1000)\n"


def test_a_failure_drains_the_others(tmp_path: Path) -> None:
    code = """
async def fail(number):
    while len(started) < 30:
        await asyncio.sleep(0.001)
    raise ValueError("no more")
ends = Source([1]).to(Collect(), name="short")
jobs = Source(endless).via(MapAsync(slowly, concurrency=50)).to(Into(Count()), name="jobs")
bad = Source([1]).via(MapAsync(fail)).to(Collect(), name="bad")
app = App(ends, jobs, bad)
code = app.run()
assert started == finished and len(started) == app.results[1] >= 30, (started, finished)
print(app.results[0], app.results[2])
sys.exit(code)
"""
    with service(tmp_path, code) as jobs:
        assert jobs.end() == 1, jobs.output
        assert "drained pipeline=jobs" in jobs.output
        assert len([line for line in jobs.lines if "[error" in line]) == 1
        assert jobs.lines[-1] == "[1] None\n"


def one() -> Pipeline[list[int]]:
    return Source([1]).to(Collect(), name="one")


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs a pipeline"):
        App()
    with pytest.raises(ConfigurationError, match="takes pipelines, not"):
        App(Source([1]))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="two pipelines are named 'one'"):
        App(one(), one())
    with pytest.raises(ConfigurationError, match="settings must be"):
        App(one(), settings={"log_level": "info"})


async def runs_inside() -> None:
    run(one())


def test_inside_a_coroutine_it_says_what_to_call() -> None:
    with pytest.raises(ConfigurationError, match="await pipeline.run"):
        asyncio.run(runs_inside())


def test_connectors_find_the_server_in_the_settings_and_end_without_a_word(tmp_path: Path) -> None:
    code = """
from streamflow.connectors.jetstream import JetStreamSink, StreamSettings
sink = JetStreamSink("WORDS", "words.all", create=StreamSettings(["words.>"]))
print(run(Source([b"one", b"two"]).to(sink, name="words")))
"""
    with NatsServer() as server, service(tmp_path, code, STREAMFLOW_SERVERS=server.url) as jobs:
        assert jobs.end() == 0, jobs.output
        started, finished, result = jobs.lines
        assert "started pipeline=words" in started
        assert "finished pipeline=words" in finished
        assert result == "2\n"


def test_no_server_is_one_clear_line(tmp_path: Path) -> None:
    code = """
from streamflow.connectors.jetstream import JetStreamSource
run(JetStreamSource("WORDS", name="source").to(Collect(), name="words"))
"""
    with socket.socket() as taken:  # bound and not listening: a connection to it is refused
        taken.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{taken.getsockname()[1]}"
        with service(tmp_path, code, NATS_URL=url) as jobs:
            assert jobs.end() == 1
            (line,) = jobs.lines
            assert f"pipeline 'words', step 'source': cannot connect to NATS at {url}" in line
