"""`KeyValueTable`: a key-value bucket as a table for `Lookup`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

from attrs import field, frozen
from nats.aio.client import Client

from streamflow.codecs import Bytes, Codec, check_codec
from streamflow.engine.connector import Table, WorkContext
from streamflow.errors import ConfigurationError

V = TypeVar("V")

_BUCKET = re.compile(r"[-_a-zA-Z0-9]+")
# Tokens as keys have them, or *, separated by dots; the last one may be >.
_PATTERN = re.compile(r"(?:(?:\*|[-/_=a-zA-Z0-9]+)\.)*(?:>|\*|[-/_=a-zA-Z0-9]+)")


@frozen(init=False)
class KeyValueTable(Table[str, V]):
    """A NATS key-value bucket as the table of a `Lookup`: loaded when the run starts, then kept up to date.

    ``bucket`` must exist. Keys are strings. ``pattern`` takes a part of them, such as ``"eu.*"``; the default is all.
    ``codec`` decodes the values (default: the bytes themselves).

    The whole table, as it is when the run opens its connectors, is in memory before the first element is processed.
    From then on puts, deletes and purges of keys follow as the server tells of them, and an entry is forgotten when
    its TTL or the age limit of the bucket is over. After a lost connection or a restart of the server the bucket is
    read anew; until then lookups see it as it was, and observers are told ("table is out of date", "table is up to
    date"). Messages that are removed from the bucket's stream behind the back of the key-value API are noticed
    with the next reading.

    A value that does not decode stops nobody who does not need it: it is told as an event when it arrives, and an
    element that looks it up goes to the error policy with the codec's error; ``default=`` does not cover it up.

    One object that is used several times in a pipeline is loaded once. ``servers`` is a URL or a list, ``connection``
    an open nats-py client, which is left open. The consumer that watches the bucket is gone after the run; if it could
    not be deleted, the server forgets it after a minute.

    Raises `ConnectorError` at the start of a run if there is no such bucket or it cannot be read; also later, if the
    bucket is deleted.
    """

    bucket: str
    codec: Codec[V] = field(kw_only=True)
    pattern: str = field(kw_only=True)
    servers: str | tuple[str, ...] | None = field(kw_only=True)
    connection: Client | None = field(kw_only=True)

    @overload
    def __init__(
        self: KeyValueTable[bytes],
        bucket: str,
        *,
        pattern: str = ...,
        servers: str | Sequence[str] | None = ...,
        connection: Client | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        bucket: str,
        *,
        codec: Codec[V],
        pattern: str = ...,
        servers: str | Sequence[str] | None = ...,
        connection: Client | None = ...,
    ) -> None: ...
    def __init__(
        self,
        bucket: str,
        *,
        codec: Codec[Any] | None = None,
        pattern: str = ">",
        servers: str | Sequence[str] | None = None,
        connection: Client | None = None,
    ) -> None:
        decoder: Codec[Any] = Bytes() if codec is None else codec
        check_codec(decoder, "KeyValueTable")
        if not _matches(_BUCKET, bucket):
            raise ConfigurationError(f"{bucket!r} is not a name for a bucket: letters, digits, - and _")
        if not _matches(_PATTERN, pattern):
            raise ConfigurationError(
                f"KeyValueTable's pattern must be a key or have wildcards in it (* and >), not {pattern!r}"
            )
        if servers is not None and connection is not None:
            raise ConfigurationError("KeyValueTable takes servers= or connection=, not both")
        urls = servers if servers is None or isinstance(servers, str) else tuple(servers)
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            bucket, codec=decoder, pattern=pattern, servers=urls, connection=connection
        )

    async def open(self, context: WorkContext) -> Mapping[str, V]:
        from streamflow._jetstream.session import client_for
        from streamflow.connectors.jetstream.bucket import BucketCache

        async def open() -> BucketCache:
            client = await client_for(context.run, self.servers, self.connection)
            cache = BucketCache(client, self.bucket, self.pattern, self.codec.decode, context)
            await cache.open()
            context.run.spawn(cache.follow())
            return cache

        cache = await context.run.resources.get(("key-value table", self), open, BucketCache.close)
        return cache.entries


def _matches(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None
