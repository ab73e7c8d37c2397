"""The connection of a connector: the user's own, or one that all connectors of a run with equal settings share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nats.aio.client import Client

from streamflow._jetstream.connection import ConnectionEvent, check_client, close, connect, server_urls

if TYPE_CHECKING:
    from streamflow.engine.connector import RunContext


async def client_for(
    context: RunContext, servers: str | Sequence[str] | None, connection: Client | None
) -> Client:
    """An open client: ``connection`` itself, which stays open, or one to ``servers``, closed with the run.

    Without either, the settings of the run count, then the environment's ``NATS_URL``, then the local server.
    """
    if connection is not None:
        return check_client(connection)
    urls = server_urls(servers or getattr(context.settings, "servers", None))

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
