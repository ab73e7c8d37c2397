"""The running side of `KeyValueTable`: a copy of a bucket in memory that follows it.

nats-py's own watcher does not come back after a restart of the server, as its ordered consumer does not notice missed
heartbeats. This one reads through a pull consumer of its own, and whenever something may have been missed it deletes
that consumer and reads the bucket anew, under the same name: there is never more than one.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from nats.aio.client import Client

from streamflow._jetstream.admin import (
    JetStreamError,
    consumer_info,
    ensure_consumer,
    request,
)
from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.expiry import Expiry
from streamflow._jetstream.protocol import Incoming, decode_headers, parse_reply
from streamflow._jetstream.pull import ConsumerGoneError, PullSubscription
from streamflow._jetstream.settings import ConsumerSettings
from streamflow.engine.connector import WorkContext
from streamflow.engine.guard import reraise
from streamflow.errors import CodecError, ConnectorError

_FORGOTTEN_AFTER = timedelta(minutes=1)
_LOOK_SECONDS = 10.0
"""Without a message for so long, the server is asked whether there was one."""
_LOADING_LOOK_SECONDS = 0.5
_SILENT_LOOKS = 20
_FIRST_BACKOFF_SECONDS = 0.1
_LAST_BACKOFF_SECONDS = 5.0
_CLOSE_SECONDS = 2.0

_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_MESSAGE_NOT_FOUND = 10037
_UNAVAILABLE = 503


class NoBucketError(ConnectorError):
    """The bucket does not exist, or does not any more."""


class Entries(dict[str, Any]):
    """The decoded values. A value that does not decode is not among them: asking for it raises its error."""

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self._bucket = bucket
        self.undecodable: dict[str, str] = {}

    def __missing__(self, key: object) -> Any:
        if not isinstance(key, str):
            raise TypeError(f"the keys of bucket {self._bucket!r} are strings, not {key!r}")
        if key in self.undecodable:
            raise CodecError(self.undecodable[key])
        raise KeyError(key)


class BucketCache:
    """Follows one bucket. `open` reads it, `follow` keeps `entries` up to date, `close` leaves nothing behind."""

    def __init__(
        self,
        client: Client,
        bucket: str,
        pattern: str,
        decode: Callable[[bytes], Any],
        context: WorkContext,
    ) -> None:
        self.entries = Entries(bucket)
        self._client = client
        self._bucket = bucket
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._pattern = pattern
        self._decode = decode
        self._context = context
        self._consumer = f"streamflow-table-{uuid4().hex[:16]}"
        self._pull: PullSubscription | None = None
        self._delivered = 0  # by the consumer, as far as it has come here
        self._look_at = 0.0
        self._missed = False  # whether something may have happened that was not delivered
        self._waiting: asyncio.Timeout | None = None
        self._expiry = Expiry()
        self._history = 1
        self._leave = watch(client, self._heard)

    async def open(self) -> None:
        """Read the bucket; raises what is wrong with it."""
        try:
            loaded = False
            while not loaded:
                loaded = await self._load()
        except BaseException:
            await self.close()
            raise

    async def follow(self) -> None:
        """Keep the entries up to date, until cancelled. Raises if there is nothing to follow any more."""
        try:
            while True:
                try:
                    if not await self._advance():
                        await self._recover()
                except ConsumerGoneError:
                    await self._recover()
        except BaseException as error:
            reraise(error, self._context.run.pipeline, self._context.step)

    async def close(self) -> None:
        """End the consumer, if the server can be reached."""
        self._leave()
        with suppress(ConnectorError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._end_pull()
                if self._client.is_connected:
                    await self._delete_consumer()

    # Reading

    async def _load(self) -> bool:
        """Read the bucket from the beginning and forget what is not in it any more; False: start over."""
        await self._end_pull()
        # Surely, as one that exists would be found again, and go on where it was.
        await self._delete_consumer()
        self._missed = False
        await self._start_consumer()
        seen: set[str] = set()
        if not await self._catch_up(seen):
            return False
        for key in [*self.entries, *self.entries.undecodable]:
            if key not in seen:
                self._forget(key)
        return True

    async def _start_consumer(self) -> None:
        info = await self._info()
        config = info["config"]
        self._history = config.get("max_msgs_per_subject", -1)
        self._expiry.begin(datetime.fromisoformat(info["ts"]).timestamp(), config.get("max_age", 0) / 1e9)
        settings = ConsumerSettings(
            self._consumer,
            self._prefix + self._pattern,
            durable=False,
            deliver="last_per_subject",
            ack="none",
            inactive=_FORGOTTEN_AFTER,
        )
        state = await ensure_consumer(self._client, self._stream, settings)
        self._delivered = 0
        self._pull = await PullSubscription.open(
            self._client, self._stream, self._consumer, pending=state.num_pending
        )

    async def _info(self) -> dict[str, Any]:
        try:
            return await request(self._client, f"STREAM.INFO.{self._stream}")
        except JetStreamError as error:
            if error.err_code == _STREAM_NOT_FOUND:
                raise NoBucketError(
                    f"there is no key-value bucket {self._bucket!r}: the table needs one that exists"
                ) from error
            raise

    async def _end_pull(self) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            await pull.close()

    async def _delete_consumer(self) -> None:
        try:
            await request(self._client, f"CONSUMER.DELETE.{self._stream}.{self._consumer}")
        except JetStreamError as error:
            if error.err_code not in (_CONSUMER_NOT_FOUND, _STREAM_NOT_FOUND):
                raise

    async def _catch_up(self, seen: set[str]) -> bool:
        """Take in what there is; False if some of it may have been missed."""
        assert self._pull is not None
        silent = 0
        while not self._pull.caught_up:
            messages = await self._read(_LOADING_LOOK_SECONDS)
            if self._missed or not self._take(messages, seen):
                return False
            if not messages:
                # An entry that is replaced before it was delivered may be the last: then no message says so.
                silent += 1
                delivered, pending = await self._standing() or (0, None)
                if pending == 0 and delivered == self._delivered:
                    return True
                if silent > _SILENT_LOOKS:
                    return False
        return True

    async def _advance(self) -> bool:
        """Take in what comes next, and what time has removed; False if something may have been missed."""
        quiet = max(0.0, self._look_at - _now())
        due = self._expiry.next()
        messages = await self._read(quiet if due is None else min(due, quiet))
        if self._missed or not self._take(messages, None):
            return False
        for key in self._expiry.due():
            if self._history == 1:
                self._forget(key)
            else:
                await self._look_again(key)
        if not messages and _now() < self._look_at:
            return True
        self._look_at = _now() + _LOOK_SECONDS
        return bool(messages) or await self._has_all()

    async def _read(self, patience: float) -> list[Incoming]:
        """Some messages; none if the time is over, or as soon as the connection was lost and restored."""
        assert self._pull is not None
        try:
            async with asyncio.timeout(0 if self._missed else patience) as self._waiting:
                return await self._pull.read()
        except TimeoutError:
            return []
        finally:
            self._waiting = None

    def _take(self, messages: list[Incoming], seen: set[str] | None) -> bool:
        """Take messages in; False if some before them did not arrive."""
        for message in messages:
            delivery = parse_reply(message.reply)
            self._delivered += 1
            if delivery.consumer_sequence != self._delivered:
                return False
            key = message.subject.decode().removeprefix(self._prefix)
            headers = decode_headers(message.header) if message.header else {}
            if self._apply(key, message.data, headers, delivery.timestamp_ns / 1e9) and seen is not None:
                seen.add(key)
            elif seen is not None:
                seen.discard(key)
        return True

    async def _standing(self) -> tuple[int, int] | None:
        """How many messages the consumer has delivered and how many it has yet to; None if nobody answers."""
        try:
            info = await consumer_info(self._client, self._stream, self._consumer)
        except ConnectorError:
            return None
        if info is None:
            raise ConsumerGoneError(f"consumer {self._consumer!r} of bucket {self._bucket!r} was deleted")
        return (info.delivered.consumer_seq if info.delivered is not None else 0), info.num_pending or 0

    async def _has_all(self) -> bool:
        """Whether everything that the consumer has delivered arrived."""
        standing = await self._standing()
        return standing is None or standing[0] <= self._delivered + (self._pull.buffered if self._pull else 0)

    # Entries

    def _apply(self, key: str, data: bytes, headers: dict[str, str], stored_at: float) -> bool:
        """Take one message in; whether there is an entry now."""
        if headers.get("KV-Operation") in ("DEL", "PURGE") or "Nats-Marker-Reason" in headers:
            self._forget(key)
            return False
        self._expiry.set(key, stored_at, headers.get("Nats-TTL"))
        try:
            self.entries[key] = self._decode(data)
            self.entries.undecodable.pop(key, None)
        except Exception as error:
            self.entries.pop(key, None)
            reason = f"key {key!r} of bucket {self._bucket!r}: {error}"
            self.entries.undecodable[key] = reason
            self._tell("table entry does not decode", error=reason)
        return True

    def _forget(self, key: str) -> None:
        self.entries.pop(key, None)
        self.entries.undecodable.pop(key, None)
        self._expiry.drop(key)

    async def _look_again(self, key: str) -> None:
        """An entry is over in a bucket that keeps a history: an earlier one that lives longer is the entry now."""
        try:
            answer = await request(
                self._client, f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + key}
            )
        except ConnectorError as error:
            if isinstance(error, JetStreamError) and error.err_code == _MESSAGE_NOT_FOUND:
                self._forget(key)
            else:
                self._missed = True
            return
        message = answer["message"]
        headers = decode_headers(base64.b64decode(message.get("hdrs", "")))
        stored_at = datetime.fromisoformat(message["time"]).timestamp()
        self._apply(key, base64.b64decode(message.get("data", "")), headers, stored_at)

    # Trouble

    def _heard(self, event: ConnectionEvent) -> None:
        if event.kind == "reconnected":
            self._missed = True
            if self._waiting is not None and not self._waiting.expired():
                self._waiting.reschedule(0)

    async def _recover(self) -> None:
        """Read the bucket anew, for as long as it takes."""
        self._tell("table is out of date")
        failures = 0
        while True:
            try:
                loaded = await self._load()
            except ConsumerGoneError:
                loaded = False
            except ConnectorError as error:
                refused = isinstance(error, JetStreamError) and error.code != _UNAVAILABLE
                if refused or isinstance(error, NoBucketError) or self._client.is_closed:
                    raise
                loaded = False
            if loaded:
                self._tell("table is up to date")
                return
            delay = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 8), _LAST_BACKOFF_SECONDS)
            failures += 1
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    def _tell(self, name: str, **details: Any) -> None:
        self._context.run.observer.event(name, step=self._context.step, bucket=self._bucket, **details)


def _now() -> float:
    return asyncio.get_running_loop().time()
