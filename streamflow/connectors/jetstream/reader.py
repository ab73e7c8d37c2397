"""The running side of `JetStreamSource`: pulls, keeps the account of receipts, and ends where it was told to."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import nats.errors
from nats.aio.client import Client

from streamflow.connectors.jetstream.admin import (
    consumer_info,
    ensure_consumer,
    ensure_stream,
    last_sequence,
    request,
    stream_info,
)
from streamflow.connectors.jetstream.protocol import Incoming, parse_reply, stream_sequence
from streamflow.connectors.jetstream.pull import PullSubscription
from streamflow.connectors.jetstream.session import client_for
from streamflow.connectors.jetstream.settings import ConsumerSettings
from streamflow.engine.channel import Signal
from streamflow.engine.chunk import CHUNK_SIZE, Chunk, Outcome, Receipt
from streamflow.engine.connector import Reader, SourceContext
from streamflow.errors import ConnectorError, StreamflowError

if TYPE_CHECKING:
    from streamflow.connectors.jetstream.source import JetStreamSource

_LEAST_UNACKNOWLEDGED = 65_536
_LOOK_SECONDS = 0.25
_FLUSH_SECONDS = 2.0


async def open_reader(source: JetStreamSource[Any], context: SourceContext) -> Reader:
    """Find or create stream and consumer, and start to pull."""
    client = await client_for(context.run, source.servers, source.connection)
    info = await ensure_stream(client, source.stream, source.create)
    end = await _end(client, source)
    consumer = ConsumerSettings(
        source.durable or f"streamflow-{uuid4().hex[:16]}",
        source.subjects,
        durable=source.durable is not None,
        deliver="sequence" if isinstance(source.start, int) else source.start,
        start_sequence=source.start if isinstance(source.start, int) else None,
        ack_wait=timedelta(seconds=source.ack_wait),
        max_ack_pending=max(_LEAST_UNACKNOWLEDGED, 2 * context.in_flight),
    )
    state = await ensure_consumer(client, source.stream, consumer)
    pull = await PullSubscription.open(client, source.stream, consumer.name, pending=state.num_pending)
    # A stream that was made anew counts its sequences from 1 again: its outputs must not take over old ids.
    identity = f"{source.stream} {info.created} {consumer.name}".encode()
    reader = JetStreamReader(
        context,
        client,
        pull,
        durable=consumer.durable,
        ack_wait=source.ack_wait,
        end=end,
        metadata=source.with_metadata,
        identity=hashlib.blake2s(identity, digest_size=6).hexdigest(),
    )
    context.run.observer.lag(context.step, state.num_pending or 0)
    context.run.spawn(reader.settle())
    context.run.spawn(reader.keep_alive())
    return reader


async def _end(client: Client, source: JetStreamSource[Any]) -> int | None:
    """The sequence after which the source ends: None for never, 0 if there is nothing to read."""
    if source.until != "end":
        return source.until
    subjects = source.subjects or (">",)
    return max([await last_sequence(client, source.stream, subject) or 0 for subject in subjects])


class JetStreamReader(Reader):
    """Reads through a `PullSubscription`. Receipts say when to acknowledge, a background task does it in bursts."""

    def __init__(
        self,
        context: SourceContext,
        client: Client,
        pull: PullSubscription,
        *,
        durable: bool,
        ack_wait: float,
        end: int | None,
        metadata: bool,
        identity: str,
    ) -> None:
        self._context = context
        self._client = client
        self._pull = pull
        self._durable = durable
        self._ack_wait = ack_wait
        self._end = end
        self._metadata = metadata
        self._identity = identity
        self._outstanding: dict[Receipt, list[bytes]] = {}
        self._acks: list[bytes] = []
        self._naks: list[bytes] = []
        self._beyond: list[bytes] = []
        self._settled = Signal()
        self._tail = end == 0  # whether the end may have been reached

    # Reading

    async def read(self) -> Chunk | None:
        while True:
            messages = await self._next()
            if messages is None:
                return None
            if self._end is not None:
                messages = self._up_to_end(messages, self._end)
            if messages:
                self._context.run.observer.lag(self._context.step, parse_reply(messages[-1].reply).pending)
                return self._chunk(messages)

    async def _next(self) -> list[Incoming] | None:
        """The next messages; None when the end has been reached and everything up to it is settled or in hand."""
        if self._end is None:
            return await self._pull.read(CHUNK_SIZE)
        while True:
            if self._tail and not self._pull.buffered and await self._is_finished(self._end):
                return None
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    return await self._pull.read(CHUNK_SIZE)
            except TimeoutError:
                self._tail = True

    def _up_to_end(self, messages: list[Incoming], end: int) -> list[Incoming]:
        wanted = []
        for message in messages:
            sequence = stream_sequence(message.reply)
            self._tail = self._tail or sequence >= end
            if sequence <= end:
                wanted.append(message)
            else:
                # Kept until the run ends: handed back now, it would be delivered here again.
                self._beyond.append(message.reply)
        return wanted

    async def _is_finished(self, end: int) -> bool:
        """Whether nothing up to the end is left to deliver, nor unacknowledged in the hands of others."""
        pull = self._pull
        info = await consumer_info(self._client, pull.stream, pull.consumer)
        if info is None:
            raise ConnectorError(f"consumer {pull.consumer!r} of stream {pull.stream!r} was deleted")
        delivered = info.delivered.stream_seq if info.delivered is not None else 0
        if delivered < end and info.num_pending:
            return False
        if delivered < end:
            stream = await stream_info(self._client, pull.stream)
            if stream is None or stream.state.last_seq < end:
                return False
        ours = (
            sum(map(len, self._outstanding.values())) + len(self._beyond) + len(self._acks) + len(self._naks)
        )
        return (info.num_ack_pending or 0) <= ours

    def _chunk(self, messages: list[Incoming]) -> Chunk:
        values: list[Any] = messages if self._metadata else [message.data for message in messages]
        chunk = Chunk(values, self._context.step)
        if self._context.lineage:
            identity = self._identity
            chunk.lineage = [
                self._receipt([m.reply], f"{identity}.{stream_sequence(m.reply)}") for m in messages
            ]
        elif self._context.receipts:
            chunk.receipt = self._receipt([message.reply for message in messages])
        else:
            self._acks += [message.reply for message in messages]
            self._settled.set()
        return chunk

    @property
    def caught_up(self) -> bool:
        return self._pull.caught_up

    # Receipts

    def _receipt(self, replies: list[bytes], position: str | None = None) -> Receipt:
        receipt = Receipt(self._settle, None, position)
        self._outstanding[receipt] = replies
        return receipt

    def _settle(self, receipt: Receipt, outcome: Outcome) -> None:
        replies = self._outstanding.pop(receipt)
        if outcome is Outcome.DONE:
            self._acks += replies
        else:
            self._naks += replies
        self._settled.set()

    async def settle(self) -> None:
        """Tell the server what was settled. Runs beside the reading."""
        while True:
            await self._settled.wait()
            await self._send_settled()

    async def _send_settled(self) -> None:
        acks, naks = list(self._acks), list(self._naks)
        if acks:
            await self._pull.ack_many(acks)
            del self._acks[: len(acks)]
        if naks:
            await self._pull.nak_many(naks)
            del self._naks[: len(naks)]
        if acks or naks:
            self._context.run.observer.settled(self._context.step, len(acks), len(naks))

    async def keep_alive(self) -> None:
        """Tell the server that what is unacknowledged for a while is still worked on. Runs beside the reading."""
        seen: set[Receipt] = set()
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            slow = [
                reply
                for receipt, replies in self._outstanding.items()
                if receipt in seen
                for reply in replies
            ]
            await self._pull.in_progress_many([*slow, *self._beyond])
            seen = set(self._outstanding)

    # The end

    async def close(self) -> None:
        """Send what was settled, hand back everything else, and forget a consumer that was made for this run."""
        unread = await self._pull.close()
        unused = [reply for replies in self._outstanding.values() for reply in replies]
        self._outstanding.clear()
        self._naks += [*unused, *self._beyond, *(message.reply for message in unread)]
        with suppress(StreamflowError):
            await self._send_settled()
            if not self._durable and self._client.is_connected:
                await request(self._client, f"CONSUMER.DELETE.{self._pull.stream}.{self._pull.consumer}")
        with suppress(nats.errors.Error, TimeoutError, OSError):
            if self._client.is_connected:
                await self._client.flush(timeout=_FLUSH_SECONDS)  # type: ignore[arg-type]
