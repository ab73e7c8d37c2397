"""Reading a stream for a pipeline with a checkpoint: alone, in order, and from where the last checkpoint was.

Nothing is acknowledged: what is committed with the checkpoint is the only truth. Each run has a consumer of its own,
so that one that is late, and saves nothing any more, cannot disturb its successor. The server numbers what it delivers:
where a number is missing, as after a lost connection, a new consumer takes the place of the old one and begins behind
the last message that came.
"""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attrs import asdict, define
from nats.aio.client import Client

from streamflow._jetstream.admin import (
    JetStreamError,
    consumer_info,
    ensure_consumer,
    ensure_stream,
    last_sequence,
    request,
    stream_info,
)
from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.protocol import Incoming, parse_reply
from streamflow._jetstream.pull import ConsumerGoneError, PullSubscription
from streamflow._jetstream.session import client_for
from streamflow._jetstream.settings import ConsumerSettings
from streamflow.connectors.jetstream.reader import check_subjects
from streamflow.engine.chunk import CHUNK_SIZE, Chunk
from streamflow.engine.connector import Reader, SourceContext
from streamflow.errors import ConfigurationError, ConnectorError

if TYPE_CHECKING:
    from streamflow.connectors.jetstream.source import JetStreamSource

_WINDOW = 8192
_FORGOTTEN_AFTER = timedelta(minutes=1)
"""The server removes a consumer that was not read for so long: its process has died."""
_LOOK_SECONDS = 5.0
_SOON_SECONDS = 0.1
_PATIENCE_SECONDS = 30.0
_FIRST_BACKOFF_SECONDS = 0.05
_LAST_BACKOFF_SECONDS = 1.0
_CLOSE_SECONDS = 2.0
_NOT_IN_A_NAME = re.compile(r"[^-_a-zA-Z0-9]")


class LostError(ConnectorError):
    """What was to be read next is not there any more."""


@define
class Position:
    """What a checkpoint keeps: everything up to ``sequence`` was read of the stream that was made at ``created``."""

    created: str
    sequence: int
    end: int | None


async def open_exclusive(source: JetStreamSource[Any], context: SourceContext) -> ExclusiveReader:
    """Find the stream and the place to go on."""
    client = await client_for(context.run, source.servers, source.connection)
    info = await ensure_stream(client, source.stream, source.create)
    check_subjects(source, info.config)
    retention = str(info.config.retention or "limits")
    if retention != "limits":
        raise ConfigurationError(
            f"stream {source.stream!r} keeps messages by {retention}, until they are acknowledged; a pipeline with a "
            "checkpoint reads again what was not committed, and needs a stream that keeps them by limits"
        )
    created = str(info.created)
    if context.position is None:
        position = Position(created, await _start(client, source), await _end(client, source))
    else:
        position = Position(**context.position)
        _check_position(source.stream, position, created, info.state.first_seq, info.config)
    reader = ExclusiveReader(source, context, client, position)
    await reader.begin()
    return reader


async def _start(client: Client, source: JetStreamSource[Any]) -> int:
    """The sequence behind which to begin."""
    if isinstance(source.start, int):
        return source.start - 1
    if source.start == "all":
        return 0
    if source.start == "new":
        info = await stream_info(client, source.stream)
        return info.state.last_seq if info is not None else 0
    return max(0, await _last(client, source) - 1)


async def _end(client: Client, source: JetStreamSource[Any]) -> int | None:
    """The sequence after which the source ends: None for never, 0 if there is nothing to read."""
    return await _last(client, source) if source.until == "end" else source.until


async def _last(client: Client, source: JetStreamSource[Any]) -> int:
    subjects = source.subjects or (">",)
    return max([await last_sequence(client, source.stream, subject) or 0 for subject in subjects])


def _check_position(stream: str, position: Position, created: str, first: int, config: Any) -> None:
    """Refuse to go on where that would leave something out."""
    if position.created != created:
        raise LostError(
            f"stream {stream!r} was made at {created}, and the checkpoint is of one that was made at "
            f"{position.created}: its sequences mean other messages now. Reset the checkpoint to begin anew"
        )
    if first > position.sequence + 1 and (config.max_msgs_per_subject or 0) <= 0:
        raise LostError(
            f"stream {stream!r} has nothing before sequence {first} any more, and the checkpoint goes on with "
            f"{position.sequence + 1}: its limits have removed what was not read yet. Reset the checkpoint to begin "
            "anew, and let the stream keep more"
        )


class ExclusiveReader(Reader):
    """Reads through one consumer after the other."""

    def __init__(
        self, source: JetStreamSource[Any], context: SourceContext, client: Client, position: Position
    ) -> None:
        self._source = source
        self._context = context
        self._client = client
        self._position = position
        name = _NOT_IN_A_NAME.sub("_", source.durable or f"{context.run.pipeline}-{context.step}")
        self._name = f"{name[:64]}-exclusive"
        self._pull: PullSubscription | None = None
        self._delivered = 0
        """The number that the consumer gave to the last message."""
        self._broken = ""
        """Why the consumer cannot be read any more."""
        self._failures = 0
        self._trouble_since = 0.0
        self._waiting: asyncio.Timeout | None = None
        self._leave = watch(client, self._heard)

    async def begin(self) -> None:
        """Make a consumer that begins behind the position."""
        settings = ConsumerSettings(
            f"{self._name}-{uuid4().hex[:8]}",
            self._source.subjects,
            durable=False,
            deliver="sequence",
            start_sequence=self._position.sequence + 1,
            ack="none",
            inactive=_FORGOTTEN_AFTER,
        )
        state = await ensure_consumer(self._client, self._source.stream, settings)
        self._delivered = 0
        self._broken = ""
        self._pull = await PullSubscription.open(
            self._client,
            self._source.stream,
            settings.name,
            window=min(_WINDOW, self._source.max_pending or _WINDOW),
            pending=state.num_pending,
        )
        self._context.run.observer.lag(self._context.step, state.num_pending or 0)

    async def read(self) -> Chunk | None:
        while True:
            end = self._position.end
            if end is not None and self._position.sequence >= end:
                return None
            if self._pull is None or self._broken:
                await self._begin_again()
                continue
            try:
                messages = self._contiguous(await self._some(self._pull))
            except ConsumerGoneError as error:
                self._broken = str(error)
                continue
            if messages:
                wanted = self._up_to_end(messages)
                if wanted:
                    return self._chunk(wanted)
            elif end is not None and await self._is_over(end):
                self._position.sequence = end

    def position(self) -> dict[str, Any]:
        return asdict(self._position)

    @property
    def caught_up(self) -> bool:
        return self._pull is not None and not self._broken and self._pull.caught_up

    async def close(self) -> None:
        self._leave()
        with suppress(ConnectorError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._drop()

    # Messages

    async def _some(self, pull: PullSubscription) -> list[Incoming]:
        """What has arrived; nothing if it was quiet for a while, which may mean that something was lost."""
        soon = self._position.end is not None
        try:
            async with asyncio.timeout(_SOON_SECONDS if soon else _LOOK_SECONDS) as self._waiting:
                return await pull.read(CHUNK_SIZE)
        except TimeoutError:
            if not self._broken and self._client.is_connected:
                await self._look(pull)
            return []
        finally:
            self._waiting = None

    async def _look(self, pull: PullSubscription) -> None:
        """See whether the server has delivered more than what came."""
        with suppress(ConnectorError):
            info = await consumer_info(self._client, pull.stream, pull.consumer)
            if info is None:
                self._broken = "the consumer is gone"
            elif info.delivered is not None and info.delivered.consumer_seq > self._delivered + pull.buffered:
                # What is on its way may be among it, so this can be wrong: then a message too many is read again.
                self._broken = "a message is missing"

    def _contiguous(self, messages: list[Incoming]) -> list[Incoming]:
        """The messages up to the first that is missing."""
        if not messages:
            return messages
        last = parse_reply(messages[-1].reply)
        if last.consumer_sequence == self._delivered + len(messages):
            self._delivered = last.consumer_sequence
            return messages
        self._broken = "a message is missing"
        good = 0
        for message in messages:
            if parse_reply(message.reply).consumer_sequence != self._delivered + 1:
                break
            self._delivered += 1
            good += 1
        return messages[:good]

    def _up_to_end(self, messages: list[Incoming]) -> list[Incoming]:
        end = self._position.end
        last = parse_reply(messages[-1].reply)
        self._failures = 0
        self._context.run.observer.lag(self._context.step, last.pending)
        if end is not None and last.stream_sequence > end:
            messages = [message for message in messages if parse_reply(message.reply).stream_sequence <= end]
            self._position.sequence = end
        else:
            self._position.sequence = last.stream_sequence
        return messages

    def _chunk(self, messages: list[Incoming]) -> Chunk:
        values: list[Any] = messages if self._source.with_metadata else [message.data for message in messages]
        return Chunk(values, self._context.step)

    async def _is_over(self, end: int) -> bool:
        """Whether the stream has come to the end, and nothing up to there is still to come."""
        pull = self._pull
        if pull is None or not self.caught_up or not self._client.is_connected:
            return False
        with suppress(ConnectorError):
            stream = await stream_info(self._client, pull.stream)
            # In this order: what was stored up to then is counted.
            info = await consumer_info(self._client, pull.stream, pull.consumer)
            if stream is None or info is None or stream.state.last_seq < end:
                return False
            number = info.delivered.consumer_seq if info.delivered is not None else 0
            return not info.num_pending and number == self._delivered and not pull.buffered
        return False

    # Consumers

    async def _begin_again(self) -> None:
        """Put a new consumer in the place of one that is gone or has left out something."""
        now = asyncio.get_running_loop().time()
        self._trouble_since = self._trouble_since if self._failures else now
        try:
            await self._drop()
            if not self._client.is_connected:
                raise ConnectorError("the connection to NATS was lost")
            reason = self._broken
            await self._check_stream()
            await self.begin()
            self._context.run.observer.event(
                "consumer is made again",
                source=self._context.step,
                behind=self._position.sequence,
                reason=reason,
            )
        except ConnectorError as error:
            self._broken = self._broken or str(error)
            refused = isinstance(error, LostError) or (
                isinstance(error, JetStreamError) and error.code != 503
            )
            if refused or self._client.is_closed or now - self._trouble_since > _PATIENCE_SECONDS:
                raise
            delay = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 8), _LAST_BACKOFF_SECONDS)
            self._failures += 1
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
        else:
            if self.caught_up:
                self._context.quiet()

    async def _check_stream(self) -> None:
        info = await stream_info(self._client, self._source.stream)
        if info is None:
            raise LostError(f"stream {self._source.stream!r} was deleted")
        _check_position(
            self._source.stream, self._position, str(info.created), info.state.first_seq, info.config
        )

    async def _drop(self) -> None:
        pull, self._pull = self._pull, None
        if pull is None:
            return
        self._broken = self._broken or "it was given up"
        await pull.close()
        if self._client.is_connected:
            try:
                await request(self._client, f"CONSUMER.DELETE.{pull.stream}.{pull.consumer}")
            except JetStreamError as error:
                if error.code != 404:
                    raise

    def _heard(self, event: ConnectionEvent) -> None:
        # What was under way to a connection that broke does not come again.
        if event.kind == "reconnected" and self._pull is not None:
            self._broken = "the connection was lost"
            if self._waiting is not None and not self._waiting.expired():
                self._waiting.reschedule(0)
