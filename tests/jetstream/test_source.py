from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from streamflow import ConfigurationError, Message, Source
from streamflow._jetstream.admin import request
from streamflow.codecs import Json, Text
from streamflow.connectors import Collect, Discard
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.operators import Filter, Map, MapAsync, Take, merge
from streamflow.testing.server import NatsServer
from tests.jetstream import pipelines
from tests.jetstream.pipelines import (
    SYSTEM,
    Late,
    add_stream,
    connections,
    consumer,
    filled,
    publishing,
    standing,
)
from tests.jetstream.support import add, bounded, connected, contents, numbers, stored, until


@pytest.fixture
def watched() -> Iterator[NatsServer]:
    """A server that tells who is connected."""
    with NatsServer(config=SYSTEM) as server:
        yield server


source = partial(pipelines.source, until="end")


# Content and order


@bounded
async def test_everything_comes_in_order_and_is_acknowledged(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10_000))
        values = await source(server, codec=Text()).via(Map(int)).to(Collect()).run()
        assert values == list(range(10_000))
        await until(lambda: standing(client), (10_000, 0, 0))


@bounded
async def test_light_traffic_is_not_held_up(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client)
        sink = Late()
        async with source(server, until=None).to(sink).start() as running:
            for number in range(3):
                await add(client, [b"%d" % number])
                await sink.came(number + 1)  # before the next is there
            sink.confirm()
            await running.drain()
        assert sink.values == numbers(3)


@bounded
async def test_messages_with_what_the_stream_knows_of_them(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, [b'{"n": 1}'])
        await client.publish("s.b", b'{"n": 2}', headers={"A": "x", "B": "y z"})
        await until(lambda: stored(client), 2)
        pipeline = source(server, codec=Json(), with_metadata=True).to(Collect())
        first, second = await pipeline.run()
        assert isinstance(first, Message)
        assert (first.value, first.subject, first.headers) == ({"n": 1}, "s.a", {})
        assert (first.sequence, first.deliveries) == (1, 1)
        assert timedelta(0) <= datetime.now(UTC) - first.timestamp < timedelta(minutes=1)
        assert (second.value, second.subject, second.headers) == ({"n": 2}, "s.b", {"A": "x", "B": "y z"})
        assert second.sequence == 2
        assert second.timestamp >= first.timestamp


@pytest.mark.parametrize(
    ("subject", "wanted"),
    [
        (None, [b"1", b"2", b"3", b"4"]),
        ("s.a", [b"1"]),
        ("s.*", [b"1", b"2", b"4"]),
        (["s.a", "s.c.>"], [b"1", b"3"]),
        ("s.none", []),
    ],
)
@bounded
async def test_subjects_filter(server: NatsServer, subject: Any, wanted: list[bytes]) -> None:
    async with connected(server.url) as client:
        await filled(client)
        for payload, on in [(b"1", "s.a"), (b"2", "s.b"), (b"3", "s.c.d"), (b"4", "s.e")]:
            await add(client, [payload], on)
        assert await source(server, subject, durable="F").to(Collect()).run() == wanted


@pytest.mark.parametrize(("start", "wanted"), [("all", 0), (1, 0), (8, 7), ("last", 9), ("new", 10)], ids=str)
@bounded
async def test_where_a_new_consumer_starts(server: NatsServer, start: Any, wanted: int) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        sink = Late()
        async with source(server, durable="N", start=start, until=None).to(sink).start() as running:
            await add(client, [b"10"])
            await sink.came(11 - wanted)
            sink.confirm()
            await running.drain()
        assert sink.values == numbers(11 - wanted, wanted)


# The end


@bounded
async def test_ends_at_what_was_there_at_the_start(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))

        async def feed_back(value: bytes) -> bytes:
            await client.request("s.a", b"%d" % (int(value) + 100))
            return value

        pipeline = source(server).via(MapAsync(feed_back)).to(Collect())
        assert await pipeline.run() == numbers(100)
        assert await stored(client) == 200
        assert sorted(await pipeline.run(), key=int) == numbers(100, 100)  # what came meanwhile is not lost


@bounded
async def test_ends_while_another_publishes_as_fast_as_it_can(server: NatsServer) -> None:
    async with connected(server.url) as client, connected(server.url) as other:
        await filled(client)

        async def publish(number: int) -> None:
            for part in range(100):
                await other.publish("s.a", b"%d" % (100 * number + part))
            await other.flush()

        async with publishing(publish) as published:
            while len(published) < 20:
                await asyncio.sleep(0)
            # What the server sends while a run closes comes again when its time is over.
            pipeline = source(server, ack_wait=1.0).to(Collect())
            parts = [await pipeline.run() for _ in range(3)]
        parts.append(await pipeline.run())
        # Handed back, what lies beyond an end comes again in any order.
        assert sorted((value for part in parts for value in part), key=int) == numbers(await stored(client))


@bounded
async def test_an_empty_stream_ends_at_once(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client)
        assert await source(server).to(Collect()).run() == []


@bounded
async def test_a_second_run_has_nothing_to_do(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(2000))
        pipeline = source(server).to(Discard())
        assert await pipeline.run() == 2000
        async with asyncio.timeout(2):
            assert await pipeline.run() == 0


@bounded
async def test_ends_although_the_last_messages_were_deleted(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        await request(client, "STREAM.MSG.DELETE.S", {"seq": 10})
        assert await source(server, until=10).to(Collect()).run() == numbers(9)


@bounded
async def test_ends_although_the_stream_is_purged_meanwhile(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(30_000))
        sink, gate = Late(), asyncio.Event()

        async def wait(value: bytes) -> bytes:
            await gate.wait()
            return value

        async with source(server).via(MapAsync(wait)).to(sink).start() as running:
            while (await standing(client))[1] < 300:
                await asyncio.sleep(0.01)
            await request(client, "STREAM.PURGE.S")
            gate.set()
            await sink.came(300)
            while running.stats().ending is None:
                sink.confirm()
                await asyncio.sleep(0.01)
            await running.wait()
        count = len(sink.values)
        assert 300 <= count < 30_000
        assert sink.values == numbers(count)


@bounded
async def test_ends_at_a_sequence(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        assert await source(server, until=4).to(Collect()).run() == numbers(4)
        assert await source(server, until=4).to(Collect()).run() == []
        # Handed back by the runs before, they may come in another order.
        assert sorted(await source(server, until=6).to(Collect()).run()) == numbers(2, 4)


@pytest.mark.parametrize("subject", [None, "s.b"])
@bounded
async def test_ends_at_a_sequence_that_is_yet_to_come(server: NatsServer, subject: str | None) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(5))  # on s.a
        async with source(server, subject, durable="D", until=12).to(Collect()).start() as running:
            await add(client, numbers(5, 5), "s.b")
            while running.stats().steps["Collect"].received < (10 if subject is None else 5):
                await asyncio.sleep(0.01)
            assert running.stats().ending is None
            await add(client, numbers(5, 10), "s.a")  # 12 is not one of ours, if there is a filter
            values = await running.wait()
        assert values == (numbers(12) if subject is None else numbers(5, 5))
        rest = await source(server, subject, durable="D").to(Collect()).run()
        assert sorted(rest, key=int) == (numbers(3, 12) if subject is None else [])


@bounded
async def test_take_ends_an_endless_source(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(5000))
        pipeline = source(server, until=None).via(Filter(lambda v: int(v) % 2)).via(Take(3)).to(Collect())
        assert await pipeline.run() == [b"1", b"3", b"5"]


# What is left behind


@bounded
async def test_a_consumer_without_a_name_lives_for_one_run(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(3))
        pipeline = source(server, durable=None).to(Collect())
        assert await pipeline.run() == numbers(3)
        assert await pipeline.run() == numbers(3)
        assert (await request(client, "CONSUMER.NAMES.S"))["consumers"] == []
        async with source(server, durable=None, until=None).to(Discard()).start() as running:
            assert len((await request(client, "CONSUMER.NAMES.S"))["consumers"]) == 1
            await running.stop()
        assert (await request(client, "CONSUMER.NAMES.S"))["consumers"] == []


@pytest.mark.parametrize("end", ["finish", "drain", "stop", "fail"])
@bounded
async def test_nothing_is_left_on_a_connection_of_the_users(watched: NatsServer, end: str) -> None:
    async with connected(watched.url) as client:
        await filled(client, numbers(100))
        await add_stream(client)
        callbacks = [client._error_cb, client._disconnected_cb, client._reconnected_cb, client._closed_cb]
        before = await connections(watched.url)

        def work(value: bytes) -> bytes:
            if end == "fail" and value == b"50":
                raise ValueError("no")
            return value

        items: JetStreamSource[bytes] = JetStreamSource(
            "S", durable="C", connection=client, until="end" if end == "finish" else None
        )
        pipeline = items.via(Map(work)).to(JetStreamSink("OUT", "out.a", connection=client))
        if end == "fail":
            with pytest.raises(Exception, match="no"):
                await pipeline.run()
        else:
            async with pipeline.start() as running:
                await until(lambda: stored(client, "OUT"), 100)
                assert len(await connections(watched.url)) == 1
                await (getattr(running, end) if end != "finish" else running.wait)()
        assert client.is_connected
        after = await connections(watched.url)
        assert [c["subscriptions_list"] for c in after] == [c["subscriptions_list"] for c in before]
        assert (await consumer(client))["num_waiting"] == 0
        now = [client._error_cb, client._disconnected_cb, client._reconnected_cb, client._closed_cb]
        assert now == callbacks
        await add(client, [b"usable"])
        assert b"usable" in await contents(client)


@bounded
async def test_connectors_with_equal_settings_share_one_connection(watched: NatsServer) -> None:
    async with connected(watched.url) as client:
        await filled(client)
        url, other = watched.url, watched.url.replace("127.0.0.1", "localhost")
        first = JetStreamSource("S", "s.a", servers=url)
        second = JetStreamSource("S", "s.b", servers=[url])
        third = JetStreamSource("S", "s.c", servers=other)
        sink: JetStreamSink[bytes] = JetStreamSink(
            "OUT", "out.a", servers=url, create=StreamSettings("out.>")
        )
        before = len(await connections(url))
        async with merge(first, second).to(sink).start():
            assert len(await connections(url)) == before + 1
        assert len(await connections(url)) == before
        async with merge(first, second, third).to(sink).start():
            assert len(await connections(url)) == before + 2
        await until(lambda: count_connections(url), before)


async def count_connections(url: str) -> int:
    return len(await connections(url))


@bounded
async def test_where_the_server_is_found(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(3))
        pipeline = JetStreamSource("S", until="end").to(Collect())
        monkeypatch.setenv("NATS_URL", server.url)
        assert await pipeline.run() == numbers(3)
        monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
        settings = SimpleNamespace(servers=["nats://127.0.0.1:1", server.url])
        assert await pipeline.run(settings=settings) == numbers(3)


@bounded
async def test_two_sources_in_one_pipeline(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(2000))
        await add(client, numbers(2000, 2000), "s.b")
        streams = [source(server, subject, durable=subject[-1]) for subject in ("s.a", "s.b")]
        values = await merge(*streams, Source([b"4000"])).to(Collect()).run()
        assert sorted(values, key=int) == numbers(4001)
        assert [value for value in values if int(value) < 2000] == numbers(2000)


# Nonsense in the description


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": "now"}, "until"),
        ({"until": 0}, "until"),
        ({"start": "first"}, "start must be"),
        ({"start": 0}, "start"),
        ({"ack_wait": 0}, "ack_wait"),
        ({"subject": ""}, "subject"),
        ({"subject": ["a", ""]}, "subject"),
        ({"on_error": "skip"}, "on_error"),
        ({"servers": "nats://x", "connection": object()}, "not both"),
    ],
)
def test_nonsense_is_refused_when_it_is_written(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        JetStreamSource("S", **options)
