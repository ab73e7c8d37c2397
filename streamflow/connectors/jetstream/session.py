"""The connection of a connector: the user's own, or one that all connectors of a run with equal settings share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client

from streamflow.connectors.jetstream.connection import ConnectionEvent, close, connect
from streamflow.engine.connector import RunContext
from streamflow.errors import ConfigurationError

DEFAULT_URL = "nats://127.0.0.1:4222"


async def client_for(
    context: RunContext, servers: str | Sequence[str] | None, connection: Client | None
) -> Client:
    """An open client: ``connection`` itself, which stays open, or one to ``servers``, closed with the run.

    Without either, the settings of the run count, then the environment's ``NATS_URL``, then the local server.
    """
    if connection is not None:
        if not isinstance(connection, Client):
            raise ConfigurationError(
                f"connection= takes an open nats-py client, not {connection!r}; servers= takes URLs"
            )
        return connection
    urls = _urls(
        servers or getattr(context.settings, "servers", None) or os.environ.get("NATS_URL") or DEFAULT_URL
    )

    ending = False

    def heard(event: ConnectionEvent) -> None:
        if ending:
            return
        details: dict[str, Any] = {"error": str(event.error)} if event.error is not None else {}
        context.observer.event(f"connection {event.kind}", servers=list(urls), **details)

    async def open() -> Client:
        return await connect(list(urls), on_event=heard)

    async def end(client: Client) -> None:
        # That a connection is closed at the end of its run is no event.
        nonlocal ending
        ending = True
        await close(client)

    client: Client = await context.resources.get(("nats", urls), open, end)
    return client


def _urls(servers: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(servers, str):
        return tuple(url.strip() for url in servers.split(",") if url.strip())
    return tuple(servers)
