"""`MapAsync`: as many at once as asked and never more, in order or not, failures by policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Checkpoint, Skip, Source, StepError
from streamflow.connectors import Collect
from streamflow.operators import Map, MapAsync, Take
from streamflow.testing import MemoryStore
from tests.support import Chunked, cut, run, sizes


class Meter:
    """Sleeps as long as the element says, and notes how many did so at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __call__(self, x: int) -> int:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(1 + x % 3)
        finally:
            self.now -= 1
        return x


@given(sizes, st.integers(1, 8), st.booleans(), st.integers(0, 40))
def test_concurrency_spans_chunks_is_reached_and_not_exceeded(
    sizes: list[int], concurrency: int, ordered: bool, count: int
) -> None:
    meter = Meter()
    flow = MapAsync(meter, concurrency=concurrency, ordered=ordered)
    result = run(Chunked(cut(range(count), sizes)).via(flow).to(Collect()))
    assert (result if ordered else sorted(result)) == list(range(count))
    assert meter.most == min(concurrency, count)
    assert meter.now == 0


def test_unordered_results_come_as_they_are_done() -> None:
    async def sleep(x: int) -> int:
        await asyncio.sleep(x)
        return x

    values = [3, 1, 2]
    assert run(Source(values).via(MapAsync(sleep, ordered=False)).to(Collect())) == [1, 2, 3]
    assert run(Source(values).via(MapAsync(sleep)).to(Collect())) == values
    chunks = Chunked([[5, 1], [2], [4, 3]])
    assert run(chunks.via(MapAsync(sleep, ordered=False)).to(Collect())) == [1, 2, 3, 4, 5]


@given(st.lists(st.integers(0, 6)), sizes, st.booleans(), st.sampled_from([None, 2.5]))
def test_failures_and_timeouts_go_to_the_policy(
    values: list[int], sizes: list[int], ordered: bool, timeout: float | None
) -> None:
    async def fail(x: int) -> int:
        await asyncio.sleep(x)
        if x == 1:
            raise asyncio.CancelledError
        if x == 2:
            raise StopAsyncIteration
        return x

    flow = MapAsync(fail, concurrency=3, ordered=ordered, timeout=timeout)
    result = run(Chunked(cut(values, sizes)).via(flow).to(Collect()), on_error=Skip())
    expected = [x for x in values if x not in (1, 2) and (timeout is None or x < timeout)]
    assert (result if ordered else sorted(result)) == (expected if ordered else sorted(expected))


@pytest.mark.parametrize(
    "error", [ValueError, asyncio.CancelledError, StopIteration, KeyboardInterrupt, SystemExit, GeneratorExit]
)
def test_whatever_a_coroutine_raises_fails_the_pipeline(error: type[BaseException]) -> None:
    async def fail(x: int) -> int:
        await asyncio.sleep(1)
        raise error("no")

    with pytest.raises(StepError, match=r"step 'MapAsync': failed on 5") as caught:
        run(Source([5]).via(MapAsync(fail)).to(Collect()))
    assert type(caught.value.cause) is error


def test_a_timeout_is_a_failure_with_its_element() -> None:
    async def forever(x: int) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StepError, match=r"failed on 7: TimeoutError"):
        run(Source([7]).via(MapAsync(forever, timeout=3)).to(Collect()))


def test_with_a_checkpoint_a_call_that_never_returns_is_a_failure() -> None:
    """Barriers wait for it, and nothing would ever be saved again."""

    async def stuck(x: int) -> int:
        if x == 3:
            await asyncio.Event().wait()
        return x

    pipeline = Chunked([[1], [2], [3], [4]]).via(MapAsync(stuck)).to(Collect())
    with pytest.raises(StepError, match="step 'MapAsync': failed on 3: TimeoutError"):
        run(pipeline, checkpoint=Checkpoint(store=MemoryStore()))


def test_a_plain_function_is_an_error_that_says_so() -> None:
    flow: Any = MapAsync(lambda x: x)
    with pytest.raises(StepError, match="await") as caught:
        run(Source([1]).via(flow).to(Collect()))
    assert "for a plain function use Map" in "".join(getattr(caught.value.cause, "__notes__", []))


def test_any_awaitable_will_do() -> None:
    def later(x: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.get_loop().call_later(1, future.set_result, x)
        return future

    assert run(Source([1, 2]).via(MapAsync(later)).to(Collect())) == [1, 2]


def test_no_more_is_started_when_nobody_wants_more() -> None:
    meter = Meter()
    started: list[int] = []

    async def note(x: int) -> int:
        started.append(x)
        return await meter(x)

    assert run(Source(range(1000)).via(MapAsync(note, concurrency=4)).via(Take(2)).to(Collect())) == [0, 1]
    assert len(started) < 20
    assert meter.now == 0


def test_a_million_coroutines_that_never_wait_let_the_loop_breathe() -> None:
    async def at_once(x: int) -> int:
        return x

    assert len(run(Source(range(5000)).via(MapAsync(at_once)).via(Map(abs)).to(Collect()))) == 5000


def test_a_source_that_pauses_does_not_make_unordered_results_wait_for_each_other() -> None:
    async def sleep(x: int) -> int:
        await asyncio.sleep(x)
        return x

    async def items() -> AsyncIterator[int]:
        for x in (5, 1, 1, 7):
            await asyncio.sleep(0.1)
            yield x

    assert run(Source(items).via(MapAsync(sleep, ordered=False)).to(Collect())) == [1, 1, 5, 7]
