"""`KeyValueSink`: put elements into a key-value bucket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from attrs import field, frozen
from nats.aio.client import Client

from streamflow._jetstream.session import client_for
from streamflow.codecs import Bytes, Codec, check_codec
from streamflow.connectors.jetstream.sink import Encoded, open_publishing
from streamflow.engine.connector import SinkContext, Writer
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Sink
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy, positive, seconds
from streamflow.state.jetstream import BucketSettings, open_bucket
from streamflow.state.keys import escape

T = TypeVar("T")

_DELETION = {"KV-Operation": "DEL"}


@frozen
class KeyValueSink(Sink[T, int]):
    """Put each element into a key-value bucket; `Pipeline.run` returns how many were put.

    ``key`` is a function of the element; any string is a key (escaped as `ObjectStore` does, which can read what is
    put here). ``value`` is what to put (default: the element itself), None deletes the key. ``codec`` encodes it
    (default: it is bytes). The bucket is created if it is not there, with ``history`` and ``replicas`` (default 1).

    Each value is sent again until the bucket has confirmed it, or ``timeout`` (default 30 s) is over; what is refused
    goes to the error policy. Values are put in the order of the elements, except for one that has to be sent again. In
    ``exactly_once`` they are committed with the checkpoint, and the bucket's stream *sources* them from there, always
    in order; that source is added to it.

    ``servers`` is a URL or a list, ``connection`` an open nats-py client, which is left open.

    Raises `StateError` at the start for a bucket that is in conflict with the settings, each of which is listed.
    """

    transactional = True

    bucket: str
    key: Callable[[T], str] = field(kw_only=True)
    value: Callable[[T], Any] | None = field(default=None, kw_only=True)
    codec: Codec[Any] = field(factory=Bytes, kw_only=True)
    history: int | None = field(default=None, kw_only=True)
    replicas: int | None = field(default=None, kw_only=True)
    window: int = field(default=4096, kw_only=True)
    timeout: timedelta | float = field(default=30.0, kw_only=True)
    servers: str | Sequence[str] | None = field(default=None, kw_only=True)
    connection: Client | None = field(default=None, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        self._settings()
        for name in ("key", "value"):
            given = getattr(self, name)
            if not callable(given) and not (name == "value" and given is None):
                raise ConfigurationError(
                    f"KeyValueSink's {name} must be a function of the element, not {given!r}"
                )
        check_codec(self.codec, "KeyValueSink")
        positive(self.window, "KeyValueSink's window")
        seconds(self.timeout, "KeyValueSink's timeout")
        check_policy(self.on_error, "KeyValueSink")
        if self.servers is not None and self.connection is not None:
            raise ConfigurationError("KeyValueSink takes servers= or connection=, not both")

    def _settings(self) -> BucketSettings:
        return BucketSettings(self.bucket, history=self.history, replicas=self.replicas)

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(self._encoder(), on_error=self.on_error),)

    def _encoder(self) -> Callable[[T], Encoded]:
        prefix, key, value, encode = f"$KV.{self.bucket}.", self.key, self.value, self.codec.encode

        def encoded(element: T) -> Encoded:
            subject = prefix + escape(key(element))
            content = element if value is None else value(element)
            return (subject, b"", _DELETION) if content is None else (subject, encode(content), None)

        return encoded

    async def open(self, context: SinkContext) -> Writer[int]:
        client = await client_for(context.run, self.servers, self.connection)
        bucket = await open_bucket(self._settings(), connection=client)
        await bucket.close()
        if context.outbox is not None:
            from streamflow.connectors.jetstream.transactional import open_transactional

            return await open_transactional(context, client, bucket.stream, may_change=True)
        return await open_publishing(
            context, client, bucket.stream, self.window, seconds(self.timeout, "timeout")
        )
