"""Open, watch and close connections to NATS.

`connect` fails fast when no server can be reached at first, and never gives up once it was connected. `watch` tells
several listeners what happens to a client, also to one that the user opened with callbacks of their own.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import nats.errors
from attrs import frozen
from nats.aio.client import Client, Server

from streamflow._jetstream.wire import chain_callbacks, clean_up
from streamflow.errors import ConfigurationError, ConnectorError

_CONNECT_SECONDS = 2.0
_PING_SECONDS = 20.0
_CLOSE_SECONDS = 5.0
_FIRST_RETRY_SECONDS = 0.2
_LAST_RETRY_SECONDS = 1.0

DEFAULT_URL = "nats://127.0.0.1:4222"

Happening = Literal["disconnected", "reconnected", "closed", "error"]


@frozen
class ConnectionEvent:
    """What happened to a connection. ``error`` is set for "error", e.g. a permission that is missing."""

    kind: Happening
    error: Exception | None = None


Listener = Callable[[ConnectionEvent], None]
"""Called on the event loop; it must neither block nor raise."""


def server_urls(servers: str | Sequence[str] | None) -> tuple[str, ...]:
    """``servers`` as URLs: one, several separated by commas, or a list.

    Without any, the environment's ``NATS_URL``, then the local server.
    """
    servers = servers or os.environ.get("NATS_URL") or DEFAULT_URL
    if isinstance(servers, str):
        return tuple(url.strip() for url in servers.split(",") if url.strip())
    return tuple(servers)


def check_client(connection: object) -> Client:
    """Refuse a ``connection=`` that is no client."""
    if not isinstance(connection, Client):
        raise ConfigurationError(
            f"connection= takes an open nats-py client, not {connection!r}; servers= takes URLs"
        )
    return connection


async def connect(
    servers: str | Sequence[str], *, on_event: Listener | None = None, **options: Any
) -> Client:
    """Connect to one of ``servers``.

    If none answers, each having been tried twice, this raises a `ConnectorError` that says why. Once connected, a lost
    connection is restored for as long as it takes, with 0.1 to 1 s between two attempts (jittered).
    ``on_event`` hears of what happens from then on. ``options`` go to nats-py: ``user_credentials=``, ``tls=``, ….
    """
    urls = [servers] if isinstance(servers, str) else list(servers)
    if not urls:
        raise ConnectorError("no NATS server to connect to: `servers` is empty")
    failures: list[Exception] = []
    connected = False

    async def heard(error: Exception) -> None:
        if not connected:
            failures.append(error)
        elif on_event is not None:
            on_event(ConnectionEvent("error", error))

    settings: dict[str, Any] = {
        "name": "streamflow",
        "connect_timeout": _CONNECT_SECONDS,
        "reconnect_time_wait": _FIRST_RETRY_SECONDS,
        "reconnect_to_server_handler": _next_attempt,
        "ping_interval": _PING_SECONDS,
        "error_cb": heard,
        **(_callbacks(on_event) if on_event is not None else {}),
        **options,
    }
    later = settings.pop("max_reconnect_attempts", -1)
    client = Client()
    try:
        await client.connect(urls, max_reconnect_attempts=1, **settings)
    except (nats.errors.Error, OSError, TimeoutError, ImportError) as error:
        # A refused client is also cut off, which may be reported after the refusal.
        reason = next(filter(_refused, failures), failures[-1] if failures else error)
        raise ConnectorError(_not_connected(urls, reason)) from reason
    client.options["max_reconnect_attempts"] = later
    connected = True
    return client


async def close(client: Client) -> None:
    """Close a client, whatever state it is in: what is in its out-buffer is sent first, if it is connected."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()
    except (nats.errors.Error, OSError, TimeoutError):  # the connection broke while the last bytes were sent
        clean_up(client)


def watch(client: Client, listener: Listener) -> Callable[[], None]:
    """Tell ``listener`` what happens to ``client``, until the returned function is called.

    The client's own callbacks go on being called, and are as they were once the last listener has left.
    """
    hub = _hubs.get(client)
    if hub is None:
        hub = _hubs[client] = _Hub(client)
    hub.listeners.append(listener)

    def leave() -> None:
        if listener in hub.listeners:
            hub.listeners.remove(listener)
        if not hub.listeners and _hubs.pop(client, None) is not None:
            hub.restore()

    return leave


class _Hub:
    """The listeners of one client. It lives while there are any."""

    def __init__(self, client: Client) -> None:
        self.listeners: list[Listener] = []
        self.restore = chain_callbacks(
            client,
            disconnected=lambda: self.tell("disconnected"),
            reconnected=lambda: self.tell("reconnected"),
            closed=lambda: self.tell("closed"),
            error=lambda error: self.tell("error", error),
        )

    def tell(self, kind: Happening, error: Exception | None = None) -> None:
        event = ConnectionEvent(kind, error)
        for listener in [*self.listeners]:
            listener(event)


_hubs: dict[Client, _Hub] = {}


def _callbacks(on_event: Listener) -> dict[str, Callable[[], Any]]:
    def callback(kind: Happening) -> Callable[[], Any]:
        async def tell() -> None:
            on_event(ConnectionEvent(kind))

        return tell

    kinds: tuple[Happening, ...] = ("disconnected", "reconnected", "closed")
    return {f"{kind}_cb": callback(kind) for kind in kinds}


def _next_attempt(pool: list[Server], info: dict[str, Any]) -> tuple[Server | None, float]:
    """Which server to try next and after how many seconds: the one with the fewest failures, backing off."""
    server = min(pool, key=lambda server: server.reconnects)
    delay = min(_FIRST_RETRY_SECONDS * 2.0 ** min(server.reconnects, 8), _LAST_RETRY_SECONDS)
    return server, delay * random.uniform(0.5, 1.0)


def _not_connected(urls: Sequence[str], reason: Exception) -> str:
    where = f"cannot connect to NATS at {', '.join(map(_without_secrets, urls))}"
    text = str(reason).removeprefix("nats: ").strip("'\"")
    if _refused(reason):
        return f"{where}: the server refused the credentials (authorization violation)"
    if isinstance(reason, ConnectionRefusedError):
        return f"{where}: connection refused. Is a nats-server running there?"
    if isinstance(reason, TimeoutError):
        return f"{where}: no answer in time"
    return f"{where}: {text or type(reason).__name__}"


def _refused(error: Exception) -> bool:
    return (
        isinstance(error, nats.errors.AuthorizationError) or "authorization violation" in str(error).lower()
    )


def _without_secrets(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
