"""Flow control over JetStream: what it drops does not stay unacknowledged, and what it holds does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamflow.operators import Buffer, Debounce, Delay, MapAsync, Sample
from streamflow.testing.server import NatsServer
from tests.jetstream.pipelines import Late, filled, source, standing
from tests.jetstream.support import add, bounded, connected, numbers, until


@pytest.mark.parametrize("latest", [Debounce(3600), Sample(7 * 86_400)], ids=lambda flow: type(flow).__name__)
@bounded
async def test_superseded_messages_do_not_pile_up(server: NatsServer, latest: Any) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(3000))
        async with source(server).via(latest).to(Late()).start() as running:
            await until(lambda: standing(client), (2999, 1, 0))
            await add(client, numbers(500))
            await until(lambda: standing(client), (3499, 1, 0))
            await running.drain()
        # The one that was held comes again.
        sink = Late()
        async with source(server).via(Debounce(0.05)).to(sink).start():
            await sink.came(1)
            assert sink.values == numbers(500)[-1:]
            sink.confirm()


@bounded
async def test_what_is_delayed_is_acknowledged_when_it_has_left(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(50))
        sink = Late()
        async with source(server).via(Delay(0.3)).to(sink).start():
            await until(lambda: standing(client), (0, 50, 0))
            await sink.came(50)
            sink.confirm()
            await until(lambda: standing(client), (50, 0, 0))


@bounded
async def test_what_a_full_buffer_drops_is_acknowledged(server: NatsServer) -> None:
    async def patient(message: bytes) -> bytes:
        await hold.wait()
        return message

    hold = asyncio.Event()
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        sink = Late()
        flow = Buffer[bytes](5, "drop_oldest").via(MapAsync(patient, concurrency=2))
        async with source(server).via(flow).to(sink).start() as running:
            await until(lambda: standing(client), (0, 7, 0))
            assert running.stats().steps["Buffer"].dropped == 93
            hold.set()
            await sink.came(7)
            assert sink.values == [*numbers(2), *numbers(100)[-5:]]
            sink.confirm()
            await until(lambda: standing(client), (100, 0, 0))
