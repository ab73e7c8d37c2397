"""What `LogObserver` makes of a run's events. The set-up of the logs is tested where it happens, in `test_app`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from streamflow import Checkpoint, ConnectorError, EventTime, Skip, Source, StepError
from streamflow.connectors import Collect, Discard
from streamflow.operators import Count, Map, TumblingWindow
from streamflow.telemetry import LogObserver
from streamflow.telemetry.logs import set_up
from streamflow.testing import MemoryStore, VirtualClock, run_virtual


def failure(step: str = "Map") -> StepError:
    return StepError(pipeline="p", step=step, cause=ValueError("bad\nvalue"), element=1)


def of(event: str, logs: list[Any]) -> list[Any]:
    return [entry for entry in logs if entry["event"] == event]


def test_a_run_tells_of_start_and_end() -> None:
    pipeline = Source([1]).via(Map(str)).to(Collect(), name="words")
    with capture_logs() as logs:
        asyncio.run(pipeline.run(observers=[LogObserver("words")]))
    started, finished = logs
    assert started["steps"] == "Source → Map → Collect"
    assert (started["pipeline"], started["delivery"]) == ("words", "at_least_once")
    assert "at_its_end" not in started
    assert (finished["event"], finished["log_level"]) == ("finished", "info")


def test_a_flood_of_dropped_elements_is_counted_not_repeated() -> None:
    async def flood() -> None:
        observer = LogObserver("p")
        for _ in range(1000):
            observer.failed(failure(), absorbed=True)
        observer.failed(failure("other"), absorbed=True)
        await asyncio.sleep(11)
        observer.failed(failure(), absorbed=True)
        await asyncio.sleep(20)
        observer.failed(failure(), absorbed=True)
        observer.failed(failure(), absorbed=True)
        observer.ended("finished", None)

    with capture_logs() as logs:
        run_virtual(flood())
    dropped = of("element dropped by its error policy", logs)
    assert [(entry["step"], entry["count"], entry["total"]) for entry in dropped] == [
        ("Map", 1, 1),
        ("other", 1, 1),
        ("Map", 999, 1000),  # what came in ten seconds
        ("Map", 1, 1001),
        ("Map", 1, 1002),  # at once again, after ten quiet seconds
        ("Map", 1, 1003),  # the rest, at the end
    ]
    assert all(entry["log_level"] == "warning" for entry in dropped)
    assert dropped[0]["error"] == "pipeline 'p', step 'Map': failed on 1: ValueError: bad value"
    assert logs[-1]["failed"] == 1004


def test_late_elements_are_told_of() -> None:
    times: list[float] = [0, 100, 5, 7]
    windows = TumblingWindow(timedelta(seconds=10), time=EventTime(lambda at: at), into=Count())
    pipeline = Source(times).via(windows, name="tens").to(Discard())
    with capture_logs() as logs:
        asyncio.run(pipeline.run(observers=[LogObserver()]))
    (late,) = of("late elements", logs)
    assert (late["step"], late["count"], late["log_level"]) == ("tens", 2, "warning")
    assert logs[-1]["late"] == 2


def test_a_failure_is_told_once_and_in_one_line() -> None:
    pipeline = Source([1, 0]).via(Map(lambda x: 1 // x)).to(Collect())
    with capture_logs() as logs, pytest.raises(StepError):
        asyncio.run(pipeline.run(observers=[LogObserver()]))
    (failed,) = of("failed", logs)
    assert failed["log_level"] == "error"
    assert "ZeroDivisionError" in failed["error"]
    (trace,) = of("traceback of the failure", logs)
    assert trace["log_level"] == "debug"
    assert isinstance(trace["exc_info"], StepError)


def test_an_error_of_many_lines_becomes_one() -> None:
    with capture_logs() as logs:
        LogObserver().ended("failed", ConnectorError("no server:\n  here\n  nor there"))
    assert logs[0]["error"] == "no server: here nor there"


def test_events_of_connectors_and_checkpoints() -> None:
    observer = LogObserver()
    with capture_logs() as logs:
        observer.event("connection disconnected", servers=["nats://one"])
        observer.event("connection reconnected", servers=["nats://one"])
        observer.checkpointed(3, 10, 0.25)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("connection disconnected", "warning"),
        ("connection reconnected", "info"),
        ("checkpoint", "debug"),
    ]
    assert logs[0]["servers"] == ["nats://one"]
    assert (logs[2]["number"], logs[2]["entries"], logs[2]["seconds"]) == (3, 10, 0.25)


def test_checkpoints_of_a_run_are_logged_for_those_who_debug() -> None:
    async def run() -> None:
        pipeline = Source([1]).to(Collect(), name="saved")
        await pipeline.run(
            checkpoint=Checkpoint(store=MemoryStore()), clock=VirtualClock(), observers=[LogObserver()]
        )

    with capture_logs() as logs:
        run_virtual(run())
    assert of("checkpoint", logs)[-1]["number"] == 1


def test_what_fails_and_is_absorbed_in_a_run_is_logged() -> None:
    pipeline = Source([1, 0]).via(Map(lambda x: 1 // x)).to(Collect())
    with capture_logs() as logs:
        assert asyncio.run(pipeline.run(observers=[LogObserver()], on_error=Skip())) == [1]
    assert len(of("element dropped by its error policy", logs)) == 1


def test_an_application_that_has_configured_structlog_keeps_its_configuration() -> None:
    def mine(*_: object) -> str:
        return ""

    structlog.configure(processors=[mine])
    try:
        set_up("debug", "json")
        assert structlog.get_config()["processors"] == [mine]
    finally:
        structlog.reset_defaults()
