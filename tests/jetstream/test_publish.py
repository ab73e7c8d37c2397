from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from streamflow._jetstream.admin import ensure_stream, request
from streamflow._jetstream.connection import close
from streamflow._jetstream.publish import Item, Publisher, PublishError
from streamflow._jetstream.settings import StreamSettings
from streamflow._jetstream.wire import Wire
from streamflow.errors import ConnectorError
from streamflow.testing.server import NatsServer
from tests.jetstream.support import bounded, connected, contents, frozen, numbers, stored, until

Wired = Callable[[Client], Wire]

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="stops the server and looks whether it has stopped"
)


def items(payloads: list[bytes], *, run: str | None = "run", subject: str = "s.a") -> list[Item]:
    """To publish, with ids made of ``run`` and a number; the number is the token, too."""
    return [
        (subject, payload, None, None if run is None else f"{run}.{number}", number)
        for number, payload in enumerate(payloads)
    ]


@bounded
async def test_all_is_stored_in_order_and_confirmed(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        tokens: list[Any] = []
        publisher = await Publisher.open(client, window=300, on_confirm=tokens.extend, wire=wired(client))
        for start in range(0, 5000, 1000):
            await publisher.publish_many(items(numbers(5000))[start : start + 1000])
        await publisher.flush()
        assert publisher.pending == 0
        assert sorted(tokens) == list(range(5000))
        assert (publisher.confirmed, publisher.duplicates) == (5000, 0)
        assert await contents(client) == numbers(5000)
        await publisher.aclose()


@bounded
async def test_headers_and_ids_are_stored(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, wire=wired(client))
        shapes: list[Item] = [
            ("s.a", b"x", {"A": "é"}, "1", None),
            ("s.b", b"", {"A": "b"}, None, None),
            ("s.c", b"y", None, "2", None),
            ("s.d", b"z", None, None, None),
        ]
        await publisher.publish_many(shapes)
        await publisher.flush()
        js = client.jetstream()
        stored = [await js.get_msg("S", seq=seq, direct=False) for seq in range(1, 5)]
        assert [(m.subject, m.data) for m in stored] == [
            ("s.a", b"x"),
            ("s.b", None),
            ("s.c", b"y"),
            ("s.d", b"z"),
        ]
        assert [m.headers and m.headers.get("Nats-Msg-Id") for m in stored] == ["1", None, "2", None]
        assert stored[1].headers == {"A": "b"}
        await publisher.aclose()


@bounded
async def test_repeats_are_dropped_by_id_and_equal_payloads_are_not(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, wire=wired(client))
        await publisher.publish_many(items([b"same", b"same"]))
        await publisher.publish_many(items([b"same", b"same"]))
        await publisher.publish_many(items([b"no id", b"no id"], run=None))
        await publisher.flush()
        assert await contents(client) == [b"same", b"same", b"no id", b"no id"]
        assert (publisher.confirmed, publisher.duplicates) == (6, 2)
        await publisher.aclose()


@bounded
async def test_nothing_to_publish(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        publisher = await Publisher.open(client, wire=wired(client))
        await publisher.publish_many([])
        await publisher.flush()
        await publisher.aclose()


# --- the window ---


@linux
@bounded
async def test_the_window_bounds_what_is_under_way(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, window=10, wire=wired(client))
        with frozen(server):
            publishing = asyncio.create_task(publisher.publish_many(items(numbers(35))))
            while publisher.pending < 10:
                await asyncio.sleep(0)
            await asyncio.wait([publishing], timeout=0.1)
            assert not publishing.done()
            assert publisher.pending == 10
        await publishing
        await publisher.flush()
        assert await contents(client) == numbers(35)
        await publisher.aclose()


@linux
@bounded
async def test_bytes_bound_what_is_under_way(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, window_bytes=100_000, wire=wired(client))
        payloads = [b"x" * 30_000, b"y" * 30_000, b"z" * 60_000, b"big" * 100_000, b"1", b"2"]
        with frozen(server):
            publishing = asyncio.create_task(publisher.publish_many(items(payloads)))
            await asyncio.wait([publishing], timeout=0.1)
            assert not publishing.done()
            assert publisher.pending == 3
        await publishing
        await publisher.flush()
        assert await contents(client) == payloads
        await publisher.aclose()


@linux
@bounded
async def test_a_cancelled_publish_leaves_the_publisher_usable(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, window=10, wire=wired(client))
        with frozen(server):
            publishing = asyncio.create_task(publisher.publish_many(items(numbers(35))))
            await asyncio.wait([publishing], timeout=0.1)
            publishing.cancel()
            await asyncio.wait([publishing])
            assert publishing.cancelled()
        await publisher.publish_many(items(numbers(35)))
        await publisher.flush()
        assert await contents(client) == numbers(35)
        assert publisher.duplicates == 10
        await publisher.aclose()


# --- errors ---


@bounded
async def test_a_full_stream_refuses_by_name(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>", max_messages=2, discard="new"))
        tokens: list[Any] = []
        publisher = await Publisher.open(client, on_confirm=tokens.extend, wire=wired(client))
        await publisher.publish_many(items(numbers(3)))
        with pytest.raises(PublishError, match="'s.a': maximum messages exceeded") as failure:
            await publisher.flush()
        assert (failure.value.token, failure.value.subject, failure.value.err_code) == (2, "s.a", 10077)
        assert (tokens, publisher.pending) == ([0, 1], 0)
        await publisher.flush()  # it is told once
        await publisher.aclose()


@bounded
async def test_what_on_reject_deals_with_is_not_raised(server: NatsServer, wired: Wired) -> None:
    rejected: list[tuple[Any, int | None]] = []

    def absorb(token: Any, error: PublishError) -> bool:
        rejected.append((token, error.err_code))
        return True

    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>", max_messages=2, discard="new"))
        publisher = await Publisher.open(client, on_reject=absorb, wire=wired(client))
        await publisher.publish_many(items(numbers(4)))
        await publisher.flush()
        assert rejected == [(2, 10077), (3, 10077)]
        await publisher.aclose()


@bounded
async def test_an_expectation_that_fails_is_an_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, wire=wired(client))
        await publisher.publish_many([("s.a", b"x", {"Nats-Expected-Stream": "OTHER"}, "1", "token")])
        with pytest.raises(PublishError, match="expected stream does not match") as failure:
            await publisher.flush()
        assert failure.value.err_code == 10060
        await publisher.aclose()


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (("s.a", b"x" * 2000, None, None, "bad"), r"2000 bytes.*takes 1024 \(max_payload\)"),
        (("s.a", b"x" * 1000, None, "a long id", "bad"), "max_payload"),
        (("s..a", b"x", None, None, "bad"), "not a subject"),
        (("s.a b", b"x", None, None, "bad"), "not a subject"),
        (("s.*", b"x", None, None, "bad"), "not a subject"),
        (("s.a", b"x", None, "1\r\n", "bad"), "not a value"),
        (("s.a", b"x", {"A": "1\nB: 2"}, None, "bad"), "not a value"),
        (("s.a", b"x", {"A B": "1"}, None, "bad"), "not a header name"),
    ],
)
@bounded
async def test_a_message_that_cannot_be_sent_does_not_stop_the_others(
    wired: Wired, item: Item, reason: str
) -> None:
    with NatsServer(config="max_payload: 1024") as server:
        async with connected(server.url) as client:
            await ensure_stream(client, "S", StreamSettings("s.>"))
            publisher = await Publisher.open(client, wire=wired(client))
            good = items([b"before", b"after"])
            with pytest.raises(PublishError, match=reason) as failure:
                await publisher.publish_many([good[0], item, good[1]])
            assert failure.value.token == "bad"
            await publisher.flush()
            assert await contents(client) == [b"before", b"after"]
            await publisher.aclose()


@bounded
async def test_several_errors_are_counted(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        publisher = await Publisher.open(client, wire=wired(client))
        with pytest.raises(PublishError) as failure:
            await publisher.publish_many(items(numbers(3), subject="not a subject"))
        assert "2 more messages were rejected" in failure.value.__notes__[0]
        await publisher.aclose()


@bounded
async def test_a_subject_without_stream_is_retried_and_then_an_error(
    server: NatsServer, wired: Wired
) -> None:
    async with connected(server.url) as client:
        publisher = await Publisher.open(client, timeout=0.6, wire=wired(client))
        await publisher.publish_many(items([b"x"]))
        with pytest.raises(PublishError, match=r"not confirmed within 0.6 s: no stream takes this subject"):
            await publisher.flush()
        await publisher.aclose()
        publisher = await Publisher.open(client, ack_timeout=25, wire=wired(client))
        await publisher.publish_many(items([b"x", b"y"]))
        await client.flush()  # the server has said that nobody takes it
        await ensure_stream(client, "S", StreamSettings("s.>"))
        await publisher.flush()
        assert await contents(client) == [b"x", b"y"]
        await publisher.aclose()


@bounded
async def test_an_answer_of_somebody_else_is_an_error(server: NatsServer, wired: Wired) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b"hello")

    async with connected(server.url) as client:
        await client.subscribe("s.a", cb=answer)
        publisher = await Publisher.open(client, wire=wired(client))
        await publisher.publish_many(items([b"x"]))
        with pytest.raises(PublishError, match="something that is not JetStream answered: b'hello'"):
            await publisher.flush()
        await publisher.aclose()


@bounded
async def test_a_stream_may_be_called_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "error", StreamSettings("s.>"))
        tokens: list[Any] = []
        publisher = await Publisher.open(client, on_confirm=tokens.extend, wire=wired(client))
        await publisher.publish_many(items([b"x"]))
        await publisher.flush()
        assert tokens == [0]
        await publisher.aclose()


@bounded
async def test_a_missing_permission_is_an_error_at_once(wired: Wired) -> None:
    user = '{ user: u, password: p, permissions { publish { deny: ["s.secret"] } } }'
    with NatsServer(config=f"authorization {{ users: [{user}] }}") as server:
        async with connected(server.url, user="u", password="p") as client:
            await ensure_stream(client, "S", StreamSettings("s.>"))
            publisher = await Publisher.open(client, wire=wired(client))
            await publisher.publish_many(
                [("s.secret", b"x", None, "1", "refused"), ("s.a", b"y", None, "2", "fine")]
            )
            async with asyncio.timeout(3):
                with pytest.raises(PublishError, match="credentials do not allow it") as failure:
                    await publisher.flush()
            assert failure.value.token == "refused"
            await publisher.flush()
            assert await contents(client) == [b"y"]
            await publisher.aclose()


@bounded
async def test_a_callback_that_raises_is_reported(server: NatsServer, wired: Wired) -> None:
    def broken(tokens: list[Any]) -> None:
        raise ZeroDivisionError

    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, on_confirm=broken, wire=wired(client))
        await publisher.publish_many(items([b"x"]))
        with pytest.raises(ZeroDivisionError):
            await publisher.flush()
        assert await stored(client) == 1  # the client still works
        await publisher.aclose()


# --- lost connections ---


@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill])
@bounded
async def test_a_restart_loses_and_doubles_nothing(
    server: NatsServer, wired: Wired, end: Callable[[NatsServer], None]
) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        tokens: list[Any] = []
        publisher = await Publisher.open(
            client, window=500, ack_timeout=25, on_confirm=tokens.extend, wire=wired(client)
        )
        ended, all_items = 0, items(numbers(20_000))
        for start in range(0, 20_000, 100):
            await publisher.publish_many(all_items[start : start + 100])
            if start in (5000, 12_000):
                assert publisher.pending > 0
                end(server)
                server.start()
                ended += 1
        await publisher.flush()
        assert ended == 2
        assert sorted(tokens) == list(range(20_000))
        assert sorted(map(int, await contents(client))) == list(range(20_000))
        await publisher.aclose()


@bounded
async def test_what_is_published_during_an_outage_is_stored_after_it(
    server: NatsServer, wired: Wired
) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, window=100, wire=wired(client))
        server.kill()
        while client.is_connected:
            await asyncio.sleep(0.01)
        publishing = asyncio.create_task(publisher.publish_many(items(numbers(250), run=None)))
        while publisher.pending < 100:
            await asyncio.sleep(0.01)
        server.start()
        await publishing
        await publisher.flush()
        assert await contents(client) == numbers(250)
        await publisher.aclose()


@bounded
async def test_an_outage_longer_than_the_deadline_is_an_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publisher = await Publisher.open(client, timeout=0.5, window=10, wire=wired(client))
        server.kill()
        while client.is_connected:
            await asyncio.sleep(0.01)
        with pytest.raises(PublishError, match=r"not confirmed within 0.5 s: not connected"):
            await publisher.publish_many(items(numbers(20)))
        server.start()
        await publisher.aclose()


@linux
@bounded
async def test_without_an_answer_it_is_sent_again(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client, connected(server.url) as other:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        seen: list[bytes] = []

        async def listen(message: Msg) -> None:
            seen.append(message.data)

        await other.subscribe("s.a", cb=listen)
        await other.flush()
        publisher = await Publisher.open(client, ack_timeout=0.2, wire=wired(client))
        with frozen(server):
            await publisher.publish_many(items([b"x"]))
            sent = client.stats["out_msgs"]
            while client.stats["out_msgs"] < sent + 2:
                await asyncio.sleep(0.01)
        await publisher.flush()

        async def copies() -> int:
            return min(len(seen), 3)

        await until(copies, 3)
        assert await contents(client) == [b"x"]
        assert (publisher.pending, publisher.confirmed) == (0, 1)
        await publisher.aclose()


@bounded
async def test_a_closed_connection_is_an_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        publisher = await Publisher.open(client, wire=wired(client))
        await publisher.publish_many(items([b"x"]))  # without a stream, so that it stays pending
        flushing = asyncio.create_task(publisher.flush())
        await asyncio.sleep(0)
        await close(client)
        with pytest.raises(PublishError, match="connection to NATS was closed"):
            await flushing
        with pytest.raises(ConnectorError, match="closed"):
            await publisher.publish_many(items([b"x"]))
        await publisher.aclose()


@bounded
async def test_two_publishers_on_one_client(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        publishers = [await Publisher.open(client, wire=wired(client)) for _ in range(2)]
        await asyncio.gather(
            *(p.publish_many(items(numbers(500), run=f"{i}")) for i, p in enumerate(publishers))
        )
        for publisher in publishers:
            await publisher.flush()
            await publisher.aclose()
        assert [p.confirmed for p in publishers] == [500, 500]
        assert (await request(client, "STREAM.INFO.S"))["state"]["messages"] == 1000
