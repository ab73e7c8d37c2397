"""Whole pipelines when the server restarts, when workers share the work, and when one is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from nats.aio.client import Client

from streamflow import Observer
from streamflow.connectors import Discard
from streamflow.connectors.jetstream import JetStreamSink, StreamSettings
from streamflow.operators import Filter, FlatMap, Map, MapAsync
from streamflow.testing.server import NatsServer
from tests.child import ROOT, child
from tests.jetstream.pipelines import (
    add_stream,
    consumer,
    eventually,
    filled,
    publish_surely,
    publishing,
    source,
    standing,
    worker,
)
from tests.jetstream.support import add, bounded, connected, contents, numbers, stored, until

COUNT = 1500


def sink(server: NatsServer) -> JetStreamSink[Any]:
    return JetStreamSink("OUT", "out.a", servers=server.url, create=StreamSettings("out.>"))


async def counted(client: Client) -> Counter[bytes]:
    return Counter(await contents(client, "OUT"))


@pytest.mark.parametrize(
    ("end", "down"), [(NatsServer.stop, 0.0), (NatsServer.kill, 0.0), (NatsServer.kill, 5.0)]
)
@bounded
async def test_the_server_restarts_in_the_middle(
    server: NatsServer, end: Callable[[NatsServer], None], down: float
) -> None:
    async with connected(server.url) as client:
        await filled(client)

        def twice(value: bytes) -> list[bytes]:
            return [value + b"a", value + b"b"]

        items = source(server, ack_wait=2.0, until=COUNT)
        pipeline = (
            items.via(Map(bytes.strip)).via(Filter(bool)).via(FlatMap(twice)).to(sink(server), name="p")
        )

        async def publish(number: int) -> None:
            await publish_surely(client, b"%d" % number)

        async with pipeline.start() as running:
            async with publishing(publish) as published:
                while len(published) < COUNT / 3:
                    await asyncio.sleep(0)
                await asyncio.to_thread(end, server)
                await asyncio.sleep(down)
                await server.start_async()
                while len(published) < COUNT:
                    await asyncio.sleep(0)
            await running.wait()
        expected = Counter(part for value in numbers(COUNT) for part in twice(value))
        assert await counted(client) == expected
        await eventually(lambda: first_unacknowledged(client), COUNT)


async def first_unacknowledged(client: Client) -> int:
    return int((await consumer(client))["ack_floor"]["stream_seq"])


@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill])
@bounded
async def test_the_server_restarts_while_nothing_happens(
    server: NatsServer, end: Callable[[NatsServer], None]
) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        events = Events()
        async with source(server).to(sink(server)).start(observers=[events]) as running:
            await until(lambda: standing(client), (10, 0, 0))
            await asyncio.to_thread(end, server)
            await server.start_async()
            await eventually(lambda: stored(client, "OUT"), 10)
            await add(client, numbers(10, 10))
            await until(lambda: stored(client, "OUT"), 20)
            await running.drain()
        assert await contents(client, "OUT") == numbers(20)
        assert {"connection disconnected", "connection reconnected"} <= set(events.names)


class Events(Observer):
    def __init__(self) -> None:
        self.names: list[str] = []

    def event(self, name: str, **details: Any) -> None:
        self.names.append(name)


@pytest.mark.parametrize("away", ["stopped", "silent"])
@bounded
async def test_the_server_is_away_while_the_end_is_waited_for(server: NatsServer, away: str) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        async with source(server, until=20, ack_wait=2.0).to(sink(server)).start() as running:
            await until(lambda: standing(client), (10, 0, 0))
            if away == "stopped":
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(1.5)
                await server.start_async()
            else:
                os.kill(server.pid, signal.SIGSTOP)
                await asyncio.sleep(1.5)  # longer than an answer is waited for
                os.kill(server.pid, signal.SIGCONT)
            await eventually(lambda: stored(client, "OUT"), 10)
            assert running.stats().ending is None
            await add(client, numbers(10, 10))
            assert await running.wait() == 20


@bounded
async def test_a_pipeline_stops_at_once_while_the_server_is_away(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        async with source(server).to(sink(server)).start() as running:
            await until(lambda: standing(client), (10, 0, 0))
            await asyncio.to_thread(server.stop)
            since = perf_counter()
            await running.stop()
            assert perf_counter() - since < 5
        await server.start_async()


# Several workers


@bounded
async def test_two_workers_share_a_durable(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(6000))
        done: list[set[bytes]] = [set(), set()]

        def work(mine: set[bytes]) -> Any:
            async def step(value: bytes) -> None:
                await asyncio.sleep(0.001)
                mine.add(value)

            return source(server, until="end").via(MapAsync(step, concurrency=8)).to(Discard()).run()

        counts = await asyncio.gather(*map(work, done))
        assert all(counts)
        assert sum(counts) == 6000
        assert done[0] | done[1] == set(numbers(6000))
        await until(lambda: standing(client), (6000, 0, 0))


@bounded
async def test_a_worker_waits_for_the_end_of_what_another_has_in_hand(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        gate = asyncio.Event()

        async def stuck(value: bytes) -> bytes:
            await gate.wait()
            return value

        async with source(server).via(MapAsync(stuck)).to(sink(server)).start() as first:
            await until(lambda: standing(client), (0, 100, 0))
            async with source(server, until="end").to(sink(server)).start() as second:
                await asyncio.wait([asyncio.ensure_future(second.wait())], timeout=0.7)
                assert second.stats().ending is None
                await first.stop()  # hands back
                assert await second.wait() == 100
        assert await counted(client) == dict.fromkeys(numbers(100), 1)


def test_two_processes_share_a_durable(server: NatsServer) -> None:
    @bounded
    async def prepare() -> None:
        async with connected(server.url) as client:
            await filled(client)
            await add_stream(client)

    @bounded
    async def fill() -> None:
        async with connected(server.url) as client:
            await eventually(lambda: waiting(client), 2)  # both are there
            await add(client, numbers(9000))

    @bounded
    async def look() -> None:
        async with connected(server.url) as client:
            assert await counted(client) == dict.fromkeys(numbers(9000), 1)
            await until(lambda: standing(client), (9000, 0, 0))

    prepare()
    arguments = "-m", "tests.jetstream.pipelines", server.url, "0.0002", "9000"
    with child(*arguments, cwd=ROOT) as first, child(*arguments, cwd=ROOT) as second:
        fill()
        assert (first.end(), second.end()) == (0, 0), first.output + second.output
    counts = [int(worker.lines[-1]) for worker in (first, second)]
    assert all(counts)
    assert sum(counts) >= 9000
    look()


async def waiting(client: Client) -> int:
    return int((await consumer(client))["num_waiting"])


def test_a_killed_worker_loses_nothing(server: NatsServer) -> None:
    @bounded
    async def fill() -> None:
        async with connected(server.url) as client:
            await filled(client, numbers(1000))
            await add_stream(client)

    @bounded
    async def kill() -> None:
        async with connected(server.url) as client:
            while await stored(client, "OUT") < 200:
                await asyncio.sleep(0.001)
            assert (await consumer(client))["num_ack_pending"] > 0
            victim.process.kill()
            await asyncio.to_thread(victim.process.wait)
            acknowledged, in_hand, _ = await standing(client)
            assert in_hand > 0
            assert acknowledged < 1000

    @bounded
    async def finish() -> None:
        async with connected(server.url) as client:
            await worker(server.url, 0, "end").run()
            assert await counted(client) == dict.fromkeys(numbers(1000), 1)
            await until(lambda: standing(client), (1000, 0, 0))

    fill()
    with child("-m", "tests.jetstream.pipelines", server.url, "0.002", cwd=ROOT) as victim:
        victim.wait_for("working")
        kill()
    finish()
