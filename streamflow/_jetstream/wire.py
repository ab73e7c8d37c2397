"""The hot path to and from the socket, and the only module that reaches into nats-py's private parts.

nats-py parses, wraps and queues each message on its own, and awaits once per publish. Under load most of a JetStream
pipeline's time would go there. This module does the same work per *burst*:

* `HookedWire` parses what the socket delivered for our own inboxes straight into lists (everything else goes on to
  nats-py unchanged), and appends a burst of outgoing messages to nats-py's out-buffer in one piece.
* `PublicWire` does the same with nats-py's public calls. It is what `open_wire` returns when nats-py's inside is not
  what this module knows (`missing_hooks` says what differs), and what the tests compare with.

Both leave nats-py in charge of the connection: reconnects, resubscribing, TLS, authentication.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol import parser as nats_parser

from streamflow._jetstream.protocol import (
    Incoming,
    Outgoing,
    Status,
    decode_headers,
    encode_headers,
    parse_status,
)
from streamflow.errors import ConnectorError

_POLL_SECONDS = 0.05
_DRAIN_SECONDS = 2.0


class Inbox:
    """What arrived for one subscription and was not taken yet.

    ``messages`` and ``statuses`` grow in the order of arrival; take from them as you like. `wait` returns when
    something arrived or `wake` was called. ``on_arrival`` is called after each burst with the number of its messages
    and their size on the wire, on the event loop: keep it short, and let it raise nothing.
    """

    def __init__(self, on_arrival: Callable[[int, int], None] | None = None) -> None:
        self.messages: list[Incoming] = []
        self.statuses: list[Status] = []
        self._on_arrival = on_arrival
        self._waiters: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        """Let all who `wait` go on."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def arrived(self, messages: int, size: int) -> None:
        """Called by the wire after each burst; a burst may consist of statuses only."""
        if self._on_arrival is not None:
            self._on_arrival(messages, size)
        self.wake()

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the next arrival or `wake`, for at most ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        timer = None if timeout is None else loop.call_later(max(timeout, 0.0), self.wake)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


class Wire(Protocol):
    """How the pull loop and the publisher reach the server: the same on hooks and on the public API."""

    client: Client

    async def subscribe(self, subject: str, inbox: Inbox) -> None:
        """Deliver what arrives on ``subject`` to ``inbox``, across reconnects, until `unsubscribe`."""
        ...

    async def unsubscribe(self, inbox: Inbox) -> None:
        """End the subscription. While connected, what the server sent before it noticed still arrives."""
        ...

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Send a burst. Waits only while the out-buffer is full. While disconnected, it is kept for later."""
        ...

    async def publish_to(self, subjects: Sequence[bytes], data: bytes) -> None:
        """Send the same payload to many subjects: acknowledgements."""
        ...


def open_wire(client: Client, *, public: bool = False) -> Wire:
    """The fastest wire that this client allows; ``public=True`` keeps to nats-py's public API."""
    if public or missing_hooks(client):
        return PublicWire(client)
    return HookedWire(client)


class PublicWire:
    """The wire on nats-py's public API."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._subscriptions: dict[Inbox, Subscription] = {}

    async def subscribe(self, subject: str, inbox: Inbox) -> None:
        async def deliver(message: Msg) -> None:
            headers, subject = message.headers or {}, message.subject.encode()
            if "Status" in headers and not message.reply:
                inbox.statuses.append(
                    Status(subject, int(headers["Status"]), headers.get("Description", ""), headers)
                )
                inbox.arrived(0, 0)
            else:
                arrived = Incoming(subject, message.reply.encode(), message.data, encode_headers(headers))
                inbox.messages.append(arrived)
                inbox.arrived(1, sum(map(len, arrived)))

        self._subscriptions[inbox] = await _subscribe(self.client, subject, deliver)

    async def unsubscribe(self, inbox: Inbox) -> None:
        await _end(self.client, self._subscriptions.pop(inbox))

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        for subject, reply, header, data in messages:
            headers = decode_headers(header) if header else None
            await self._publish(subject.decode(), data, reply.decode(), headers)

    async def publish_to(self, subjects: Sequence[bytes], data: bytes) -> None:
        for subject in subjects:
            await self._publish(subject.decode(), data, "", None)

    async def _publish(self, subject: str, data: bytes, reply: str, headers: dict[str, str] | None) -> None:
        while True:
            try:
                return await self.client.publish(subject, data, reply=reply, headers=headers)
            except nats.errors.OutboundBufferLimitError:  # disconnected, and the buffer is full
                await asyncio.sleep(_POLL_SECONDS)
            except nats.errors.Error as error:
                raise _unusable(error) from error


class HookedWire:
    """The wire on nats-py's parser and out-buffer. Ask `missing_hooks` first."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._subscriptions: dict[Inbox, Subscription] = {}

    async def subscribe(self, subject: str, inbox: Inbox) -> None:
        subscription = await _subscribe(self.client, subject, None)
        self._subscriptions[inbox] = subscription
        _BurstParser.of(self.client).add(subscription._id, inbox)

    async def unsubscribe(self, inbox: Inbox) -> None:
        subscription = self._subscriptions.pop(inbox)
        try:
            await _end(self.client, subscription)
        finally:
            _BurstParser.of(self.client).remove(subscription._id)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        commands = [
            b"HPUB %b %b %d %d\r\n%b%b\r\n"
            % (subject, reply, len(header), len(header) + len(data), header, data)
            if header
            else b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(data), data)
            for subject, reply, header, data in messages
        ]
        await self._send(b"".join(commands), len(commands))

    async def publish_to(self, subjects: Sequence[bytes], data: bytes) -> None:
        if subjects:
            tail = b" %d\r\n%b\r\n" % (len(data), data)
            await self._send(b"PUB " + (tail + b"PUB ").join(subjects) + tail, len(subjects))

    async def _send(self, commands: bytes, count: int) -> None:
        """Append to nats-py's out-buffer, once it has room, and wake its flusher."""
        client = self.client
        while client._pending_data_size > client._max_pending_size and not client.is_closed:
            await self._flushed()
        if client.is_closed or client.is_draining_pubs:
            raise _unusable(client.last_error)
        client._pending.append(commands)
        client._pending_data_size += len(commands)
        client.stats["out_msgs"] += count
        client.stats["out_bytes"] += len(commands)
        queue = client._flush_queue
        if queue is not None and queue.empty() and client.is_connected:
            queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _flushed(self) -> None:
        # Not nats-py's `_flush_pending(force_flush=True)`: it swallows a cancellation of its caller. The wait is
        # bounded because nobody resolves the future when the connection is lost.
        queue = self.client._flush_queue
        if queue is None or not self.client.is_connected:
            await asyncio.sleep(_POLL_SECONDS)
            return
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await queue.put(future)
        await asyncio.wait([future], timeout=_POLL_SECONDS)


class _BurstParser:
    """Takes the place of ``parse`` in one client's parser while there are inboxes to serve.

    It works on the parser's own buffer and leaves it so that the original can go on from there at any time. Whatever
    is not a message (PING, INFO, an error) is handed to the original, messages of others to ``_process_msg``.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._parser = client._ps
        self._inboxes: dict[bytes, Inbox] = {}
        self._needed = 0  # size of the message at the head of the buffer, as far as it is known

    @classmethod
    def of(cls, client: Client) -> _BurstParser:
        """The one that is in place, else a new one."""
        installed = getattr(client._ps.__dict__.get("parse"), "__self__", None)
        return installed if isinstance(installed, cls) else cls(client)

    def add(self, sid: int, inbox: Inbox) -> None:
        self._inboxes[b"%d" % sid] = inbox
        self._parser.__dict__["parse"] = self.parse

    def remove(self, sid: int) -> None:
        self._inboxes.pop(b"%d" % sid, None)
        if not self._inboxes:
            self._parser.__dict__.pop("parse", None)

    async def parse(self, data: bytes = b"") -> None:
        """Take in what the socket delivered."""
        parser = self._parser
        buffer = parser.buf
        if parser.state != nats_parser.AWAITING_CONTROL_LINE:  # hooked in while a message was half read
            missing = parser.needed + 2 - len(buffer)
            await type(parser).parse(parser, data[:missing])
            data = data[missing:]
            if not data or parser.buf is not buffer:
                return
        if buffer:
            buffer.extend(data)
            if len(buffer) < self._needed:
                return
            data = bytes(buffer)
            buffer.clear()
        self._needed = 0
        position = await self._scan(data, buffer)
        if parser.buf is buffer:  # else the connection was reset meanwhile, and this belongs to the old one
            buffer.extend(data[position:])

    async def _scan(self, data: bytes, buffer: bytearray) -> int:
        """Deliver the complete messages in ``data`` and return the position behind them."""
        position = 0
        while (line_end := data.find(b"\r\n", position)) >= 0 and self._parser.buf is buffer:
            words = data[position:line_end].split()
            if len(words) > 3 and words[0] in (b"MSG", b"HMSG"):
                inbox = self._inboxes.get(words[2])
                if inbox is not None:
                    end = self._take(data, position, words[2], inbox)
                else:
                    end = await self._pass_on(data, position, line_end + 2, words)
                if end == position:
                    break
                position = end
            else:
                await type(self._parser).parse(self._parser, data[position : line_end + 2])
                position = line_end + 2
        return position

    def _take(self, data: bytes, position: int, sid: bytes, inbox: Inbox) -> int:
        """Append a run of messages for one inbox and return the position behind them. The innermost loop."""
        begin, size, count = position, len(data), len(inbox.messages)
        find, append, build = data.find, inbox.messages.append, tuple.__new__
        while (line_end := find(b"\r\n", position)) >= 0:
            words = data[position:line_end].split()
            if len(words) < 4 or words[2] != sid:
                break
            header = start = line_end + 2
            with_reply = 5
            if words[0] == b"HMSG":
                start += _size(words[-2])
                with_reply = 6
            elif words[0] != b"MSG":
                break
            end = header + _size(words[-1])
            if end + 2 > size:
                self._needed = end + 2 - position
                break
            reply = words[3] if len(words) == with_reply else b""
            if not reply and data.startswith(b"NATS/1.0 ", header, start):
                inbox.statuses.append(parse_status(words[1], data[header:start]))
            else:
                append(build(Incoming, (words[1], reply, data[start:end], data[header:start])))
            position = end + 2
        count = len(inbox.messages) - count
        self._client.stats["in_msgs"] += count
        self._client.stats["in_bytes"] += position - begin
        if position > begin:
            inbox.arrived(count, position - begin)
        return position

    async def _pass_on(self, data: bytes, position: int, header: int, words: list[bytes]) -> int:
        """Give one message of somebody else to nats-py and return the position behind it, if it is complete."""
        start = header + (_size(words[-2]) if words[0] == b"HMSG" else 0)
        end = header + _size(words[-1])
        if end + 2 > len(data):
            self._needed = end + 2 - position
            return position
        reply = words[3] if len(words) == (5 if start == header else 6) else b""
        # nats-py's own parser gives None for no headers, against its annotation.
        raw: Any = data[header:start] or None
        await self._client._process_msg(int(words[2]), words[1], reply, data[start:end], raw)
        return end + 2


def missing_hooks(client: Client) -> list[str]:
    """What `HookedWire` relies on and this client does not have as expected; empty if it can be used."""
    expected: dict[str, Callable[[], bool]] = {
        "Client._ps is a Parser": lambda: type(client._ps) is nats_parser.Parser,
        "Parser.parse(data) is a coroutine": lambda: _coroutine(nats_parser.Parser.parse, "self", "data"),
        "Parser.buf": lambda: isinstance(client._ps.buf, bytearray),
        "Parser.needed": lambda: isinstance(client._ps.needed, int),
        "Parser.state": lambda: isinstance(client._ps.state, int),
        "parser.AWAITING_CONTROL_LINE": lambda: isinstance(nats_parser.AWAITING_CONTROL_LINE, int),
        "Client._process_msg(...)": lambda: _coroutine(
            type(client)._process_msg, "self", "sid", "subject", "reply", "data", "headers"
        ),
        "Client._pending": lambda: isinstance(client._pending, list),
        "Client._pending_data_size": lambda: isinstance(client._pending_data_size, int),
        "Client._max_pending_size": lambda: isinstance(client._max_pending_size, int),
        "Client._flush_queue": lambda: isinstance(client._flush_queue, asyncio.Queue),
        "Client.stats": lambda: {"in_msgs", "in_bytes", "out_msgs", "out_bytes"} <= client.stats.keys(),
        "Subscription._id": lambda: "id" in inspect.signature(Subscription.__init__).parameters,
    }
    missing = []
    for name, check in expected.items():
        try:
            if not check():
                missing.append(name)
        except Exception:
            missing.append(name)
    return missing


def chain_callbacks(
    client: Client,
    disconnected: Callable[[], None],
    reconnected: Callable[[], None],
    closed: Callable[[], None],
    error: Callable[[Exception], None],
) -> Callable[[], None]:
    """Call these, then the callbacks the client was connected with. Returns a function that takes them out again.

    nats-py takes callbacks only when it connects, so that a client which the user opened has to be changed inside.
    Where that is not possible nothing is called: whoever depends on it notices by its own deadlines.
    """
    undo: list[Callable[[], None]] = []
    ours: dict[str, Callable[..., None]] = {
        "_disconnected_cb": disconnected,
        "_reconnected_cb": reconnected,
        "_closed_cb": closed,
        "_error_cb": error,
    }
    for name, first in ours.items():
        if hasattr(client, name):
            undo.append(_chain(client, name, first))

    def restore() -> None:
        for step in undo:
            step()

    return restore


def clean_up(client: Client) -> None:
    """Release what a client holds whose ``close`` failed halfway: the tasks of its subscriptions and the socket."""
    with suppress(Exception):
        for subscription in client._subs.values():
            subscription._stop_processing()
    with suppress(Exception):
        client._transport.close()  # type: ignore[union-attr]


def _chain(client: Client, name: str, first: Callable[..., None]) -> Callable[[], None]:
    original = getattr(client, name)
    active = True

    async def chained(*args: Any) -> None:
        if active:
            first(*args)
        if original is not None:
            await original(*args)

    def undo() -> None:
        nonlocal active
        active = False
        if getattr(client, name) is chained:
            setattr(client, name, original)

    setattr(client, name, chained)
    return undo


def _size(word: bytes) -> int:
    try:
        return int(word)
    except ValueError:
        raise nats.errors.ProtocolError from None  # nats-py drops the connection and reconnects


def _coroutine(function: Callable[..., Any], *parameters: str) -> bool:
    return inspect.iscoroutinefunction(function) and [*inspect.signature(function).parameters] == [
        *parameters
    ]


async def _subscribe(
    client: Client, subject: str, callback: Callable[[Msg], Awaitable[None]] | None
) -> Subscription:
    try:
        return await client.subscribe(subject, cb=callback)
    except nats.errors.Error as error:
        raise _unusable(error) from error


async def _end(client: Client, subscription: Subscription) -> None:
    """Unsubscribe; while connected wait until the server has confirmed it, so that nothing arrives afterwards."""
    with suppress(nats.errors.Error, OSError, TimeoutError):
        if client.is_connected and not client.is_draining:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await subscription.drain()  # type: ignore[no-untyped-call]
        elif not client.is_closed:
            await subscription.unsubscribe()


def _unusable(error: Exception | None) -> ConnectorError:
    return ConnectorError(f"the connection to NATS cannot be used: {error or 'it is closed'}")
