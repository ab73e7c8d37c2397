"""Pull messages from one consumer of a stream, with credit as the backpressure.

`PullSubscription` asks for as many messages as it has room for and asks again when half of that is free, so that the
server always has an open request and never sends more than was asked for. It notices missed heartbeats, lost
connections and restarted servers and asks again by itself. It needs no task of its own: whoever reads drives it.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Sequence
from typing import Self

from nats.aio.client import Client

from streamflow._jetstream.admin import consumer_info, forbids, stream_info
from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.credit import Credit
from streamflow._jetstream.protocol import Incoming, Outgoing, Status, parse_reply
from streamflow._jetstream.wire import Inbox, Wire, open_wire
from streamflow.errors import ConfigurationError, ConnectorError
from streamflow.policies import positive, seconds

ACK = b"+ACK"
NAK = b"-NAK"
IN_PROGRESS = b"+WPI"
TERM = b"+TERM"

_NANOSECONDS = 1_000_000_000
_FIRST_BACKOFF_SECONDS = 0.05
_LAST_BACKOFF_SECONDS = 1.0
_MAX_REQUEST_BATCH = re.compile(r"maxrequestbatch of (\d+)")


class ConsumerGoneError(ConnectorError):
    """The consumer, or its stream, was deleted while it was read."""


class PullSubscription:
    """The messages of one consumer, in bursts. Made by `open`, ended by `close`.

    One task may `read` at a time. Acknowledge with `ack_many` and its relatives, by the messages' reply subjects.
    """

    def __init__(
        self,
        wire: Wire,
        stream: str,
        consumer: str,
        credit: Credit,
        *,
        expires: float,
        idle_heartbeat: float,
        pending: int | None,
    ) -> None:
        self.stream = stream
        self.consumer = consumer
        self._wire = wire
        self._client = wire.client
        self._credit = credit
        self._expires = expires
        self._heartbeat = idle_heartbeat
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = Inbox(self._came)
        self._reply = self._client.new_inbox().encode()
        self._generation = 0  # of requests: what the server says about requests that were given up is ignored
        self._pending = pending
        self._last_reply = b""
        self._heard_at = 0.0
        self._retry_at = 0.0
        self._failures = 0
        self._suspect = False  # the consumer may be gone
        self._failure: ConnectorError | None = None
        self._reconnects = self._client.stats["reconnects"]
        self._leave = watch(self._client, self._heard)

    @classmethod
    async def open(
        cls,
        client: Client,
        stream: str,
        consumer: str,
        *,
        window: int = 4096,
        max_bytes: int | None = 32 * 1024 * 1024,
        expires: float = 30.0,
        idle_heartbeat: float = 5.0,
        pending: int | None = None,
        wire: Wire | None = None,
    ) -> Self:
        """Start to read a pull consumer that exists (`ensure_consumer`).

        At most ``window`` messages and about ``max_bytes`` bytes are asked for or waiting to be read; a message that
        alone is larger than ``max_bytes`` still comes through, by itself. A request lives ``expires`` seconds; after
        two missed heartbeats (``idle_heartbeat`` seconds, less than half of ``expires``) it counts as lost.
        ``pending`` is how many messages the consumer had to deliver when it was last looked at: see `caught_up`.
        """
        positive(window, "window")
        seconds(idle_heartbeat, "idle_heartbeat")
        if 2 * idle_heartbeat >= expires:
            raise ConfigurationError(f"idle_heartbeat must be less than half of expires ({expires} s)")
        self = cls(
            wire or open_wire(client),
            stream,
            consumer,
            Credit(window, max_bytes),
            expires=expires,
            idle_heartbeat=idle_heartbeat,
            pending=pending,
        )
        try:
            await self._wire.subscribe(f"{self._reply.decode()}.*", self._inbox)
        except BaseException:
            self._leave()
            raise
        return self

    @property
    def buffered(self) -> int:
        """How many messages have arrived and were not read yet."""
        return len(self._inbox.messages)

    @property
    def caught_up(self) -> bool:
        """Whether the consumer had nothing more to deliver after the last message read, and nothing is buffered.

        False as long as no message was read, unless `open` was told that none was ``pending``. On a durable that
        several workers share it tells what was true when the last message was sent to this one.
        """
        if self._inbox.messages:
            return False
        if self._last_reply:
            self._pending = parse_reply(self._last_reply).pending
        return self._pending == 0

    async def read(self, max_messages: int = 1024) -> list[Incoming]:
        """What has arrived, up to ``max_messages``, in order; waits for the first. Cancelling it loses nothing.

        Raises `ConsumerGoneError` if the consumer or its stream was deleted, `ConnectorError` if it cannot be read.
        Lost connections and restarts of the server only make it wait.
        """
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        while not self._arrived(loop.time()):
            if self._suspect and self._client.is_connected:
                await self._check_existence()
            await self._ask(loop.time())
            await self._inbox.wait(self._patience(loop.time()))
        count = min(max_messages, self.buffered)
        await self._ask(loop.time(), taking=count)
        return self._take(count)  # nothing is awaited after this: what is taken is returned

    async def ack_many(self, replies: Sequence[bytes]) -> None:
        """Acknowledge messages by their reply subjects."""
        await self._wire.publish_to(replies, ACK)

    async def nak_many(self, replies: Sequence[bytes], delay: float | None = None) -> None:
        """Give messages back to be delivered again, at once or after ``delay`` seconds."""
        data = b'%b {"delay": %d}' % (NAK, round(delay * _NANOSECONDS)) if delay else NAK
        await self._wire.publish_to(replies, data)

    async def in_progress_many(self, replies: Sequence[bytes]) -> None:
        """Tell the server that messages are still worked on: their ``ack_wait`` starts again."""
        await self._wire.publish_to(replies, IN_PROGRESS)

    async def term_many(self, replies: Sequence[bytes], reason: str = "") -> None:
        """Give up on messages: they are not delivered again. The server reports ``reason`` in its advisory."""
        await self._wire.publish_to(replies, b"%b %b" % (TERM, reason.encode()) if reason else TERM)

    async def close(self) -> list[Incoming]:
        """Stop pulling and return what arrived and was not read: give it back with `nak_many`."""
        self._leave()
        await self._wire.unsubscribe(self._inbox)
        unread, self._inbox.messages = self._inbox.messages, []
        return unread

    def _came(self, messages: int, size: int) -> None:
        """Account for a burst as it arrives."""
        if messages:
            self._credit.arrived(messages, size)
            self._heard_at, self._failures = asyncio.get_running_loop().time(), 0

    def _arrived(self, now: float) -> bool:
        """Take in what the server says; whether there are messages to read. Raises what ended the subscription."""
        statuses, self._inbox.statuses = self._inbox.statuses, []
        for status in statuses:
            self._handle(status, now)
        if self._inbox.messages:
            return True
        if self._failure is not None:
            raise self._failure
        if self._client.is_closed:
            raise ConnectorError("the connection to NATS was closed while a consumer was read")
        if self._reconnects != self._client.stats["reconnects"]:
            self._reconnects = self._client.stats["reconnects"]
            self._forget()
        elif self._credit.asked and now - self._heard_at >= 2 * self._heartbeat:
            self._forget()
        return False

    def _take(self, count: int) -> list[Incoming]:
        taken = self._inbox.messages[:count]
        del self._inbox.messages[:count]
        self._last_reply = taken[-1].reply
        self._credit.taken(count)
        return taken

    async def _ask(self, now: float, taking: int = 0) -> None:
        """Send the next request, if there is room for one and no reason to wait."""
        if now < self._retry_at or not self._client.is_connected:
            return
        ask = self._credit.next(taking)
        if ask is None:
            return
        request = {
            "batch": ask.messages,
            "expires": round(self._expires * _NANOSECONDS),
            "idle_heartbeat": round(self._heartbeat * _NANOSECONDS),
        }
        if ask.max_bytes is not None:
            request["max_bytes"] = ask.max_bytes
        reply = b"%b.%d" % (self._reply, self._generation)
        await self._wire.publish([Outgoing(self._next.encode(), reply, b"", json.dumps(request).encode())])
        self._credit.sent(ask)

    def _patience(self, now: float) -> float:
        """How long to wait for something to arrive before looking again."""
        if now < self._retry_at:
            return self._retry_at - now
        return self._heard_at + 2 * self._heartbeat - now if self._credit.asked else self._heartbeat

    def _forget(self) -> None:
        """Give up on the open requests; the next ones are told apart by their reply subject."""
        self._credit.forget()
        self._generation += 1

    def _back_off(self, now: float) -> None:
        delay = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 8), _LAST_BACKOFF_SECONDS)
        self._failures += 1
        self._retry_at = now + delay * random.uniform(0.5, 1.0)

    def _handle(self, status: Status, now: float) -> None:
        """React to what the server says about a request."""
        if not status.subject.endswith(b".%d" % self._generation):
            return
        self._heard_at = now
        if status.code == 100:  # heartbeat
            self._failures = 0
        elif status.code in (404, 408):  # the request has expired
            self._credit.returned(*_unused(status))
        elif status.code == 409:
            self._conflict(status, now)
        elif status.code in (423, 503):  # nobody there to serve it: not yet, or not any more
            self._forget()
            self._back_off(now)
            self._suspect = True
        else:
            self._fail(f"the server refused a pull request: {status.code} {status.description}")

    def _conflict(self, status: Status, now: float) -> None:
        description = status.description.lower()
        self._credit.returned(*_unused(status))
        if "batch completed" in description:
            return
        if "exceeds maxbytes" in description:
            self._credit.did_not_fit(_unused(status)[1])
        elif limit := _MAX_REQUEST_BATCH.search(description):
            self._credit.batch = int(limit[1])
        elif "push based" in description or "exceeded maxrequest" in description:
            self._fail(f"the consumer cannot be pulled from like this: {status.description}")
        else:  # deleted, leadership change, server shutdown, too many waiting: all open requests are void
            self._forget()
            self._back_off(now)
            self._suspect = True

    async def _check_existence(self) -> None:
        """See whether the consumer is still there. While JetStream gives no answer that is left open."""
        try:
            if await consumer_info(self._client, self.stream, self.consumer) is not None:
                self._suspect = False
                return
            there = await stream_info(self._client, self.stream) is not None
        except ConnectorError:
            return
        what = f"consumer {self.consumer!r} of stream" if there else "stream"
        self._failure = ConsumerGoneError(f"{what} {self.stream!r} was deleted")
        raise self._failure

    def _heard(self, event: ConnectionEvent) -> None:
        if event.error is not None and forbids(event.error, self._next, self._reply.decode()):
            self._fail(f"these credentials do not allow to read the consumer: {event.error}")
        self._inbox.wake()

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = ConnectorError(f"consumer {self.consumer!r} of stream {self.stream!r}: {reason}")


def _unused(status: Status) -> tuple[int | None, int | None]:
    """What was left of a request that ended: messages and bytes, None if the server did not say."""
    messages, size = status.headers.get("Nats-Pending-Messages"), status.headers.get("Nats-Pending-Bytes")
    return (None if messages is None else int(messages), None if size is None else int(size))
