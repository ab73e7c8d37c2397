"""The running side of `JetStreamSource`: pulls, keeps the account of receipts, and ends where it was told to."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_right
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import nats.errors
from nats.aio.client import Client
from nats.js.api import ConsumerInfo, StreamConfig

from streamflow._jetstream.admin import (
    JetStreamError,
    consumer_info,
    ensure_consumer,
    ensure_stream,
    forbids,
    last_sequence,
    overlap,
    request,
    stream_info,
)
from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.protocol import Incoming, parse_reply, stream_sequence
from streamflow._jetstream.pull import ConsumerGoneError, PullSubscription
from streamflow._jetstream.session import client_for
from streamflow._jetstream.settings import ConsumerSettings
from streamflow.engine.channel import Signal
from streamflow.engine.chunk import CHUNK_SIZE, Chunk, Outcome, Receipt
from streamflow.engine.connector import Reader, SourceContext
from streamflow.engine.points import reached
from streamflow.errors import ConfigurationError, ConnectorError, StreamflowError

if TYPE_CHECKING:
    from streamflow.connectors.jetstream.source import JetStreamSource

_LEAST_UNACKNOWLEDGED = 65_536
_MOST_UNUSED = _LEAST_UNACKNOWLEDGED // 2
"""Messages that nobody wants any more in this run and that are kept to be handed back at its end."""
_WINDOW = 4096
_LOOK_SECONDS = 0.25
_SOON_SECONDS = 0.05
_ANSWER_SECONDS = 1.0
_PATIENCE_SECONDS = 30.0
_FLUSH_SECONDS = 2.0
_STALL_SECONDS = 10.0
_MESSAGE_NOT_FOUND = 10037


async def open_reader(source: JetStreamSource[Any], context: SourceContext) -> Reader:
    """Find or create stream and consumer, and start to pull."""
    client = await client_for(context.run, source.servers, source.connection)
    info = await ensure_stream(client, source.stream, source.create)
    check_subjects(source, info.config)
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
    limit = source.max_pending or context.pending or max(_LEAST_UNACKNOWLEDGED, 2 * context.held)
    if limit < context.held:
        raise ConfigurationError(
            f"pipeline {context.run.pipeline!r}, step {context.step!r}: max_pending={limit} is less than the "
            f"{context.held} elements that steps hold until more come: nothing would move"
        )
    state = await ensure_consumer(client, source.stream, consumer)
    window = min(_WINDOW, limit)
    pull = await PullSubscription.open(
        client, source.stream, consumer.name, window=window, pending=state.num_pending
    )
    # A stream that was made anew counts its sequences from 1 again, and with a new consumer the same messages are meant
    # to be processed anew: the outputs of both must not take over old ids.
    identity = f"{source.stream} {info.created} {consumer.name} {state.created}".encode()
    reader = JetStreamReader(
        context,
        client,
        pull,
        subjects=source.subjects,
        durable=consumer.durable,
        ack_wait=source.ack_wait,
        end=end,
        limit=limit,
        metadata=source.with_metadata,
        identity=hashlib.blake2s(identity, digest_size=6).hexdigest(),
    )
    context.run.observer.lag(context.step, state.num_pending or 0)
    context.run.spawn(reader.settle())
    context.run.spawn(reader.keep_alive())
    return reader


def check_subjects(source: JetStreamSource[Any], config: StreamConfig) -> None:
    """Refuse a filter that can never match. Only for a stream that stores what it takes in as it is."""
    subjects = config.subjects or []
    if not subjects or config.mirror or config.sources or config.subject_transform:
        return
    for subject in source.subjects:
        if not any(overlap(subject, stored) for stored in subjects):
            raise ConnectorError(
                f"stream {source.stream!r} has nothing under {subject!r}: its subjects are {', '.join(subjects)}"
            )


async def _end(client: Client, source: JetStreamSource[Any]) -> int | None:
    """The sequence after which the source ends: None for never, 0 if there is nothing to read."""
    if source.until != "end":
        return source.until
    subjects = source.subjects or (">",)
    return max([await last_sequence(client, source.stream, subject) or 0 for subject in subjects])


class JetStreamReader(Reader):
    """Reads through a `PullSubscription`. Receipts say when to acknowledge, a background task does it in bursts.

    What is not used stays here until the run ends: handed back earlier, it would only be delivered here again.
    """

    def __init__(
        self,
        context: SourceContext,
        client: Client,
        pull: PullSubscription,
        *,
        subjects: tuple[str, ...],
        durable: bool,
        ack_wait: float,
        end: int | None,
        limit: int,
        metadata: bool,
        identity: str,
    ) -> None:
        self._context = context
        self._client = client
        self._pull = pull
        self._subjects = subjects or (">",)
        self._durable = durable
        self._ack_wait = ack_wait
        self._end = end
        self._limit = limit
        self._held = 0  # messages read and not settled
        self._room = Signal()
        self._metadata = metadata
        self._identity = identity
        self._outstanding: dict[Receipt, list[bytes]] = {}
        self._acks: list[bytes] = []
        self._unused: list[bytes] = []
        self._settled = Signal()
        self._refused: ConnectorError | None = None
        self._leave = watch(client, self._heard)
        # Only with an end:
        self._tail = end == 0  # whether it may have been reached
        self._stored = False  # whether the stream has come that far
        self._beyond: list[bytes] = []
        self._beyond_numbers: list[int] = []  # their sequences of delivery, ascending
        self._seen = 0  # the sequence of delivery of the last message
        self._look_at = 0.0
        self._trouble_since: float | None = None

    # Reading

    async def read(self) -> Chunk | None:
        while True:
            if self._end is None:
                messages = await self._pull_some()
            else:
                wanted = await self._read_to(self._end)
                if wanted is None:
                    return None
                messages = wanted
            if messages:
                self._context.run.observer.lag(self._context.step, parse_reply(messages[-1].reply).pending)
                return self._chunk(messages)

    async def _pull_some(self) -> list[Incoming]:
        """Some messages, once fewer than the limit are in hand."""
        while self.is_held_up:
            try:
                async with asyncio.timeout(_STALL_SECONDS):
                    await self._room.wait()
            except TimeoutError:
                # Slow work, or steps that hold more than this until more comes, or a branch that has ended and gets
                # messages all the same, which stay here until the run ends: then it never will.
                self._context.run.observer.event(
                    "no message is settled",
                    source=self._context.step,
                    in_hand=self._held,
                    limit=self._limit,
                    unused=len(self._unused),
                )
        return await self._pull.read(min(CHUNK_SIZE, self._limit - self._held))

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

    @property
    def is_held_up(self) -> bool:
        return self._held >= self._limit or len(self._unused) >= _MOST_UNUSED

    # Reading to an end

    async def _read_to(self, end: int) -> list[Incoming] | None:
        """The next messages up to the end, perhaps none; None when all up to there are settled or in hand."""
        loop = asyncio.get_running_loop()
        if self._tail and loop.time() >= self._look_at:
            wanted = await self._look(end)
            self._look_at = loop.time() + _SOON_SECONDS
            if wanted is None or wanted:
                return wanted
        try:
            async with asyncio.timeout(_SOON_SECONDS if self._tail else _LOOK_SECONDS):
                return self._up_to(end, await self._pull_some())
        except TimeoutError:
            self._tail = True
            return []

    def _up_to(self, end: int, messages: list[Incoming]) -> list[Incoming]:
        wanted = []
        for message in messages:
            delivery = parse_reply(message.reply)
            self._seen = delivery.consumer_sequence
            self._tail = self._tail or delivery.stream_sequence >= end
            if delivery.stream_sequence <= end:
                wanted.append(message)
            else:
                self._beyond.append(message.reply)
                self._beyond_numbers.append(delivery.consumer_sequence)
        return wanted

    async def _look(self, end: int) -> list[Incoming] | None:
        """See how the consumer stands. None if the end is reached, else messages that came meanwhile, perhaps none."""
        standing = await self._standing(end)
        if standing is None:
            return []
        pending, delivered = standing.num_ack_pending or 0, standing.delivered
        number = delivered.consumer_seq if delivered is not None else 0
        if pending <= self._in_hand(number):
            return None
        # Some of it may be on the way here.
        with suppress(TimeoutError):
            async with asyncio.timeout(_SOON_SECONDS):
                while self._seen < number:
                    if wanted := self._up_to(end, await self._pull_some()):
                        return wanted
        return None if pending <= self._in_hand(number) else []

    def _in_hand(self, number: int) -> int:
        """How many unacknowledged messages are here, of those up to this sequence of delivery."""
        beyond = bisect_right(self._beyond_numbers, number)
        return sum(map(len, self._outstanding.values())) + len(self._acks) + len(self._unused) + beyond

    async def _standing(self, end: int) -> ConsumerInfo | None:
        """The consumer's state, once it has delivered everything up to the end. None too while no server answers."""
        if not self._client.is_connected:
            return None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                standing = await self._delivered(end)
        except (ConnectorError, TimeoutError) as error:
            now = asyncio.get_running_loop().time()
            self._trouble_since = self._trouble_since or now
            if now - self._trouble_since > _PATIENCE_SECONDS or isinstance(error, ConsumerGoneError):
                raise
            return None
        self._trouble_since = None
        return standing

    async def _delivered(self, end: int) -> ConsumerInfo | None:
        pull = self._pull
        if not self._stored:
            stream = await stream_info(self._client, pull.stream)
            self._stored = stream is not None and stream.state.last_seq >= end
        info = await consumer_info(self._client, pull.stream, pull.consumer)
        if info is None:
            raise ConsumerGoneError(f"consumer {pull.consumer!r} of stream {pull.stream!r} was deleted")
        delivered = info.delivered.stream_seq if info.delivered is not None else 0
        if delivered >= end:
            return info
        if not self._stored or info.num_pending:
            return None
        # The consumer's counts lag behind the stream: see what is really stored.
        for subject in self._subjects:
            if await self._next_stored(delivered + 1, subject) <= end:
                return None
        return info

    async def _next_stored(self, sequence: int, subject: str) -> float:
        """The first sequence from this one on that is stored under the subject; infinite if there is none."""
        ask = {"seq": sequence, "next_by_subj": subject}
        try:
            found = await request(self._client, f"STREAM.MSG.GET.{self._pull.stream}", ask)
        except JetStreamError as error:
            if error.err_code == _MESSAGE_NOT_FOUND:
                return float("inf")
            raise
        return int(found["message"]["seq"])

    # Receipts

    def _receipt(self, replies: list[bytes], position: str | None = None) -> Receipt:
        receipt = Receipt(self._settle, None, position)
        self._outstanding[receipt] = replies
        self._held += len(replies)
        return receipt

    def _settle(self, receipt: Receipt, outcome: Outcome) -> None:
        # After the reader was closed the receipt is unknown: its messages were handed back.
        replies = self._outstanding.pop(receipt, [])
        self._held -= len(replies)
        self._room.set()
        if outcome is Outcome.DONE:
            self._acks += replies
            self._settled.set()
        else:
            self._unused += replies

    async def settle(self) -> None:
        """Acknowledge what is done. Runs beside the reading."""
        while True:
            await self._settled.wait()
            self._check()
            await self._acknowledge()

    async def _acknowledge(self) -> None:
        acks = list(self._acks)
        if acks:
            reached("before acknowledging")
            await self._pull.ack_many(acks)
            reached("after acknowledging")
            del self._acks[: len(acks)]
            self._context.run.observer.settled(self._context.step, len(acks), 0)

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
            # What the pipeline has no room for yet waits unread, while its time runs at the server.
            unread = [message.reply for message in self._pull._inbox.messages]
            await self._pull.in_progress_many([*slow, *unread, *self._beyond, *self._unused])
            seen = set(self._outstanding)

    def _heard(self, event: ConnectionEvent) -> None:
        """The server answers no acknowledgement, also not one that it refuses: it tells the connection."""
        place = f".{self._pull.stream}.{self._pull.consumer}."
        if event.error is None or not (forbids(event.error, '"$JS.ACK.') and forbids(event.error, place)):
            return
        self._refused = ConnectorError(
            f"these credentials do not allow to acknowledge: {event.error}",
            pipeline=self._context.run.pipeline,
            step=self._context.step,
        )
        self._settled.set()

    def _check(self) -> None:
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused

    # The end

    async def close(self) -> None:
        """Send what was settled, hand back everything else, and forget a consumer that was made for this run."""
        unread = await self._pull.close()
        held = [reply for replies in self._outstanding.values() for reply in replies]
        self._outstanding.clear()
        back = [*held, *self._unused, *self._beyond, *(message.reply for message in unread)]
        with suppress(StreamflowError):
            await self._acknowledge()
            if back:
                await self._pull.nak_many(back)
                self._context.run.observer.settled(self._context.step, 0, len(back))
            if not self._durable and self._client.is_connected:
                await request(self._client, f"CONSUMER.DELETE.{self._pull.stream}.{self._pull.consumer}")
        with suppress(nats.errors.Error, TimeoutError, OSError):
            if self._client.is_connected:
                await self._client.flush(timeout=_FLUSH_SECONDS)  # type: ignore[arg-type]
        self._leave()
        self._check()
