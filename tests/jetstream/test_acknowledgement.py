"""When messages are acknowledged, kept alive, and handed back."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest
from nats.aio.client import Client

from streamflow import Message, Observer, Pipeline, Sink, Skip, StreamflowError
from streamflow._jetstream.admin import request
from streamflow.codecs import Text
from streamflow.connectors import Collect, Discard
from streamflow.connectors.jetstream import JetStreamSink, reader
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.operators import Batch, Filter, FlatMap, Keyed, Map, MapAsync, Take, split
from streamflow.testing.server import NatsServer
from tests.jetstream.pipelines import Late, add_stream, consumer, deliveries, filled, source, standing
from tests.jetstream.support import add, bounded, connected, contents, numbers, stored, until


class Failing(Sink[Any, int]):
    """Confirms at once what it gets, up to a value on which it fails."""

    def __init__(self, at: bytes) -> None:
        self.at = at
        self.confirmed: list[bytes] = []

    async def open(self, context: SinkContext) -> Writer[int]:
        return _FailingWriter(self)


class _FailingWriter(Writer[int]):
    def __init__(self, sink: Failing) -> None:
        self._sink = sink

    async def write(self, chunk: Chunk) -> None:
        if self._sink.at in chunk.values:
            raise OSError("the disk is full")
        self._sink.confirmed += chunk.values
        chunk.release()

    def result(self) -> int:
        return len(self._sink.confirmed)


# Acknowledged when it is delivered, not before


@bounded
async def test_acknowledged_when_the_sink_confirms(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        sink = Late()
        async with source(server).via(Map(bytes.upper)).to(sink).start():
            await sink.came(100)
            await client.flush()
            assert await standing(client) == (0, 100, 0)
            sink.confirm()
            await until(lambda: standing(client), (100, 0, 0))


@bounded
async def test_acknowledged_when_the_stream_has_confirmed(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client)
        await add_stream(client)
        async with source(server).to(JetStreamSink("OUT", "out.a", servers=server.url)).start():
            await add(client, numbers(10))
            await until(lambda: standing(client), (10, 0, 0))
            await request(client, "STREAM.DELETE.OUT")
            await add(client, numbers(10, 10))
            await until(lambda: standing(client), (10, 10, 0))
            await add_stream(client)
            await until(lambda: standing(client), (20, 0, 0))
        assert sorted(await contents(client, "OUT")) == numbers(10, 10)


@bounded
async def test_acknowledged_when_every_branch_has_confirmed(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(50))
        await add_stream(client)
        items = source(server)
        late = Late()
        pipeline = Pipeline(items.to(JetStreamSink("OUT", "out.a", servers=server.url)), items.to(late))
        async with pipeline.start():
            await until(lambda: stored(client, "OUT"), 50)
            await late.came(50)
            assert await standing(client) == (0, 50, 0)
            late.confirm()
            await until(lambda: standing(client), (50, 0, 0))


@pytest.mark.parametrize(
    "drop",
    [Filter(lambda _: False), FlatMap(lambda _: []), Map(int, on_error=Skip())],
    ids=lambda d: type(d).__name__,
)
@bounded
async def test_what_is_dropped_on_the_way_is_acknowledged(server: NatsServer, drop: Any) -> None:
    async with connected(server.url) as client:
        await filled(client, [b"a", b"b", b"c"])
        late = Late()
        async with source(server).via(drop).to(late).start():
            await until(lambda: standing(client), (3, 0, 0))
        assert late.values == []


@bounded
async def test_what_a_batch_holds_is_not_acknowledged(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        async with source(server).via(Batch(4)).to(Collect()).start() as running:
            await until(lambda: standing(client), (8, 2, 0))
            await add(client, numbers(3, 10))
            await until(lambda: standing(client), (12, 1, 0))
            await running.drain()
        assert await deliveries(server.url) == {b"12": 2}


@bounded
async def test_a_sparse_filter_before_a_batch_pins_only_what_it_passed(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(1000))
        one = Filter[bytes](lambda value: value == b"700")
        async with source(server).via(one).via(Batch(2)).to(Collect()).start():
            await until(lambda: standing(client), (700, 1, 0))
        assert await deliveries(server.url) == {b"700": 2}


@bounded
async def test_a_failing_sink_acknowledges_only_what_it_took(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(3000))
        sink = Failing(b"2500")
        with pytest.raises(StreamflowError, match="step 'Failing': OSError: the disk is full"):
            await source(server, ack_wait=1.0).to(sink).run()
        again = await deliveries(server.url, ack_wait=1.0)
        assert set(again) == set(numbers(3000)) - set(sink.confirmed)
        assert set(again.values()) == {2}


@bounded
async def test_a_refused_message_and_those_behind_it_come_again(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(500))
        await add_stream(client, max_msg_size=100)
        sink: JetStreamSink[bytes] = JetStreamSink("OUT", "out.a", servers=server.url)
        grow = Map[bytes, bytes](lambda value: value * 100 if value == b"250" else value)
        with pytest.raises(StreamflowError, match="step 'JetStreamSink'.*message size exceeds"):
            await source(server, ack_wait=1.0).via(grow).to(sink).run()
        again = await deliveries(server.url, ack_wait=1.0)
        assert b"250" in again
        assert set(again) | set(await contents(client, "OUT")) == set(numbers(500))


# Handed back when it was not used


@bounded
async def test_what_take_leaves_comes_to_the_next_run(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))

        async def all_here(value: bytes) -> bytes:
            await until(lambda: standing(client), (0, 100, 0))
            return value

        pipeline = source(server).via(MapAsync(all_here)).via(Take(3)).to(Collect())
        assert await pipeline.run() == numbers(3)
        assert await deliveries(server.url) == dict.fromkeys(numbers(97, 3), 2)


@pytest.mark.parametrize("end", ["stop", "leave"])
@bounded
async def test_what_a_stopped_run_leaves_comes_to_the_next_one(server: NatsServer, end: str) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        late = Late()
        with pytest.raises(LookupError) if end == "leave" else nullcontext():
            async with source(server).via(Batch(100)).to(late).start() as running:
                await late.came(1)
                late.confirm()
                await add(client, numbers(2950, 100))
                await late.came(30)
                await until(lambda: standing(client), (100, 2950, 0))
                if end == "leave":
                    raise LookupError
                await running.stop()
        assert await deliveries(server.url) == dict.fromkeys(numbers(2950, 100), 2)


@bounded
async def test_a_cancelled_run_hands_back(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(3000))
        late = Late()
        task = asyncio.create_task(source(server).to(late).run())
        await late.came(1)
        await until(lambda: standing(client), (0, 3000, 0))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await deliveries(server.url) == dict.fromkeys(numbers(3000), 2)


@bounded
async def test_a_drain_finishes_what_was_read_and_hands_back_the_rest(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(30_000))
        late, gate = Late(), asyncio.Event()

        async def wait(value: bytes) -> bytes:
            await gate.wait()
            return value

        async with source(server).via(MapAsync(wait)).to(late).start() as running:
            await until(lambda: quiet(client), True)
            draining = asyncio.create_task(running.drain())
            await asyncio.sleep(0)
            gate.set()
            while not draining.done():
                late.confirm()
                await asyncio.sleep(0.01)
            await draining
        read = len(late.values)
        assert late.values == numbers(read)
        assert 0 < read < 30_000
        again = await deliveries(server.url)
        assert sorted(again, key=int) == numbers(30_000 - read, read)
        assert again[b"%d" % read] == 2


async def quiet(client: Client) -> bool:
    """Whether nothing more is delivered for now: the pipeline has read some, and has no room for the rest."""
    info = await consumer(client)
    return info["num_ack_pending"] > 300 and info["num_pending"] > 0 and not info["num_waiting"]


@bounded
async def test_what_lies_beyond_the_end_comes_to_the_next_run(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(50))
        assert await source(server, until=20).to(Collect()).run() == numbers(20)
        assert await deliveries(server.url) == dict.fromkeys(numbers(30, 20), 2)


@bounded
async def test_a_run_does_not_get_again_what_it_did_not_use(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(1000))
        even, odd = split(source(server), lambda value: int(value) % 2 == 0)
        late = Late()
        async with Pipeline(even.via(Take(3)).to(Collect()), odd.to(late)).start() as running:
            await late.came(500)
            late.confirm()
            await until(lambda: unsettled(client), 497)  # nobody here wants the other even ones
            await add(client, [b"1001"])
            await late.came(501)
            assert running.stats().steps["JetStreamSource"].received == 1001
            late.confirm()
        assert len(late.values) == 501
        again = await deliveries(server.url)
        assert {value for value, times in again.items() if value != b"1001"} == set(numbers(1000)[6::2])


async def unsettled(client: Client) -> int:
    return (await standing(client))[1]


# Kept alive while it is worked on


@bounded
async def test_slow_work_is_not_delivered_twice(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(16))
        got: list[Message[str]] = []

        async def work(message: Message[str]) -> str:
            got.append(message)
            await asyncio.sleep(3)
            return message.value

        items = source(server, ack_wait=1.0, codec=Text(), with_metadata=True, until="end")
        values = await items.via(MapAsync(work, concurrency=16)).to(Collect()).run()
        assert sorted(map(int, values)) == list(range(16))
        assert [message.deliveries for message in got] == [1] * 16
        await until(lambda: standing(client), (16, 0, 0))


@bounded
async def test_what_waits_in_front_of_slow_work_is_not_delivered_twice(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(30_000))
        got: list[int] = []

        async def work(message: Message[bytes]) -> None:
            if not got:
                await asyncio.sleep(2.5)
            got.append(message.deliveries)

        items = source(server, ack_wait=1.0, with_metadata=True, until="end")
        assert await items.via(MapAsync(work, concurrency=1)).to(Discard()).run() == 30_000
        assert got == [1] * 30_000


@bounded
async def test_what_lies_beyond_the_end_is_kept_alive_too(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(20))

        async def work(value: bytes) -> bytes:
            await asyncio.sleep(2.5)
            return value

        pipeline = source(server, ack_wait=1.0, until=10).via(MapAsync(work)).to(Collect())
        assert await pipeline.run() == numbers(10)
        assert await deliveries(server.url, ack_wait=1.0) == dict.fromkeys(numbers(10, 10), 2)


@bounded
async def test_a_pipeline_that_settles_nothing_says_so(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_STALL_SECONDS", 0.05)
    told: list[tuple[str, dict[str, Any]]] = []

    class Listener(Observer):
        def event(self, name: str, **details: Any) -> None:
            told.append((name, details))

    async with connected(server.url) as client:
        await filled(client, numbers(100))
        stuck = (
            source(server, max_pending=10, until=None).via(Keyed(lambda value: value, Batch(2))).to(Discard())
        )
        async with stuck.start(observers=[Listener()]) as running:
            while not told:
                await asyncio.sleep(0.01)
            await running.stop()
    assert told[0] == (
        "no message is settled",
        {"source": "JetStreamSource", "in_hand": 10, "limit": 10, "unused": 0},
    )
