"""Checkpoints in a bucket of a real server: restarts, owners, and a server that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from nats.js.kv import KeyValue

from streamflow import Checkpoint, Pipeline, Source
from streamflow.connectors import Collect
from streamflow.engine.observer import Observer
from streamflow.errors import FencedError, StateError
from streamflow.operators import Batch, Fold, Inspect, Keyed, Sum, TumblingWindow
from streamflow.state.jetstream import BucketSettings, open_bucket
from streamflow.testing import NatsServer
from tests.jetstream.support import bounded, connected


class Told(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.heard = asyncio.Event()
        self.checkpoints = 0

    def event(self, name: str, **details: Any) -> None:
        self.events.append((name, details))
        self.heard.set()

    def checkpointed(self, number: int, entries: int, seconds: float) -> None:
        self.checkpoints = number
        self.heard.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.heard.clear()
            await self.heard.wait()


def totals(values: Any, seen: list[Any]) -> Pipeline[Any]:
    fold: Any = Keyed(lambda x: x % 7, Fold(0, lambda total, x: total + x))
    return Source(values).via(fold).via(Inspect(seen.append)).to(Collect(), name="totals")


def result(count: int) -> dict[int, int]:
    return {key: sum(range(key, count, 7)) for key in range(7)}


@bounded
async def test_a_restart_goes_on_with_what_was_saved(server: NatsServer) -> None:
    checkpoint = Checkpoint("totals", servers=server.url, every=0.05)
    for count in (100, 250, 251, 1000):
        told = Told()
        seen: list[Any] = []
        await totals(range(count), seen).run(checkpoint=checkpoint, observers=[told])
        before = {100: 0, 250: 100, 251: 250, 1000: 251}[count]
        assert len(seen) == count - before
        assert dict(seen).items() <= result(count).items()
        if before:
            number = told.events[0][1]["number"]
            assert told.events == [("goes on from a checkpoint", {"number": number, "finished": True})]
        async with connected(server.url) as client:
            bucket: KeyValue = await client.jetstream().key_value("totals")
            assert "totals.0.owner" not in await bucket.keys()


@bounded
async def test_a_server_that_is_killed_in_between_costs_nothing(server: NatsServer) -> None:
    seen: list[Any] = []
    told = Told()
    go = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        for number in range(2000):
            if number == 700:
                await go.wait()
            yield number
            if number % 50 == 0:
                await asyncio.sleep(0.01)

    checkpoint = Checkpoint("totals", servers=server.url, every=0.05)
    async with totals(numbers, seen).start(checkpoint=checkpoint, observers=[told]) as running:
        await told.until(lambda: told.checkpoints > 2)
        server.kill()
        go.set()
        server.start()
        await running.wait()
    assert dict(seen) == result(2000)
    again: list[Any] = []
    await totals(range(2700), again).run(checkpoint=checkpoint)
    assert dict(again) == result(2700) and len(again) == 700


@bounded
async def test_a_second_run_waits_and_takes_over(server: NatsServer) -> None:
    go = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        for number in range(500):
            yield number
        await go.wait()
        for number in range(500, 600):
            yield number

    checkpoint = Checkpoint("totals", servers=server.url, every=0.05, lease=2)
    first: list[Any] = []
    second: list[Any] = []
    told = Told()
    async with totals(numbers, first).start(checkpoint=checkpoint) as running:
        standby = asyncio.create_task(totals(range(800), second).run(checkpoint=checkpoint, observers=[told]))
        await told.until(lambda: bool(told.events))
        assert told.events[0][0] == "waits for the owner"
        go.set()
        await running.wait()
        assert not second or len(first) == 600
        await standby
    assert len(first) == 600 and len(second) == 200
    assert dict(second).items() <= result(800).items()


@bounded
async def test_a_run_whose_lease_is_taken_saves_nothing_more(server: NatsServer) -> None:
    """As after a pause that was longer than the lease: another one goes on meanwhile."""
    go = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        for number in range(500):
            yield number
        await go.wait()
        for number in range(500, 600):
            yield number

    checkpoint = Checkpoint("totals", servers=server.url, every=0.05, lease=60)
    first: list[Any] = []
    second: list[Any] = []
    told = Told()

    async def overtaken() -> None:
        async with totals(numbers, first).start(checkpoint=checkpoint, observers=[told]) as running:
            await told.until(lambda: told.checkpoints > 2)
            async with connected(server.url) as client:
                bucket = await client.jetstream().key_value("totals")
                await bucket.delete("totals.0.owner")
            await totals(range(800), second).run(checkpoint=checkpoint)
            go.set()
            await running.wait()

    with pytest.raises(FencedError, match="pipeline 'totals': .*another run has become the owner"):
        await overtaken()
    assert len(second) == 300
    third: list[Any] = []
    await totals(range(900), third).run(checkpoint=checkpoint)
    assert dict(third) == result(900) and len(third) == 100


@bounded
async def test_a_full_bucket_makes_the_pipeline_wait(server: NatsServer) -> None:
    async with connected(server.url) as client:
        settings = BucketSettings("totals", max_bytes=60_000, messages=True)
        bucket = await open_bucket(settings, connection=client)
        await bucket.close()
        other = await client.jetstream().key_value("totals")
        await other.put("filling", bytes(55_000))
        seen: list[Any] = []
        told = Told()
        fold: Any = Keyed(lambda x: x, Fold(0, lambda total, x: total + x))
        pipeline = Source(range(1000)).via(fold).via(Inspect(seen.append)).to(Collect(), name="totals")
        checkpoint = Checkpoint(servers=server.url, every=0.05)
        async with pipeline.start(checkpoint=checkpoint, observers=[told]) as running:
            await told.until(lambda: any(name == "bucket is full" for name, _ in told.events))
            assert told.checkpoints == 0
            await other.purge("filling")
            await running.wait()
        assert told.checkpoints > 0 and len(seen) == 1000
        again: list[Any] = []
        await (
            Source(range(1000))
            .via(fold)
            .via(Inspect(again.append))
            .to(Collect(), name="totals")
            .run(checkpoint=checkpoint)
        )
        assert again == []


# Pipelines that do not fit


def changed(flow: Any, name: str | None = None) -> Pipeline[Any]:
    return Source(range(10)).via(flow, name=name).to(Collect(), name="p")


CHANGES: list[tuple[Any, Any, str]] = [
    (Fold(0, lambda n, x: n + x), Batch(3), "step 'Fold', which remembers .*Folding.* is no longer there"),
    (
        TumblingWindow(timedelta(seconds=60), into=Sum()),
        TumblingWindow(timedelta(seconds=61), into=Sum()),
        r"step 'TumblingWindow', which remembers \(.*60000000 µs.*\), is \(.*61000000 µs.*\) now",
    ),
    (
        Keyed(lambda x: x, Batch(2)),
        Keyed(lambda x: x, TumblingWindow(timedelta(seconds=60))),
        "step 'Keyed/Batch', which remembers .* is no longer there",
    ),
]


@pytest.mark.parametrize(("before", "after", "says"), CHANGES, ids=["other", "size", "inner"])
@bounded
async def test_state_that_does_not_fit_is_refused(
    server: NatsServer, before: Any, after: Any, says: str
) -> None:
    checkpoint = Checkpoint("p", servers=server.url)
    await changed(before).run(checkpoint=checkpoint)
    with pytest.raises(StateError, match=f"pipeline 'p'.*does not fit.*{says}.*allow_dropped_state=True"):
        await changed(after).run(checkpoint=checkpoint)
    allowed = Checkpoint("p", servers=server.url, allow_dropped_state=True)
    assert await changed(after).run(checkpoint=allowed) == []  # the position counts


@bounded
async def test_a_source_that_is_gone_is_refused(server: NatsServer) -> None:
    checkpoint = Checkpoint("p", servers=server.url)
    await changed(Batch(2)).run(checkpoint=checkpoint)
    other = Source(range(10), name="other").via(Batch(2)).to(Collect(), name="p")
    with pytest.raises(StateError, match="source 'Source' is no longer there"):
        await other.run(checkpoint=checkpoint)
