from __future__ import annotations

import asyncio
import socket

import nats
import pytest

from streamflow._jetstream.connection import ConnectionEvent, close, connect, watch
from streamflow.errors import ConnectorError
from streamflow.testing.server import NatsServer
from tests.jetstream.support import bounded, connected


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@bounded
async def test_no_server_fails_fast_and_says_where() -> None:
    url = f"nats://user:secret@127.0.0.1:{free_port()}"
    async with asyncio.timeout(5):
        with pytest.raises(
            ConnectorError, match=r"cannot connect to NATS at nats://127.*: connection refused"
        ) as failure:
            await connect(url)
    assert "secret" not in str(failure.value)
    assert isinstance(failure.value.__cause__, ConnectionRefusedError)


@bounded
async def test_takes_the_server_that_answers(server: NatsServer) -> None:
    client = await connect([f"nats://127.0.0.1:{free_port()}", server.url])
    assert client.connected_url is not None
    assert client.connected_url.geturl() == server.url
    await close(client)


@bounded
async def test_wrong_credentials_are_named() -> None:
    with NatsServer(config="authorization { user: u, password: p }") as server:
        for _ in range(4):  # the server also cuts the connection, which may be noticed before or after
            with pytest.raises(ConnectorError, match="refused the credentials"):
                await connect(server.url)
        with pytest.raises(ConnectorError, match="refused the credentials"):
            await connect(server.url, user="u", password="wrong")


@pytest.mark.parametrize("servers", ["nats://127.0.0.1:port", [], ["nats://127.0.0.1", "ws://127.0.0.1"]])
@bounded
async def test_impossible_addresses(servers: str | list[str]) -> None:
    with pytest.raises(ConnectorError):
        await connect(servers)


@bounded
async def test_reconnects_and_tells(server: NatsServer) -> None:
    events: list[ConnectionEvent] = []
    async with connected(server.url, on_event=events.append) as client:
        assert events == []
        server.kill()
        await seen(events, "disconnected")
        while len(events) < 6:  # several attempts fail
            await asyncio.sleep(0.01)
        server.start()
        await seen(events, "reconnected")
        assert client.is_connected
    assert events[-1].kind == "closed"
    assert next(event.error for event in events if event.kind == "error") is not None


async def seen(events: list[ConnectionEvent], kind: str) -> None:
    while kind not in [event.kind for event in events]:
        await asyncio.sleep(0.01)


@bounded
async def test_watching_a_clients_own_connection_keeps_its_callbacks(server: NatsServer) -> None:
    theirs: list[str] = []

    async def disconnected() -> None:
        theirs.append("disconnected")

    async def reconnected() -> None:
        theirs.append("reconnected")

    async def failed(error: Exception) -> None:
        theirs.append("error")

    client = await nats.connect(
        server.url,
        disconnected_cb=disconnected,
        reconnected_cb=reconnected,
        error_cb=failed,
        reconnect_time_wait=0.05,
    )
    before = {
        name: getattr(client, name)
        for name in ("_disconnected_cb", "_reconnected_cb", "_closed_cb", "_error_cb")
    }
    first: list[ConnectionEvent] = []
    second: list[ConnectionEvent] = []
    leave = watch(client, first.append), watch(client, second.append)
    server.restart()
    await seen(first, "reconnected")
    assert [e.kind for e in first] == [e.kind for e in second]
    assert {"disconnected", "reconnected"} <= set(theirs)
    leave[0]()
    leave[0]()
    server.restart()
    while [event.kind for event in second].count("reconnected") < 2:
        await asyncio.sleep(0.01)
    assert [event.kind for event in first].count("reconnected") == 1
    leave[1]()
    assert before == {name: getattr(client, name) for name in before}
    await client.close()
    assert theirs.count("reconnected") == 2


@bounded
async def test_closes_whatever_the_state(server: NatsServer) -> None:
    client = await connect(server.url)
    await client.subscribe("a", cb=ignore)
    server.kill()
    while client.is_connected:
        await asyncio.sleep(0.01)
    await client.publish("a", b"x")  # what it cannot send makes nats-py raise in the middle of its close
    await close(client)
    assert client.is_closed
    await close(client)


async def ignore(message: object) -> None: ...
