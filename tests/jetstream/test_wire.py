"""The fast path into nats-py: that it is there, that it equals the public path, and that it leaves no trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol import parser as nats_parser

from streamflow._jetstream.connection import close
from streamflow._jetstream.protocol import Incoming, Outgoing, encode_headers
from streamflow._jetstream.wire import (
    HookedWire,
    Inbox,
    PublicWire,
    Wire,
    _BurstParser,
    missing_hooks,
    open_wire,
)
from streamflow.errors import ConnectorError
from streamflow.testing.server import NatsServer
from tests.jetstream.support import bounded, connected

Wired = Callable[[Client], Wire]


def outgoing(subject: str, data: bytes, reply: str = "", **headers: str) -> Outgoing:
    return Outgoing(subject.encode(), reply.encode(), encode_headers(headers), data)


async def collect(inbox: Inbox, count: int) -> list[Incoming]:
    while len(inbox.messages) < count:
        await inbox.wait()
    return inbox.messages


# --- the guard ---


@bounded
async def test_this_nats_py_has_the_hooks(server: NatsServer) -> None:
    """Fails when nats-py changes inside: then look at `HookedWire` before anything else (until then it is slow)."""
    async with connected(server.url) as client:
        assert missing_hooks(client) == []
        assert isinstance(open_wire(client), HookedWire)


@pytest.mark.parametrize("attribute", ["_ps", "_pending", "_pending_data_size", "_flush_queue", "stats"])
@bounded
async def test_without_a_hook_the_public_path_is_used(server: NatsServer, attribute: str) -> None:
    async with connected(server.url) as client:
        value = getattr(client, attribute)
        setattr(client, attribute, None)
        try:
            assert len(missing_hooks(client)) >= 1
            assert isinstance(open_wire(client), PublicWire)
        finally:
            setattr(client, attribute, value)
        assert isinstance(open_wire(client, public=True), PublicWire)


# --- both paths, on the server ---


@bounded
async def test_messages_of_every_shape_arrive_in_order(server: NatsServer, wired: Wired) -> None:
    payloads = [
        b"",
        b"x",
        b"a\r\nb",
        b"MSG a 1 5\r\nhello\r\n",
        b"\r\n",
        bytes(range(256)),
        b"y" * 900_000,
        b"end",
    ]
    shapes: list[Any] = [("", {}), ("r.x", {}), ("", {"A": "1"}), ("r.x", {"A": "é", "B": "2"})]
    messages = [outgoing("a.b", data, reply, **headers) for data in payloads for reply, headers in shapes]
    async with connected(server.url) as client:
        wire, inbox = wired(client), Inbox()
        await wire.subscribe("a.*", inbox)
        await wire.publish(messages)
        arrived = await collect(inbox, len(messages))
        assert arrived == [Incoming(m.subject, m.reply, m.data, m.header) for m in messages]
        assert inbox.statuses == []
        await wire.unsubscribe(inbox)


@bounded
async def test_other_subscriptions_of_the_client_go_on(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        wire, inboxes = wired(client), [Inbox(), Inbox()]
        theirs: list[bytes] = []

        async def callback(message: Msg) -> None:
            theirs.append(message.data)

        await client.subscribe("their.*", cb=callback)
        await client.subscribe("ask", cb=answer)
        for number, inbox in enumerate(inboxes):
            await wire.subscribe(f"our.{number}", inbox)
        for number in range(600):
            subject = ("their.x", "our.0", "our.1")[number % 3]
            await client.publish(subject, b"%d" % number, headers={"H": "1"} if number % 2 else None)
        assert (await client.request("ask", b"?", timeout=5)).data == b"?!"
        for number, inbox in enumerate(inboxes, 1):
            assert [m.data for m in await collect(inbox, 200)] == [b"%d" % n for n in range(number, 600, 3)]
        assert theirs == [b"%d" % n for n in range(0, 600, 3)]
        for inbox in inboxes:
            await wire.unsubscribe(inbox)
        assert (await client.request("ask", b"?", timeout=5)).data == b"?!"


async def answer(message: Msg) -> None:
    await message.respond(message.data + b"!")


@bounded
async def test_same_payload_to_many_subjects(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        wire, inbox = wired(client), Inbox()
        await wire.subscribe("ack.>", inbox)
        subjects = [b"ack.%d" % number for number in range(1000)]
        await wire.publish_to(subjects, b"+ACK")
        await wire.publish_to([], b"+ACK")
        arrived = await collect(inbox, 1000)
        assert [(m.subject, m.data) for m in arrived] == [(subject, b"+ACK") for subject in subjects]
        await wire.unsubscribe(inbox)


@bounded
async def test_no_responders_is_a_status(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        wire, inbox = wired(client), Inbox()
        await wire.subscribe("box.*", inbox)
        await wire.publish([outgoing("nobody", b"hello", "box.7")])
        while not inbox.statuses:
            await inbox.wait()
        assert [(status.subject, status.code) for status in inbox.statuses] == [(b"box.7", 503)]
        assert inbox.messages == []
        await wire.unsubscribe(inbox)


@bounded
async def test_survives_a_restart(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        wire, inbox = wired(client), Inbox()
        await wire.subscribe("a", inbox)
        await wire.publish([outgoing("a", b"before")])
        await collect(inbox, 1)
        server.kill()
        while client.is_connected:
            await asyncio.sleep(0.01)
        await wire.publish([outgoing("a", b"kept until it is back")])
        server.start()
        await collect(inbox, 2)
        await wire.publish([outgoing("a", b"after")])
        assert [m.data for m in await collect(inbox, 3)] == [b"before", b"kept until it is back", b"after"]
        await wire.unsubscribe(inbox)


@bounded
async def test_out_buffer_is_bounded_and_nothing_is_lost(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url, pending_size=200_000) as client, connected(server.url) as other:
        wire, inbox, largest = wired(client), Inbox(), 0
        await open_wire(other).subscribe("a", inbox)
        await other.flush()
        for burst in range(100):
            await wire.publish(
                [outgoing("a", b"%d" % (burst * 100 + number) + b" " * 500) for number in range(100)]
            )
            largest = max(largest, client.pending_data_size)
        arrived = await collect(inbox, 10_000)
        assert [int(m.data) for m in arrived] == list(range(10_000))
        assert largest < 300_000  # the limit and one burst


@bounded
async def test_a_full_buffer_waits_for_the_connection(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url, pending_size=10_000) as client:
        wire, inbox = wired(client), Inbox()
        await wire.subscribe("a", inbox)
        await client.flush()
        server.kill()
        while client.is_connected:
            await asyncio.sleep(0.01)
        burst = [outgoing("a", b"x" * 1000) for _ in range(9)]
        await wire.publish(burst)
        sending = asyncio.create_task(publish_twice(wire, burst))
        await asyncio.wait([sending], timeout=0.2)
        assert not sending.done()
        server.start()
        await sending
        await collect(inbox, 27)
        await wire.unsubscribe(inbox)


async def publish_twice(wire: Wire, burst: list[Outgoing]) -> None:
    await wire.publish(burst)
    await wire.publish(burst)


@bounded
async def test_closed_connection_is_an_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        wire = wired(client)
        await close(client)
        with pytest.raises(ConnectorError, match="connection"):
            await wire.publish([outgoing("a", b"x")])
        with pytest.raises(ConnectorError, match="connection"):
            await wire.publish_to([b"a"], b"x")
        with pytest.raises(ConnectorError, match="connection"):
            await wire.subscribe("a", Inbox())


@bounded
async def test_hooks_are_gone_with_the_last_inbox(server: NatsServer) -> None:
    async with connected(server.url) as client:
        first, second = HookedWire(client), HookedWire(client)
        inboxes = Inbox(), Inbox()
        await first.subscribe("a", inboxes[0])
        await second.subscribe("b", inboxes[1])
        assert "parse" in vars(client._ps)
        await first.unsubscribe(inboxes[0])
        await second.publish([outgoing("b", b"x")])
        await collect(inboxes[1], 1)
        await second.unsubscribe(inboxes[1])
        assert "parse" not in vars(client._ps)


# --- the parser beside nats-py's own ---

text = st.text("abc.XY", min_size=1, max_size=8).map(str.encode)
chunk_sizes = st.lists(st.integers(1, 30) | st.integers(1, 300), min_size=1, max_size=30)


@st.composite
def message(draw: st.DrawFn) -> bytes:
    """A message on the wire for one of the subscriptions 1, 2 and 3, or a PONG or PING in between."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([b"PONG\r\n", b"PING\r\n", b"+OK\r\n"]))
    subject, sid = draw(text), b"%d" % draw(st.integers(1, 3))
    reply = draw(st.just(b"") | text)
    data = draw(st.binary(max_size=60) | st.sampled_from([b"\r\n", b"MSG a 1 2\r\nxx\r\n"]))
    header = draw(st.sampled_from([b"", b"NATS/1.0\r\nA: b\r\n\r\n"]))
    words = [subject, sid, *([reply] if reply else [])]
    if header:
        words = [b"HMSG", *words, b"%d" % len(header), b"%d" % (len(header) + len(data))]
    else:
        words = [b"MSG", *words, b"%d" % len(data)]
    return b" ".join(words) + b"\r\n" + header + data + b"\r\n"


@settings(max_examples=150, deadline=None)
@given(st.lists(message(), max_size=25), chunk_sizes, st.integers(0, 20), st.integers(0, 40))
def test_parses_like_nats_py_however_it_is_cut(
    messages: list[bytes], sizes: list[int], hook_at: int, unhook_after: int
) -> None:
    """Also when it takes over in the middle of a message, and gives back in the middle of another."""
    stream = b"".join(messages)
    chunks: list[bytes] = []
    position = 0
    while position < len(stream):
        chunks.append(stream[position : position + sizes[len(chunks) % len(sizes)]])
        position += len(chunks[-1])

    async def parse(hooked: bool) -> list[list[Incoming]]:
        client, inbox = offline_client(), Inbox()
        for chunk in chunks[:hook_at]:
            await client._ps.parse(chunk)
        seen = received(client._subs[1])
        if hooked:
            in_message = client._ps.state == nats_parser.AWAITING_MSG_PAYLOAD
            half_read = in_message and client._ps.msg_arg["sid"] == 1
            _BurstParser.of(client).add(1, inbox)
        for chunk in chunks[hook_at : hook_at + unhook_after]:
            await client._ps.parse(chunk)
        if hooked:
            _BurstParser.of(client).remove(1)
            late = received(client._subs[1])
            assert len(late) <= half_read  # all others came to the inbox
            seen += late + inbox.messages
        for chunk in chunks[hook_at + unhook_after :]:
            await client._ps.parse(chunk)
        return [seen + received(client._subs[1]), received(client._subs[2]), received(client._subs[3])]

    async def compare() -> None:
        assert await parse(True) == await parse(False)

    asyncio.run(compare())


@bounded
async def test_takes_over_behind_a_half_read_message() -> None:
    client, inbox = offline_client(), Inbox()
    await client._ps.parse(b"MSG a 2 5\r\nhel")
    _BurstParser.of(client).add(1, inbox)
    await client._ps.parse(b"lo\r\nMSG b 1 1\r\nx\r\n")
    assert [m.data for m in received(client._subs[2])] == [b"hello"]
    assert [m.data for m in inbox.messages] == [b"x"]


def offline_client() -> Client:
    client = Client()
    client._flush_queue = asyncio.Queue()
    for sid in (1, 2, 3):
        client._subs[sid] = Subscription(client, sid, "x")
    return client


def received(subscription: Subscription) -> list[Incoming]:
    queue, messages = subscription._pending_queue, []
    while not queue.empty():
        m = queue.get_nowait()
        messages.append(Incoming(m.subject.encode(), m.reply.encode(), m.data, encode_headers(m.headers)))
    return messages
