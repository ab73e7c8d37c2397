"""Follow a bucket through a pull consumer of its own, without missing the last record of any key.

The consumer is given up whenever something may have been lost on the way (a connection that was restored, a gap in its
numbers), and another one goes on behind the last record that came. There is never more than one: all have one name.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from streamflow._jetstream.admin import JetStreamError, consumer_info, ensure_consumer, request
from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.expiry import Expiry
from streamflow._jetstream.protocol import Incoming, decode_headers, parse_reply
from streamflow._jetstream.pull import ConsumerGoneError, PullSubscription
from streamflow._jetstream.settings import ConsumerSettings
from streamflow.errors import ConnectorError, StateError
from streamflow.state.bucket import Record
from streamflow.state.jetstream.messages import STREAM_NOT_FOUND, record_of

if TYPE_CHECKING:
    from streamflow.state.jetstream.bucket import JetStreamBucket

_FORGOTTEN_AFTER = timedelta(minutes=1)
_LOOK_SECONDS = 10.0
_LOADING_LOOK_SECONDS = 0.5
_LATE_SECONDS = 0.25
_FIRST_BACKOFF_SECONDS = 0.05
_LAST_BACKOFF_SECONDS = 1.0
_CLOSE_SECONDS = 2.0
_TOGETHER = 256


class JetStreamFeed:
    """See `streamflow.state.bucket.Feed`."""

    def __init__(self, bucket: JetStreamBucket, pattern: str, *, history: bool, values: bool) -> None:
        self.caught_up = False
        self._bucket = bucket
        self._subject = bucket.prefix + pattern
        self._history = history
        self._values = values
        self._consumer = f"streamflow-watch-{secrets.token_hex(8)}"
        self._started = False
        self._pull: PullSubscription | None = None
        self._created: datetime | None = None
        self._delivered = 0  # by the present consumer
        self._seen = 0  # the last revision that came
        self._missed = False
        self._closed = False
        self._look_at = 0.0
        self._failures = 0
        self._waiting: asyncio.Timeout | None = None
        self._expiry = Expiry()
        self._mortal: dict[str, Record] = {}  # those whose time will be up
        self._leave = watch(bucket.client, self._heard)

    async def next(self) -> list[Record] | None:
        while not self._closed:
            try:
                if self._pull is None or self._missed:
                    await self._restart()
                elif not self.caught_up and await self._has_caught_up():
                    self.caught_up = True
                    return []
                else:
                    records = await self._advance()
                    if records:
                        self.caught_up |= self._pull.caught_up
                        return records
            except ConsumerGoneError:
                self._missed = True
            except ConnectorError as error:
                if not self._closed:
                    await self._bear(error)
        return None

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._leave()
        self._wake()
        if not self._started:
            return
        with suppress(ConnectorError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._end_pull()
                if self._bucket.client.is_connected:
                    await self._delete_consumer()

    # The consumer

    async def _restart(self) -> None:
        """Begin, or go on behind the last record."""
        self._started = True
        await self._end_pull()
        if not self._bucket.client.is_connected and not self._bucket.client.is_closed:
            raise ConnectorError("not connected")
        self._missed = False
        await self._delete_consumer()  # surely: one that exists would be found again, and go on where it was
        await self._check_stream()
        state = await ensure_consumer(self._bucket.client, self._bucket.stream, self._settings())
        self._delivered = 0
        self._pull = await PullSubscription.open(
            self._bucket.client, self._bucket.stream, self._consumer, pending=state.num_pending
        )
        self._failures = 0
        self._look_at = _now() + _LOOK_SECONDS
        if self._closed:  # meanwhile
            await self._end_pull()
            await self._delete_consumer()

    def _settings(self) -> ConsumerSettings:
        resumed = self.caught_up or (self._history and self._seen > 0)
        first: Any = "all" if self._history else "last_per_subject"
        return ConsumerSettings(
            self._consumer,
            self._subject,
            durable=False,
            deliver="sequence" if resumed else first,
            start_sequence=self._seen + 1 if resumed else None,
            ack="none",
            inactive=_FORGOTTEN_AFTER,
            headers_only=not self._values,
        )

    async def _check_stream(self) -> None:
        try:
            info = await request(self._bucket.client, f"STREAM.INFO.{self._bucket.stream}")
        except JetStreamError as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise self._bucket.gone() from error
            raise
        created = datetime.fromisoformat(info["created"])
        if self._created is not None and created != self._created:
            raise StateError(f"bucket {self._bucket.name!r} was deleted and created anew")
        self._created = created
        server_time = datetime.fromisoformat(info["ts"]).timestamp()
        self._expiry.begin(server_time, info["config"].get("max_age", 0) / 1e9)

    async def _end_pull(self) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            await pull.close()

    async def _delete_consumer(self) -> None:
        try:
            await request(self._bucket.client, f"CONSUMER.DELETE.{self._bucket.stream}.{self._consumer}")
        except JetStreamError as error:
            if error.code != 404:
                raise

    async def _bear(self, error: ConnectorError) -> None:
        """Wait before the next try, if it is of any use."""
        refused = isinstance(error, JetStreamError) and error.code != 503
        if refused or self._bucket.client.is_closed:
            raise StateError(f"bucket {self._bucket.name!r} cannot be watched: {error}") from error
        self._missed = True
        delay = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 8), _LAST_BACKOFF_SECONDS)
        self._failures += 1
        await self._pause(delay * random.uniform(0.5, 1.0))

    # Reading

    async def _has_caught_up(self) -> bool:
        """Whether nothing is left of what there was at the beginning."""
        assert self._pull is not None
        if self._pull.caught_up:
            return True
        if self._pull.buffered or _now() < self._look_at:
            return False
        # Of a record that is replaced before it is delivered no message says that it was the last.
        self._look_at = _now() + _LOADING_LOOK_SECONDS
        standing = await self._standing()
        return standing is not None and standing[1] == 0 and standing[0] <= self._delivered

    async def _advance(self) -> list[Record]:
        """What comes next, and what time has removed."""
        if not self.caught_up:
            self._look_at = min(self._look_at, _now() + _LOADING_LOOK_SECONDS)
        quiet = max(0.0, self._look_at - _now())
        due = self._expiry.next() if self.caught_up else None
        messages = await self._read(quiet if due is None else min(due, quiet))
        records = [] if self._missed else self._taken(messages)
        if not records and self.caught_up and not self._missed:
            records = await self._ended()
            if not records and _now() >= self._look_at:
                self._look_at = _now() + _LOOK_SECONDS
                standing = await self._standing()
                arrived = self._delivered + (self._pull.buffered if self._pull is not None else 0)
                self._missed = standing is not None and standing[0] > arrived
        return records

    async def _read(self, patience: float) -> list[Incoming]:
        """Some messages; none if the time is over, or when `_wake` was called."""
        assert self._pull is not None
        try:
            async with asyncio.timeout(patience) as self._waiting:
                if self._missed or self._closed:
                    return []
                return await self._pull.read()
        except TimeoutError:
            return []
        finally:
            self._waiting = None

    def _taken(self, messages: list[Incoming]) -> list[Record]:
        """The records in some messages, up to a gap."""
        records = []
        prefix = len(self._bucket.prefix)
        for message in messages:
            delivery = parse_reply(message.reply)
            self._delivered += 1
            if delivery.consumer_sequence != self._delivered:
                self._missed = True
                break
            if delivery.stream_sequence <= self._seen:
                continue  # the second time, after a restart in the middle of the beginning
            self._seen = delivery.stream_sequence
            headers = decode_headers(message.header) if message.header else {}
            name, at = message.subject.decode()[prefix:], delivery.timestamp_ns / 1e9
            records.append(record_of(name, message.data, headers, delivery.stream_sequence, at))
        if not self._history:
            for record in records:
                self._mark(record)
        return records

    async def _standing(self) -> tuple[int, int] | None:
        """How many messages the consumer has delivered and how many it has yet to; None if nobody answers."""
        try:
            info = await consumer_info(self._bucket.client, self._bucket.stream, self._consumer)
        except ConnectorError:
            return None
        if info is None:
            raise ConsumerGoneError(f"consumer {self._consumer!r} was deleted")
        return (info.delivered.consumer_seq if info.delivered is not None else 0), info.num_pending or 0

    # Values that end

    def _mark(self, record: Record) -> None:
        """Note when a record will be over."""
        if record.operation != "put":
            self._expiry.drop(record.name)
            self._mortal.pop(record.name, None)
            return
        if self._expiry.set(record.name, record.at, record.ttl):
            self._mortal[record.name] = record
        else:
            self._mortal.pop(record.name, None)

    async def _ended(self) -> list[Record]:
        """The ends of those whose time is up. The server removes them when it gets to it, so it is asked."""
        due = [self._mortal[name] for name in self._expiry.due() if name in self._mortal]
        ended: list[Record] = []
        for start in range(0, len(due), _TOGETHER):
            records = due[start : start + _TOGETHER]
            found = await asyncio.gather(*(self._bucket.get(record.name) for record in records))
            for record, now in zip(records, found, strict=True):
                if now is None:
                    del self._mortal[record.name]
                    ended.append(record.expired())
                elif now.revision == record.revision:
                    self._expiry.again(record.name, _LATE_SECONDS)
                elif now.revision < record.revision:  # one before it that lives longer is the value again
                    ended.append(now)
                    self._mark(now)
        return ended

    # Waiting

    def _heard(self, event: ConnectionEvent) -> None:
        if event.kind == "reconnected":
            self._missed = True
        if event.kind in ("reconnected", "closed"):
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(0)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds) as self._waiting:
                await asyncio.Event().wait()
        self._waiting = None


def _now() -> float:
    return asyncio.get_running_loop().time()
