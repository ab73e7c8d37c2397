"""A crash at each point of a run, whatever the step remembers: the outcome is that of a run without one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import Checkpoint, EventTime, Pipeline, Stream
from streamflow.errors import ConfigurationError
from streamflow.operators import (
    Batch,
    Deduplicate,
    Fold,
    Keyed,
    Map,
    SessionWindow,
    StatefulMap,
    Sum,
    Take,
    Throttle,
    TumblingWindow,
    join,
)
from streamflow.state import MemoryBucket
from streamflow.testing import VirtualClock
from streamflow.testing.crash import POINTS, CommittedSink, crash_at, crash_everywhere
from tests.support import Chunked, cut, times_for, virtual

NUMBERS = [n * 7 % 40 for n in range(60)]


def numbers(name: str = "numbers") -> Chunked:
    """Sixty numbers in chunks, in 20 seconds."""
    chunks = cut(NUMBERS, [1, 4, 2, 7])
    return Chunked(chunks, name, times=times_for(chunks, [0.3, 1.7, 0.9]))


def at(n: int) -> float:
    return float(n // 5)


TIME: Any = EventTime(at, out_of_order=timedelta(seconds=8), idle_after=timedelta(days=1))


def joined() -> Stream[Any]:
    key: Any = lambda n: n % 9  # noqa: E731
    return join(numbers("left"), numbers("right"), on=(key, key), within=timedelta(seconds=3), time=TIME)


STREAMS: dict[str, Callable[[], Stream[Any]]] = {
    "fold": lambda: numbers().via(Fold(0, lambda total, n: total + n, state=int)),
    "keyed fold": lambda: numbers().via(
        Keyed(lambda n: n % 3, Fold(0, lambda total, n: total + n, state=int))
    ),
    "batch": lambda: numbers().via(Batch(7)),
    "tumbling": lambda: numbers().via(TumblingWindow(timedelta(seconds=3), time=TIME, into=Sum())),
    "keyed tumbling": lambda: numbers().via(
        Keyed(lambda n: n % 2, TumblingWindow(timedelta(seconds=3), time=TIME, into=Sum()))
    ),
    "session": lambda: numbers().via(Keyed(lambda n: n % 4, SessionWindow(timedelta(seconds=2), time=TIME))),
    "join": joined,
    "dedup": lambda: numbers().via(Deduplicate(lambda n: n % 17)),
    "throttle, take": lambda: numbers().via(Throttle(2, per=0.7)).via(Take(31)),
}


class World:
    """What a crash leaves: the bucket, and the time."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.bucket = MemoryBucket(clock=self.clock)

    def values(self) -> list[Any]:
        return CommittedSink.values(self.bucket)


def running(stream: Callable[[], Stream[Any]], every: float = 0.7) -> Callable[[World], Any]:
    async def run(world: World) -> None:
        pipeline: Pipeline[int] = stream().to(CommittedSink(), name="p")
        checkpoint = Checkpoint(world.bucket, every=every)
        await pipeline.run(checkpoint=checkpoint, delivery="exactly_once", clock=world.clock)

    return run


def by_key(world: World) -> list[Any]:
    """Keys come in any order in a window."""
    return sorted(world.values(), key=repr)


@pytest.mark.parametrize("name", STREAMS)
def test_a_crash_at_each_point_changes_nothing(name: str) -> None:
    outcome = by_key if "keyed" in name or name in ("session", "join") else World.values
    crashes = virtual(crash_everywhere(World, running(STREAMS[name]), outcome, times=4))
    assert crashes >= 20


STEPS: dict[str, Callable[[], Any]] = {
    "map": lambda: Map(lambda n: n),
    "fold": lambda: Fold(0, lambda total, n: total + 1, state=int),
    "running": lambda: StatefulMap(0, lambda total, n: (total + n, total), state=int),
    "batch": lambda: Batch(3),
    "sums": lambda: Map(lambda n: sum(n) if isinstance(n, list) else n),
    "take": lambda: Take(40),
    "distinct": lambda: Deduplicate(str),
    "slow": lambda: Throttle(5, per=0.5),
}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 8)), min_size=1, max_size=4),
    st.sampled_from([0.2, 0.7, 3.0]),
)
def test_any_pipeline_survives_any_crashes(
    steps: list[str], crashes: list[tuple[Any, int]], every: float
) -> None:
    def stream() -> Any:
        made: Any = numbers()
        for number, step in enumerate(steps):
            made = made.via(STEPS[step](), name=f"{number} {step}")
            if step == "batch":
                made = made.via(STEPS["sums"](), name=f"{number} sums")
        return made

    run = running(stream, every)

    async def work() -> None:
        whole, broken = World(), World()
        await run(whole)
        for point, number in crashes:
            with crash_at(point, number) as armed:
                try:
                    await run(broken)
                except BaseException:
                    if not armed.happened:
                        raise
        await run(broken)
        assert broken.values() == whole.values()

    virtual(work())


def test_a_pipeline_that_forgets_is_found_out() -> None:
    """What the kit is for: a total in a global is not saved."""
    total = 0

    def count(n: int) -> int:
        nonlocal total
        total += 1
        return total

    run = running(lambda: numbers().via(Map(count)))

    def fresh() -> World:
        nonlocal total
        total = 0
        return World()

    with pytest.raises(AssertionError, match="after a crash at 'before write', 1: .* instead of"):
        virtual(crash_everywhere(fresh, run, World.values))


def test_points_that_do_not_exist_are_refused() -> None:
    point: Any = "befor commit"
    refused = pytest.raises(ConfigurationError, match="is not a point of a run; there are .*before commit")
    with refused, crash_at(point):
        pass


SCRIPT = """
from streamflow import Source, run
from streamflow.connectors import ForEach
from streamflow.testing.crash import crash_point

crash_point()
run(Source(range(3)).to(ForEach(lambda n: print(n, flush=True))))
"""


def test_a_process_dies_at_the_point_that_its_environment_names(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for variable, code, out in [("", 0, "0\n1\n2\n"), ("before write:1", -signal.SIGKILL, "0\n1\n2\n")]:
        environment = {**os.environ, "STREAMFLOW_CRASH": variable}
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=30
        )
        assert (done.returncode, done.stdout) == (code, out)
