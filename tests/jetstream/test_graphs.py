"""Graphs over JetStream: streams that come together keep their messages until what they became is delivered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from nats.aio.client import Client

from streamflow import EventTime, Stream
from streamflow.connectors import Collect
from streamflow.connectors.jetstream import JetStreamSource
from streamflow.operators import Map, concat, join, merge, split, zip_with
from streamflow.testing.server import NatsServer
from tests.jetstream.pipelines import Late, filled, source, standing
from tests.jetstream.support import add, bounded, connected, numbers, until


def pairs(*messages: bytes) -> tuple[bytes, ...]:
    return messages


def read(server: NatsServer, durable: str, subject: str, **options: Any) -> JetStreamSource[bytes]:
    return JetStreamSource("S", subject, durable=durable, servers=server.url, **options)


async def acknowledged(client: Client, durable: str) -> int:
    return (await standing(client, durable))[0]


@pytest.mark.parametrize("drained", [True, False])
@bounded
async def test_what_a_zip_holds_is_not_acknowledged(server: NatsServer, drained: bool) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(2000))
        await add(client, numbers(1500), "s.b")
        sink = Late()
        zipped = zip_with(pairs, read(server, "A", "s.a"), read(server, "B", "s.b"))
        async with zipped.to(sink).start() as running:
            await sink.came(1500)
            assert sink.values == [(n, n) for n in numbers(1500)]
            sink.confirm()
            await until(lambda: standing(client, "B"), (3500, 0, 0))
            # Its partners have not come: it is unacknowledged, and comes again.
            await until(lambda: acknowledged(client, "A"), 1500)
            await (running.drain() if drained else running.stop())
        await add(client, numbers(500), "s.b")
        zipped = zip_with(pairs, read(server, "A", "s.a", until="end"), read(server, "B", "s.b", until="end"))
        assert len(await zipped.to(Collect()).run()) == 500


@bounded
async def test_branches_of_one_durable_are_zipped_and_joined_again(server: NatsServer) -> None:
    def run(together: Callable[..., Stream[Any]]) -> Stream[Any]:
        messages = source(server, until="end")
        return together(messages.via(Map(len)), messages.via(Map(bytes)))

    async with connected(server.url) as client:
        await filled(client, numbers(3000))
        zipped = await run(lambda a, b: zip_with(pairs, a, b)).to(Collect()).run()
        assert zipped == [(len(n), n) for n in numbers(3000)]
        assert await standing(client) == (3000, 0, 0)
        await add(client, numbers(10))
        merged = await run(merge).to(Collect()).run()
        assert len(merged) == 20


@bounded
async def test_concat_reads_the_second_stream_after_the_first(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(2000))
        await add(client, [b"later"] * 1000, "s.b")
        both = concat(read(server, "A", "s.a", until="end"), read(server, "B", "s.b", until="end"))
        assert await both.to(Collect()).run() == numbers(2000) + [b"later"] * 1000
        assert [await standing(client, name) for name in "AB"] == [(2000, 0, 0), (3000, 0, 0)]


@bounded
async def test_streams_are_joined_by_key(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(300))
        even, odd = split(source(server, until="end"), lambda n: int(n) % 2 == 0)
        joined = join(
            even,
            odd,
            on=(lambda n: int(n) // 2, lambda n: int(n) // 2),
            within=timedelta(seconds=1),
            time=EventTime(lambda n: int(n), out_of_order=10),
        )
        found = await joined.to(Collect()).run(delivery="best_effort")
        assert sorted((int(a), int(b)) for a, b in found) == [(n, n + 1) for n in range(0, 300, 2)]
        assert await standing(client) == (300, 0, 0)
