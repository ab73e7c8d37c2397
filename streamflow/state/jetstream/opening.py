"""Open a bucket, and create it if it is not there."""

from __future__ import annotations

from collections.abc import Sequence

from nats.aio.client import Client

from streamflow._jetstream.admin import ensure_stream_like, stream_info
from streamflow._jetstream.connection import check_client, close, connect, server_urls
from streamflow.errors import ConnectorError, StateError
from streamflow.state.jetstream.bucket import JetStreamBucket
from streamflow.state.jetstream.exchange import Exchange
from streamflow.state.jetstream.settings import NAMES, BucketSettings

_OLDEST = (2, 14)


async def open_bucket(
    settings: BucketSettings,
    *,
    servers: str | Sequence[str] | None = None,
    connection: Client | None = None,
    timeout: float = 30.0,
    create: bool = True,
) -> JetStreamBucket:
    """A bucket on a connection of its own, or on one that stays open. Without ``create`` it must exist."""
    if connection is not None:
        return await _open(settings, check_client(connection), timeout, owned=False)
    client = await connect(list(server_urls(servers)))
    try:
        if not create and await stream_info(client, settings.stream) is None:
            raise StateError(f"there is no bucket {settings.name!r}")
        return await _open(settings, client, timeout, owned=True)
    except BaseException:
        await close(client)
        raise


async def _open(settings: BucketSettings, client: Client, timeout: float, *, owned: bool) -> JetStreamBucket:
    _check_version(client)
    try:
        info = await ensure_stream_like(
            client,
            settings.stream,
            settings.config(),
            settings.required(),
            what=f"bucket {settings.name!r} (stream {settings.stream!r})",
            names=NAMES,
        )
    except ConnectorError as error:
        raise StateError(str(error)) from error
    exchange = await Exchange.open(client)
    return JetStreamBucket(
        settings.name,
        exchange,
        history=info.config.max_msgs_per_subject or 1,
        replicas=info.config.num_replicas or 1,
        timeout=timeout,
        owned=owned,
    )


def _check_version(client: Client) -> None:
    version = client.connected_server_version
    try:
        found = (version.major, version.minor)
    except ValueError:  # a build of somebody's own: what it lacks, it will say
        return
    if found < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        raise StateError(
            f"an ObjectStore needs nats-server {wanted} or newer, for atomic batches and values that expire; this "
            f"one is {'.'.join(map(str, found))}"
        )
