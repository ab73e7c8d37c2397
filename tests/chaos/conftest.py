"""Servers to be killed: one, and three that are a cluster."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from streamflow._jetstream.admin import request
from streamflow._jetstream.connection import close, connect
from streamflow.errors import ConnectorError
from streamflow.testing import NatsServer

_START_SECONDS = 30.0


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture
def cluster() -> Iterator[list[NatsServer]]:
    """Three servers, ``n0`` to ``n2``, whose streams can have three replicas."""
    ports = _free_ports(3)
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                NatsServer(
                    config=f"server_name: n{number}\n"
                    f"cluster {{ name: C, listen: 127.0.0.1:{port}, routes: [{routes}] }}"
                )
            )
            for number, port in enumerate(ports)
        ]
        asyncio.run(_formed([server.url for server in servers]))
        yield servers


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def _formed(urls: list[str]) -> None:
    """Wait until the cluster has a leader for JetStream, and all are in it."""
    client = await connect(urls)
    try:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    probe = {"name": "PROBE", "subjects": ["probe"], "num_replicas": len(urls)}
                    await request(client, "STREAM.CREATE.PROBE", probe)
                except ConnectorError:
                    await asyncio.sleep(0.1)
                else:
                    await request(client, "STREAM.DELETE.PROBE")
                    return
    finally:
        await close(client)
