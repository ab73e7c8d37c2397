"""`Map`, on threads and processes too: order, failures as values, workers that die. In real time, as processes are."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Fail, Skip, Source, StepError
from streamflow.connectors import Collect, Discard
from streamflow.operators import Map, Take
from tests.support import Acknowledging, Chunked, Confirming, cut, real, run, sizes


class Unpicklable(Exception):
    """Pickles and does not come back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def work(x: int) -> Any:
    """What the workers compute, by number."""
    match x:
        case 3:
            raise ValueError("three")
        case 5:
            raise Unpicklable(1, 2)
        case 7:
            return lambda: None  # does not pickle
        case 11:
            raise KeyboardInterrupt
        case 13:
            os._exit(3)
        case 17:
            time.sleep(3600)
    return x * 10


def double(x: int) -> int:
    time.sleep(x * 7 % 5 / 500)
    return x * 2


@given(st.lists(st.integers()), sizes)
def test_map_replaces_each(values: list[int], sizes: list[int]) -> None:
    assert run(Chunked(cut(values, sizes)).via(Map(lambda x: x + 1)).to(Collect())) == [x + 1 for x in values]


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_an_executor_keeps_the_order_and_acknowledges_once(executor: Any) -> None:
    source = Acknowledging(100, [7, 64, 1])
    pipeline = source.via(Map(double, executor=executor, concurrency=2)).to(Confirming(source))
    assert real(pipeline.run()) == [x * 2 for x in range(100)]
    source.ledger.check(deliver=())
    assert sorted(source.ledger.acked) == list(range(100))


def test_threads_skip_what_fails_and_name_it() -> None:
    threaded = Map(work, executor="thread", concurrency=2)
    assert real(Source([1, 3, 2]).via(threaded).to(Collect()).run(on_error=Skip())) == [10, 20]
    with pytest.raises(StepError, match=r"step 'Map': failed on 3: ValueError: three"):
        real(Source([1, 3]).via(threaded).to(Collect()).run())
    with pytest.raises(StepError, match="KeyboardInterrupt"):
        real(Source([1, 11]).via(threaded).to(Collect()).run(on_error=Skip()))


def test_threads_run_as_many_as_asked() -> None:
    together = threading.Barrier(3)

    def meet(x: int) -> int:
        return together.wait(10) * 0 + x

    pipeline = (
        Source([[x] for x in range(6)])
        .via(Map(lambda x: x[0]))
        .via(Map(meet, executor="thread", concurrency=3))
    )
    assert real(pipeline.to(Collect()).run()) == list(range(6))


def test_processes_lose_only_what_fails_or_kills_its_worker() -> None:
    values = [1, 3, 5, 7, 13, 2, 4]
    processes = Map(work, executor="process", concurrency=2)
    assert real(Source(values).via(processes).to(Collect()).run(on_error=Skip())) == [10, 20, 40]


@pytest.mark.parametrize(
    ("value", "says"),
    [(5, "Unpicklable: 1 and 2"), (7, "does not pickle"), (13, "a worker process died")],
)
def test_a_process_that_fails_is_an_error_and_no_hang(value: int, says: str) -> None:
    with pytest.raises(StepError, match=says):
        real(Source([value]).via(Map(work, executor="process", concurrency=1)).to(Collect()).run())


@frozen
class SkipBelow:
    """Absorbs the elements below a bound, and nothing else."""

    below: int

    def absorbs(self, error: StepError) -> bool:
        return isinstance(error.element, int) and error.element < self.below


def dies_on_every_13th(x: int) -> int:
    if x % 13 == 12:
        os._exit(3)
    return x


@pytest.mark.parametrize("policy", [Skip(), SkipBelow(100)])
def test_every_death_costs_its_element_alone(policy: Any) -> None:
    source = Acknowledging(30, [20, 1])
    survivors = [x for x in range(30) if x % 13 < 12]
    processes = Map(dies_on_every_13th, executor="process", concurrency=2, on_error=policy)
    assert real(source.via(processes).to(Confirming(source)).run()) == survivors
    source.ledger.check(deliver=survivors)
    assert sorted(source.ledger.acked) == list(range(30))


@pytest.mark.parametrize("policy", [Fail(), SkipBelow(12)])
def test_a_policy_that_does_not_absorb_a_death_fails_the_pipeline(policy: Any) -> None:
    source = Acknowledging(30, [20, 1])
    processes = Map(dies_on_every_13th, executor="process", concurrency=2, on_error=policy)
    with pytest.raises(StepError, match="a worker process died"):
        real(source.via(processes).to(Confirming(source)).run())
    source.ledger.check(deliver=[x for x in range(30) if x % 13 < 12])


def killed_once(path: str) -> str:
    if not os.path.exists(path):
        Path(path).touch()
        os.kill(os.getpid(), 9)
    return path


def test_a_worker_that_is_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    paths = [str(tmp_path / "killed")] * 30
    processes = Map(killed_once, executor="process", concurrency=2)
    assert real(Source(paths).via(processes).to(Collect()).run(on_error=Skip())) == paths


def test_a_stop_ends_busy_processes() -> None:
    async def stopped() -> None:
        pipeline = Source([1, 17]).via(Map(work, executor="process", concurrency=1)).to(Discard())
        async with pipeline.start() as running:
            while not running.stats().steps["Discard"].received:
                await asyncio.sleep(0.05)
            await running.stop()

    real(stopped())


def test_take_behind_an_executor_ends_it() -> None:
    assert real(Source(range(100)).via(Map(double, executor="thread")).via(Take(3)).to(Collect()).run()) == [
        0,
        2,
        4,
    ]
