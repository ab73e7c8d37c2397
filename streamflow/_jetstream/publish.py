"""Publish into streams and hear of each message whether it was stored, with thousands under way at a time.

Each message is sent with a reply subject of its own, ``<inbox>.<number>``; the stream's confirmations come back to one
subscription and are matched by that number. There is no future and no task per message. A message stays here until it
is confirmed: after a lost connection, without an answer or without a stream to take it, it is sent again with the same
id, until it is confirmed or its time is up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from nats.aio.client import Client

from streamflow._jetstream.admin import forbids
from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.protocol import Outgoing, encode_headers, encode_subject
from streamflow._jetstream.wire import Inbox, Wire, open_wire
from streamflow.errors import ConnectorError, shorten
from streamflow.policies import positive, seconds

_TICK_SECONDS = 0.25
_FIRST_BACKOFF_SECONDS = 0.1
_LAST_BACKOFF_SECONDS = 1.0
_SEND_SECONDS = 1.0
_CLOSED = "the connection to NATS was closed"
_RESEND = 512
_KNOWN_SUBJECTS = 4096
_FULL = (10077, 10023)  # the store refused it, or has no room: an error of its own, not a passing state

Item = tuple[str, bytes, Mapping[str, str] | None, str | None, Any]
"""What to publish: subject, payload, headers, message id, and a token by which the caller knows it again."""

# A message under way: what was sent, its token, its deadline, when it was sent last, its size.
_Entry = tuple[Outgoing, Any, float, float, int]


class PublishError(ConnectorError):
    """A message that was not stored. ``subject`` and ``token`` say which, ``err_code`` is JetStream's if it has one."""

    def __init__(self, message: str, *, subject: str, token: Any = None, err_code: int | None = None) -> None:
        super().__init__(f"cannot publish to {subject!r}: {message}")
        self.subject = subject
        self.token = token
        self.err_code = err_code


class Publisher:
    """A pipelined publisher. Made by `open`, ended by `aclose`."""

    def __init__(
        self,
        wire: Wire,
        *,
        window: int,
        window_bytes: int,
        timeout: float,
        ack_timeout: float,
        on_confirm: Callable[[list[Any]], None] | None,
        on_reject: Callable[[Any, PublishError], bool] | None,
        stream: str | None,
    ) -> None:
        self._wire = wire
        self._client = wire.client
        self._window = window
        self._window_bytes = window_bytes
        self._timeout = timeout
        self._ack_timeout = ack_timeout
        self._on_confirm = on_confirm
        self._on_reject = on_reject
        self._stream = stream
        # What a confirmation begins with: the server writes the stream first.
        self._confirms = b'{"stream"' if stream is None else b'{"stream":"%b"' % stream.encode()
        self._inbox = Inbox(self._answered)
        self._prefix = self._client.new_inbox().encode()
        self._number = 0
        self._pending: dict[bytes, _Entry] = {}
        self._bytes = 0
        self._again: set[bytes] = set()  # to be sent again, at `_again_at`
        self._again_at = 0.0
        self._failed_rounds = 0
        self._trouble = "no answer"
        self._errors: list[PublishError] = []
        self._crash: Exception | None = None  # what a callback raised
        self._subjects: dict[str, bytes] = {}
        self._reconnects = self._client.stats["reconnects"]
        self._work = asyncio.Event()  # there are pending messages to look after
        self._hurry = asyncio.Event()  # something happened to the connection
        self._leave = watch(self._client, self._heard)
        self._keeper: asyncio.Task[None] | None = None
        self.confirmed = 0
        """How many messages were confirmed."""
        self.duplicates = 0
        """How many of them the stream had already, by their id."""

    @classmethod
    async def open(
        cls,
        client: Client,
        *,
        window: int = 4096,
        window_bytes: int = 16 * 1024 * 1024,
        timeout: float = 30.0,
        ack_timeout: float = 5.0,
        on_confirm: Callable[[list[Any]], None] | None = None,
        on_reject: Callable[[Any, PublishError], bool] | None = None,
        stream: str | None = None,
        wire: Wire | None = None,
    ) -> Self:
        """Start a publisher on an open client.

        At most ``window`` messages and about ``window_bytes`` bytes are under way. A message that is not confirmed
        within ``ack_timeout`` seconds is sent again, and rejected after ``timeout`` seconds altogether. Repeats have
        the same message id, by which the stream drops them; a message *without* an id may be stored twice.

        ``on_confirm`` gets the tokens of confirmed messages, ``on_reject`` the token and the error of one that was
        refused; if it returns True the error is dealt with, else the next `publish_many` or `flush` raises it. Both
        are called on the event loop and must not block; what they raise, `publish_many` and `flush` raise from then on.
        """
        positive(window, "window")
        positive(window_bytes, "window_bytes")
        self = cls(
            wire or open_wire(client),
            window=window,
            window_bytes=window_bytes,
            timeout=seconds(timeout, "timeout"),
            ack_timeout=seconds(ack_timeout, "ack_timeout"),
            on_confirm=on_confirm,
            on_reject=on_reject,
            stream=stream,
        )
        try:
            await self._wire.subscribe(f"{self._prefix.decode()}.*", self._inbox)
        except BaseException:
            self._leave()
            raise
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="streamflow-publisher")
        return self

    @property
    def pending(self) -> int:
        """How many messages are sent and not confirmed."""
        return len(self._pending)

    async def publish_many(self, items: Iterable[Item]) -> None:
        """Send messages, waiting while the window is full. Raises the error of a message rejected so far.

        A message is checked as it is sent: one with an impossible subject or header, or too large for the server, is
        rejected and the others go on.
        """
        remaining = iter(items)
        while True:
            await self._room()
            batch, more = self._accept(remaining)
            if batch:
                self._work.set()
                await self._send(batch)
            if not more:
                break
        self._raise_errors()

    async def flush(self) -> None:
        """Wait until all is confirmed. Raises the error of a message that was rejected."""
        while self._pending:
            self._raise_errors()
            await self._inbox.wait()
        self._raise_errors()

    async def aclose(self) -> None:
        """End the publisher. What is not confirmed may or may not be stored: `flush` first."""
        self._leave()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._wire.unsubscribe(self._inbox)

    async def _room(self) -> None:
        """Wait until there is room: once the window was full, for a quarter of it, so that bursts stay large."""
        enough = self._window - 1
        while True:
            self._raise_errors()
            if self._client.is_closed:
                raise ConnectorError(_CLOSED)
            if len(self._pending) <= enough and self._bytes < self._window_bytes:
                return
            enough = min(self._window - 1, self._window * 3 // 4)
            await self._inbox.wait()

    def _accept(self, items: Iterator[Item]) -> tuple[list[Outgoing], bool]:
        """Take messages while there is room. Returns what to send, and whether there may be more items."""
        now = asyncio.get_running_loop().time()
        deadline = now + self._timeout
        pending, subjects, build = self._pending, self._subjects, tuple.__new__
        room, most, largest = self._window - len(pending), self._window_bytes, self._client.max_payload
        batch: list[Outgoing] = []
        for subject, payload, headers, message_id, token in items:
            try:
                encoded = subjects.get(subject) or self._subject(subject)
                header = encode_headers(headers, message_id)
            except ConnectorError as error:
                self._reject(PublishError(error.message, subject=subject, token=token))
                continue
            size = len(header) + len(payload)
            if size > largest:
                reason = f"{size} bytes with its headers; the server takes {largest} (max_payload)"
                self._reject(PublishError(reason, subject=subject, token=token))
                continue
            self._number += 1
            reply = b"%b.%d" % (self._prefix, self._number)
            message = build(Outgoing, (encoded, reply, header, payload))
            pending[reply] = (message, token, deadline, now, size)
            batch.append(message)
            self._bytes += size
            room -= 1
            if room <= 0 or self._bytes >= most:
                return batch, True
        return batch, False

    def _subject(self, subject: str) -> bytes:
        """Check and encode a subject, and remember it: streams have few, or at least few at a time."""
        encoded = encode_subject(subject)
        if len(self._subjects) >= _KNOWN_SUBJECTS:
            self._subjects.clear()
        self._subjects[subject] = encoded
        return encoded

    async def _send(self, batch: Sequence[Outgoing]) -> None:
        """Write, unless the connection is down: then all pending messages are sent when it is back."""
        if self._client.is_connected:
            # Bounded, because the out-buffer does not empty if the connection is lost now.
            with suppress(TimeoutError):
                async with asyncio.timeout(_SEND_SECONDS):
                    await self._wire.publish(batch)

    # --- answers ---

    def _answered(self, messages: int, size: int) -> None:
        """Match the answers that have arrived with the messages they are about."""
        inbox, pop = self._inbox, self._pending.pop
        answers, inbox.messages = inbox.messages, []
        tokens = []
        for subject, _, data, _ in answers:
            if b'"error"' in data or not data.startswith(self._confirms):
                self._examine(subject, data)
                continue
            entry = pop(subject, None)
            if entry is not None:  # else the answer to a message that was sent twice
                tokens.append(entry[1])
                self._bytes -= entry[4]
                if b'"duplicate"' in data:
                    self.duplicates += 1
        if inbox.statuses:
            statuses, inbox.statuses = inbox.statuses, []
            for status in statuses:  # 503: no stream listens, or it has no leader now
                self._retry(status.subject, "no stream takes this subject")
        if tokens:
            self._confirm(tokens)

    def _confirm(self, tokens: list[Any]) -> None:
        self._failed_rounds = 0
        self.confirmed += len(tokens)
        if self._on_confirm is not None:
            try:
                self._on_confirm(tokens)
            except Exception as error:  # it must not end the client's reader, where this runs
                self._crash = error

    def _examine(self, reply: bytes, data: bytes) -> None:
        """An answer that is no plain confirmation."""
        entry = self._pending.get(reply)
        if entry is None:
            return
        error: Any = None
        with suppress(ValueError):
            answer = json.loads(data)
            if isinstance(answer, dict):
                error = answer.get("error")
                taken_by = answer.get("stream")
                if error is None and taken_by and self._stream not in (None, taken_by):
                    self._refuse(reply, f"stream {taken_by!r} takes this subject, not {self._stream!r}")
                    return
                if error is None and taken_by:  # a stream that is called "error"
                    self._settle(reply)
                    self._confirm([entry[1]])
                    return
        if not isinstance(error, dict):
            self._refuse(reply, f"something that is not JetStream answered: {shorten(data)}")
        elif (
            error.get("code") in (429, 503) and error.get("err_code") not in _FULL
        ):  # too busy, no leader now
            self._retry(reply, str(error.get("description", "")))
        else:
            self._refuse(reply, str(error.get("description", "")), error.get("err_code"))

    def _settle(self, reply: bytes) -> _Entry:
        entry = self._pending.pop(reply)
        self._again.discard(reply)
        self._bytes -= entry[4]
        return entry

    def _refuse(self, reply: bytes, reason: str, err_code: int | None = None) -> None:
        """Give up on a message."""
        message, token, *_ = self._settle(reply)
        self._reject(PublishError(reason, subject=message.subject.decode(), token=token, err_code=err_code))

    def _reject(self, error: PublishError) -> None:
        try:
            absorbed = self._on_reject is not None and self._on_reject(error.token, error)
        except Exception as crash:
            self._crash, absorbed = crash, True
        if not absorbed:
            self._errors.append(error)
        self._inbox.wake()

    def _raise_errors(self) -> None:
        if self._crash is not None:
            raise self._crash
        if self._errors:
            first, *others = self._errors
            self._errors = []
            if others:
                first.add_note(f"{len(others)} more messages were rejected, the last one: {others[-1]}")
            raise first

    # --- retries ---

    def _heard(self, event: ConnectionEvent) -> None:
        """React to the connection, on the event loop: the keeper does what takes time."""
        if event.error is not None and "permissions violation" in str(event.error).lower():
            for reply, entry in [*self._pending.items()]:
                if forbids(event.error, f'"{entry[0].subject.decode()}"'):
                    self._refuse(reply, f"these credentials do not allow it: {event.error}")
        self._hurry.set()

    def _retry(self, reply: bytes, trouble: str) -> None:
        """Send a message again after a while that grows with each round that failed."""
        if reply not in self._pending:
            return
        if not self._again:
            delay = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failed_rounds, 8), _LAST_BACKOFF_SECONDS)
            self._again_at = asyncio.get_running_loop().time() + delay
            self._failed_rounds += 1
        self._again.add(reply)
        self._trouble = trouble

    async def _keep(self) -> None:
        """Look after messages that stay unconfirmed: send them again, reject them when their time is up."""
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._hurry.wait()
            self._hurry.clear()
            if not self._pending:
                self._work.clear()
                self._failed_rounds = 0
            elif self._client.is_closed:
                self._expire(float("inf"), _CLOSED)
            else:
                self._expire(loop.time(), f"not confirmed within {self._timeout:g} s: {self._state()}")
                await self._resend(self._due(loop.time()))

    def _state(self) -> str:
        return self._trouble if self._client.is_connected else "not connected"

    def _expire(self, now: float, reason: str) -> None:
        for reply in [reply for reply, entry in self._pending.items() if entry[2] <= now]:
            self._refuse(reply, reason)

    def _due(self, now: float) -> list[bytes]:
        """What to send again now: all of it after a reconnect, else what was refused or not answered for too long."""
        if not self._client.is_connected:
            return []
        if self._reconnects != self._client.stats["reconnects"]:
            self._reconnects = self._client.stats["reconnects"]
            self._again.clear()
            return [*self._pending]
        again = self._again if self._again_at <= now else ()
        overdue = now - self._ack_timeout
        due = [reply for reply, entry in self._pending.items() if entry[3] <= overdue or reply in again]
        self._again.difference_update(due)
        return due

    async def _resend(self, replies: Sequence[bytes]) -> None:
        now = asyncio.get_running_loop().time()
        for start in range(0, len(replies), _RESEND):
            batch = []
            for reply in replies[start : start + _RESEND]:
                entry = self._pending.get(reply)
                if entry is not None:
                    self._pending[reply] = (*entry[:3], now, entry[4])
                    batch.append(entry[0])
            await self._send(batch)
