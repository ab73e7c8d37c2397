"""`JetStreamSink`: publish into a stream, and count a value as delivered when the stream has confirmed it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from attrs import field, frozen
from nats.aio.client import Client

from streamflow._jetstream.admin import covers, ensure_stream
from streamflow._jetstream.publish import Item, Publisher, PublishError
from streamflow._jetstream.session import client_for
from streamflow._jetstream.settings import StreamSettings
from streamflow.codecs import Bytes, Codec, check_codec
from streamflow.engine.channel import Signal
from streamflow.engine.chunk import Chunk, Receipt
from streamflow.engine.connector import SinkContext, Writer
from streamflow.errors import ConfigurationError, ConnectorError, StepError
from streamflow.graph import Flow, Sink
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy, positive, seconds

T = TypeVar("T")

Encoded = tuple[str, bytes, Mapping[str, str] | None]


@frozen
class JetStreamSink(Sink[T, int]):
    """Publish each element into a stream; `Pipeline.run` returns how many were confirmed.

    ``subject`` is where to, or a function of the element; the stream must take it in. ``stream`` must exist unless
    ``create=StreamSettings(…)`` is given. ``codec`` encodes the element (default: it is bytes); ``headers`` is a
    function that returns headers for it.

    Up to ``window`` messages are under way at a time. Each is sent again, with the same message id, until the stream
    has confirmed it or ``timeout`` (default 30 s) is over; then it is refused, as is one that the stream does not
    take. What is refused goes to the error policy. The source's messages are acknowledged when all they became is
    confirmed.

    Every message has an id by which the stream drops repeats within its ``duplicate_window``. Behind stateless,
    synchronous steps on one path from a JetStream source the id is made of the source message's sequence, so that
    what a redelivered message becomes is not stored twice. Elsewhere it is drawn for each element and protects its
    retries. Ids never depend on content: two equal payloads both arrive.

    In ``exactly_once`` nothing is published: outputs are committed with the checkpoint, in one batch, and the stream
    *sources* them from the checkpoint's bucket. Its consumers see each output once, in order, up to a second (the
    checkpoint's ``every``) later. The stream must keep messages by limits, and have that source; with ``create=`` it
    is added. Headers that tell the server what to do (``Nats-…``) are refused then.

    ``servers`` is a URL or a list, ``connection`` an open nats-py client, which is left open.
    """

    wants_positions = True
    transactional = True

    stream: str
    subject: str | Callable[[T], str]
    codec: Codec[Any] = field(factory=Bytes, kw_only=True)
    headers: Callable[[T], Mapping[str, str]] | None = field(default=None, kw_only=True)
    create: StreamSettings | None = field(default=None, kw_only=True)
    window: int = field(default=4096, kw_only=True)
    timeout: timedelta | float = field(default=30.0, kw_only=True)
    servers: str | Sequence[str] | None = field(default=None, kw_only=True)
    connection: Client | None = field(default=None, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.subject, str) and not callable(self.subject):
            raise ConfigurationError(
                f"JetStreamSink's subject must be a subject or a function of the element, not {self.subject!r}"
            )
        check_codec(self.codec, "JetStreamSink")
        positive(self.window, "JetStreamSink's window")
        seconds(self.timeout, "JetStreamSink's timeout")
        check_policy(self.on_error, "JetStreamSink")
        if self.servers is not None and self.connection is not None:
            raise ConfigurationError("JetStreamSink takes servers= or connection=, not both")

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(self._encoder(), on_error=self.on_error),)

    def _encoder(self) -> Callable[[T], Encoded]:
        encode, subject, headers = self.codec.encode, self.subject, self.headers
        if isinstance(subject, str):
            fixed = subject
            if headers is None:
                return lambda value: (fixed, encode(value), None)
            of = headers
            return lambda value: (fixed, encode(value), _pairs(of(value)))
        at = subject
        if headers is None:
            return lambda value: (_text(at(value)), encode(value), None)
        of = headers
        return lambda value: (_text(at(value)), encode(value), _pairs(of(value)))

    async def open(self, context: SinkContext) -> Writer[int]:
        client = await client_for(context.run, self.servers, self.connection)
        info = await ensure_stream(client, self.stream, self.create)
        subjects = info.config.subjects or []
        if isinstance(self.subject, str) and not any(covers(subject, self.subject) for subject in subjects):
            raise ConnectorError(
                f"stream {self.stream!r} does not take in subject {self.subject!r}: its subjects are {subjects}"
            )
        if context.outbox is not None:
            from streamflow.connectors.jetstream.transactional import open_transactional

            return await open_transactional(context, client, self.stream, may_change=self.create is not None)
        return await open_publishing(
            context, client, self.stream, self.window, seconds(self.timeout, "timeout")
        )


async def open_publishing(
    context: SinkContext, client: Client, stream: str, window: int, timeout: float
) -> Writer[int]:
    """A writer that publishes what it gets at once."""
    writer = JetStreamWriter(context)
    writer.publisher = await Publisher.open(
        client,
        stream=stream,
        window=window,
        timeout=timeout,
        on_confirm=writer.confirmed,
        on_reject=writer.rejected,
    )
    context.run.spawn(writer.watch())
    return writer


def _text(subject: object) -> str:
    if not isinstance(subject, str):
        raise ConnectorError(f"the subject function returned {subject!r} and not a subject")
    return subject


def _pairs(headers: object) -> Mapping[str, str] | None:
    if headers is not None and not isinstance(headers, Mapping):
        raise ConnectorError(f"the headers function returned {headers!r} and not a mapping of names to texts")
    return headers


class _Part:
    """The token of a chunk's messages: releases the chunk when all of them are confirmed."""

    __slots__ = ("chunk", "missing")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.missing = len(chunk)

    def release(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.chunk.release()


class JetStreamWriter(Writer[int]):
    """Publishes chunks and releases their receipts as the stream confirms."""

    publisher: Publisher

    def __init__(self, context: SinkContext) -> None:
        self._context = context
        self._count = 0
        self._drawn = uuid4().hex[:16]
        sink = f"{context.run.pipeline} {context.step}".encode()
        self._prefix = hashlib.blake2s(sink, digest_size=6).hexdigest()
        self._last: Receipt | None = None
        self._ordinal = 0
        self._number = 0
        self._failure: StepError | None = None
        self._failed = Signal()

    async def write(self, chunk: Chunk) -> None:
        await self.publisher.publish_many(self._items(chunk))
        self._check()

    def _items(self, chunk: Chunk) -> Iterator[Item]:
        if chunk.lineage is None:
            part = _Part(chunk)
            for subject, payload, headers in chunk.values:
                self._number += 1
                yield subject, payload, headers, f"{self._drawn}.{self._number}", part
            return
        for (subject, payload, headers), receipt in zip(chunk.values, chunk.lineage, strict=True):
            yield subject, payload, headers, self._id(receipt), receipt

    def _id(self, receipt: Receipt) -> str:
        """The id of the next message, which was made of the source message under this receipt."""
        if receipt.position is None or not self._context.stable:
            self._number += 1
            return f"{self._drawn}.{self._number}"
        # What one message became comes in a row: its place in the row tells several apart. A redelivery has a
        # receipt of its own, and counts from 0 again.
        self._ordinal = self._ordinal + 1 if receipt is self._last else 0
        self._last = receipt
        return f"{self._prefix}.{receipt.position}.{self._ordinal}"

    def confirmed(self, tokens: list[Any]) -> None:
        self._count += len(tokens)
        for token in tokens:
            token.release()

    def rejected(self, token: Any, error: PublishError) -> bool:
        """Ask the error policy about a message that the stream did not take; after a failure no more."""
        if self._failure is None:
            failure = self._context.guard.failure(error, self._context.step, None)
            if self._context.guard.absorbs(failure):
                token.release()
            else:
                self._failure = failure
                self._failed.set()
        return True  # this writer raises it itself, with the place where it happened

    async def watch(self) -> None:
        """Fail the run as soon as a message is refused, also while nothing else is written."""
        await self._failed.wait()
        self._check()

    async def flush(self) -> None:
        await self.publisher.flush()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure from self._failure.cause

    def result(self) -> int:
        return self._count

    async def close(self) -> None:
        await self.publisher.aclose()
