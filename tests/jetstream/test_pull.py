from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from streamflow._jetstream.admin import ensure_consumer, request
from streamflow._jetstream.connection import close
from streamflow._jetstream.protocol import Incoming, decode_headers, parse_reply
from streamflow._jetstream.pull import ConsumerGoneError, PullSubscription
from streamflow._jetstream.settings import ConsumerSettings
from streamflow._jetstream.wire import Wire
from streamflow.errors import ConfigurationError, ConnectorError
from streamflow.testing.server import NatsServer
from tests.jetstream.support import (
    add,
    bounded,
    connected,
    filled,
    frozen,
    numbers,
    read_all,
    unacknowledged,
    until,
)

Wired = Callable[[Client], Wire]


async def delivered(client: Client) -> int:
    return int((await request(client, "CONSUMER.INFO.S.C"))["delivered"]["consumer_seq"])


async def open_requests(client: Client) -> int:
    return int((await request(client, "CONSUMER.INFO.S.C"))["num_waiting"])


@bounded
async def test_reads_in_order_and_acknowledges(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(5000))
        pull = await PullSubscription.open(client, "S", "C", window=500, wire=wired(client))
        messages = await read_all(pull, 5000)
        assert [m.data for m in messages] == numbers(5000)
        assert {m.subject for m in messages} == {b"s.a"}
        assert [parse_reply(m.reply).stream_sequence for m in messages] == list(range(1, 5001))
        await until(lambda: unacknowledged(client), 0)
        assert await pull.close() == []


@bounded
async def test_headers_and_delivery_come_along(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        await client.publish("s.x", b"hello", headers={"A": "é", "Nats-Msg-Id": "1"})
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        (message,) = await pull.read()
        assert (message.subject, message.data) == (b"s.x", b"hello")
        assert decode_headers(message.header) == {"A": "é", "Nats-Msg-Id": "1"}
        delivery = parse_reply(message.reply)
        assert delivery[:3] == (1, 1, 1)
        assert delivery.pending == 0
        assert abs(delivery.timestamp_ns / 1e9 - message_time(await request(client, "STREAM.INFO.S"))) < 1
        await pull.close()


def message_time(info: dict[str, dict[str, str]]) -> float:
    from datetime import datetime

    text = info["state"]["last_ts"]
    return datetime.fromisoformat(text[:19] + "+00:00").timestamp()


@bounded
async def test_hands_out_at_most_what_is_asked_for(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        bursts: list[list[Incoming]] = []
        while sum(len(burst) for burst in bursts) < 100:
            bursts.append(await pull.read(7))
        assert max(len(burst) for burst in bursts) <= 7
        assert [m.data for burst in bursts for m in burst] == numbers(100)
        await pull.close()


# --- credit ---


@bounded
async def test_the_window_bounds_what_is_sent(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(1000))
        pull = await PullSubscription.open(client, "S", "C", window=100, wire=wired(client))
        await pull.read(1)
        await until(lambda: delivered(client), 100)
        read = 1
        while read < 400:
            read += len(await pull.read(10))
            await client.flush()
            assert await delivered(client) <= read + 100
            assert pull.buffered <= 100
        await pull.close()


@bounded
async def test_bytes_bound_what_is_sent(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(50) + [b"x" * 50_000] * 100 + numbers(50))
        pull = await PullSubscription.open(client, "S", "C", max_bytes=1_000_000, wire=wired(client))
        most, read = 0, 0
        while read < 200:
            read += len(await pull.read(3))
            await client.flush()
            most = max(most, sum(len(m.data) for m in pull._inbox.messages))
        assert most <= 1_000_000
        assert most > 300_000  # it does use what it may
        await pull.close()


@bounded
async def test_a_message_larger_than_all_bytes_still_comes(server: NatsServer, wired: Wired) -> None:
    payloads = [*numbers(3), b"x" * 300_000, *numbers(3)]
    async with connected(server.url) as client:
        await filled(client, payloads)
        pull = await PullSubscription.open(client, "S", "C", max_bytes=100_000, wire=wired(client))
        assert [m.data for m in await read_all(pull, 7)] == payloads
        await pull.close()


@bounded
async def test_asks_again_when_a_request_has_expired(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        requests: asyncio.Queue[Msg] = asyncio.Queue()
        await client.subscribe("$JS.API.CONSUMER.MSG.NEXT.S.C", cb=requests.put)
        pull = await PullSubscription.open(
            client, "S", "C", window=10, expires=0.3, idle_heartbeat=0.1, wire=wired(client)
        )
        reading = asyncio.create_task(pull.read())
        asked = [json.loads((await requests.get()).data) for _ in range(3)]
        assert [body["batch"] for body in asked] == [10, 10, 10]
        await add(client, [b"x"])
        assert [m.data for m in await reading] == [b"x"]
        assert pull._generation == 0  # the server has said what was left of them: none counts as lost
        await pull.close()


@bounded
async def test_a_consumers_limit_on_requests_is_kept(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        config = {"durable_name": "L", "ack_policy": "explicit", "max_batch": 10}
        await request(client, "CONSUMER.CREATE.S.L", {"stream_name": "S", "config": config})
        pull = await PullSubscription.open(client, "S", "L", wire=wired(client))
        assert [m.data for m in await read_all(pull, 100)] == numbers(100)
        await pull.close()


def test_heartbeats_must_fit() -> None:
    @bounded
    async def run() -> None:
        with pytest.raises(ConfigurationError, match="idle_heartbeat"):
            await PullSubscription.open(Client(), "S", "C", expires=1, idle_heartbeat=0.5)

    run()


# --- reading ---


@bounded
async def test_caught_up(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        assert not pull.caught_up
        await pull.read(1)
        while pull.buffered < 9:
            await asyncio.sleep(0.01)
        assert not pull.caught_up
        await read_all(pull, 9)
        assert pull.caught_up
        await add(client, numbers(5))
        assert (await pull.read(1))[0].data == b"0"
        await read_all(pull, 4)
        assert pull.caught_up
        await pull.close()
        empty = await PullSubscription.open(client, "S", "C", pending=0, wire=wired(client))
        assert empty.caught_up
        await empty.close()


@bounded
async def test_cancelling_a_read_loses_nothing(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        pull = await PullSubscription.open(client, "S", "C", window=64, wire=wired(client))
        feeding = asyncio.create_task(feed(client, 2000))
        read: list[bytes] = []
        cancelled = 0
        while len(read) < 2000:
            reading = asyncio.create_task(pull.read(50))
            for _ in range(len(read) % 7):
                await asyncio.sleep(0)
            reading.cancel()
            try:
                read += [m.data for m in await reading]
            except asyncio.CancelledError:
                cancelled += 1
                async with asyncio.timeout(5):
                    read += [m.data for m in await pull.read(1)]
        await feeding
        assert read == numbers(2000)
        assert cancelled > 10
        await pull.close()


async def feed(client: Client, count: int) -> None:
    for number, payload in enumerate(numbers(count)):
        await client.publish("s.a", payload)
        if number % 10 == 0:
            await asyncio.sleep(0)


@bounded
async def test_two_share_a_consumer(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as one, connected(server.url) as two:
        await filled(one, numbers(1000))
        seen: list[bytes] = []

        async def work(client: Client) -> None:
            pull = await PullSubscription.open(client, "S", "C", window=20, wire=wired(client))
            while True:
                burst = await pull.read(10)
                seen.extend(m.data for m in burst)
                await pull.ack_many([m.reply for m in burst])

        workers = [asyncio.create_task(work(client)) for client in (one, two)]
        while len(seen) < 1000:
            await asyncio.sleep(0.01)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        assert sorted(map(int, seen)) == list(range(1000))


# --- the other answers ---


@bounded
async def test_nak_brings_a_message_back(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(3))
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        messages = await read_all(pull, 3, ack=False)
        await pull.nak_many([m.reply for m in messages[:2]])
        again = await read_all(pull, 2, ack=False)
        assert [m.data for m in again] == [b"0", b"1"]
        assert [parse_reply(m.reply).deliveries for m in again] == [2, 2]
        loop = asyncio.get_running_loop()
        began = loop.time()
        await pull.nak_many([again[0].reply], delay=0.3)
        (third,) = await pull.read()
        assert (third.data, parse_reply(third.reply).deliveries) == (b"0", 3)
        assert loop.time() - began >= 0.25
        await pull.close()


@bounded
async def test_term_with_a_reason(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(2))
        told: asyncio.Queue[Msg] = asyncio.Queue()
        await client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.C", cb=told.put)
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        messages = await read_all(pull, 2, ack=False)
        await pull.term_many([messages[0].reply], "not a number")
        advisory = json.loads((await told.get()).data)
        assert (advisory["stream_seq"], advisory["reason"]) == (1, "not a number")
        await pull.term_many([messages[1].reply])
        await until(lambda: unacknowledged(client), 0)
        await pull.close()


@bounded
async def test_in_progress_puts_the_redelivery_off(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        await ensure_consumer(client, "S", ConsumerSettings("W", ack_wait=timedelta(seconds=1)))
        pull = await PullSubscription.open(client, "S", "W", wire=wired(client))
        await add(client, [b"slow", b"dropped"])
        slow, _ = await read_all(pull, 2, ack=False)
        redelivered = asyncio.create_task(pull.read())
        while not redelivered.done():  # the one that nobody holds comes back, the other does not
            await pull.in_progress_many([slow.reply])
            await asyncio.wait([redelivered], timeout=0.1)
        assert [m.data for m in redelivered.result()] == [b"dropped"]
        await pull.close()


@bounded
async def test_close_returns_what_was_not_read(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        pull = await PullSubscription.open(client, "S", "C", window=60, wire=wired(client))
        first = await pull.read(10)
        unread = await pull.close()
        await pull.ack_many([m.reply for m in first])
        await pull.nak_many([m.reply for m in unread])
        assert len(unread) >= 1
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        rest = await read_all(pull, 90)
        assert sorted(int(m.data) for m in [*first, *rest]) == list(range(100))
        await pull.close()


# --- what goes wrong ---


@bounded
async def test_survives_restarts_of_the_server(server: NatsServer, wired: Wired) -> None:
    """Every message arrives, in spite of two restarts, one of them a kill, while it reads and acknowledges."""
    async with connected(server.url) as client, connected(server.url) as writer:
        await filled(client, numbers(20_000))
        pull = await PullSubscription.open(client, "S", "C", window=200, wire=wired(client))
        seen: set[bytes] = set()
        for end, goal in ((server.stop, 5_000), (server.kill, 10_000), (None, 20_000)):
            while len(seen) < goal:
                burst = await pull.read(100)
                seen.update(m.data for m in burst)
                await pull.ack_many([m.reply for m in burst])
            if end is not None:
                end()
                server.start()
        assert seen == set(numbers(20_000))
        await add(writer, [b"and on"])
        while b"and on" not in seen:
            seen.update(m.data for m in await pull.read())
        await pull.close()


@bounded
async def test_waits_through_an_outage(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        reading = asyncio.create_task(pull.read())
        await until(lambda: open_requests(client), 1)
        server.kill()
        while client.is_connected:
            await asyncio.sleep(0.01)
        server.start()
        async with asyncio.timeout(5):  # at once, not when heartbeats are missed
            await until(lambda: open_requests(client), 1)  # it has asked the new server
        await add(client, [b"x"])
        assert [m.data for m in await reading] == [b"x"]
        await pull.close()


@pytest.mark.skipif(sys.platform != "linux", reason="stops the server and looks whether it has stopped")
@bounded
async def test_missed_heartbeats_mean_ask_again(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        pull = await PullSubscription.open(
            client, "S", "C", window=10, expires=10, idle_heartbeat=0.1, wire=wired(client)
        )
        reading = asyncio.create_task(pull.read())
        await until(lambda: open_requests(client), 1)
        with frozen(server):
            while pull._generation == 0:
                await asyncio.sleep(0.01)
        await add(client, [b"x"])
        assert [m.data for m in await reading] == [b"x"]
        await pull.close()


@bounded
async def test_a_deleted_consumer_is_an_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        reading = asyncio.create_task(pull.read())
        await until(lambda: open_requests(client), 1)
        await request(client, "CONSUMER.DELETE.S.C")
        with pytest.raises(ConsumerGoneError, match="consumer 'C' of stream 'S' was deleted"):
            await reading
        with pytest.raises(ConsumerGoneError):
            await pull.read()
        await pull.close()


@bounded
async def test_what_arrived_before_an_error_is_read_first(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        await pull.read(1)
        await request(client, "CONSUMER.DELETE.S.C")
        await client.flush()
        assert [m.data for m in await pull.read()] == numbers(9, 1)
        with pytest.raises(ConsumerGoneError):
            await pull.read()
        await pull.close()


@bounded
async def test_a_deleted_stream_is_an_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        reading = asyncio.create_task(pull.read())
        await until(lambda: open_requests(client), 1)
        await request(client, "STREAM.DELETE.S")
        with pytest.raises(ConsumerGoneError, match="^stream 'S' was deleted"):
            await reading
        await pull.close()


@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill])
@bounded
async def test_a_consumer_that_is_gone_after_a_restart_is_an_error(
    server: NatsServer, wired: Wired, end: Callable[[NatsServer], None]
) -> None:
    async with connected(server.url) as client:
        await filled(client, [], storage="memory")  # does not survive
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        reading = asyncio.create_task(pull.read())
        await until(lambda: open_requests(client), 1)
        end(server)
        server.start()
        with pytest.raises(ConsumerGoneError, match="deleted"):
            await reading
        await pull.close()


@bounded
async def test_a_consumer_that_was_made_anew_is_read_on(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        (await asyncio.wait([asyncio.create_task(pull.read())], timeout=0.05))[1].pop().cancel()
        await request(client, "CONSUMER.DELETE.S.C")
        await ensure_consumer(client, "S", ConsumerSettings("C"))
        await add(client, [b"x"])
        assert [m.data for m in await pull.read()] == [b"x"]
        await pull.close()


@bounded
async def test_a_push_consumer_is_an_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        config = {"durable_name": "P", "ack_policy": "explicit", "deliver_subject": "out"}
        await request(client, "CONSUMER.DURABLE.CREATE.S.P", {"stream_name": "S", "config": config})
        pull = await PullSubscription.open(client, "S", "P", wire=wired(client))
        with pytest.raises(ConnectorError, match="push"):
            await pull.read()
        await pull.close()


@bounded
async def test_a_missing_permission_is_an_error(wired: Wired) -> None:
    users = """
      { user: admin, password: p },
      { user: reader, password: p, permissions { publish { deny: "$JS.API.CONSUMER.MSG.NEXT.>" } } }
    """
    with NatsServer(config=f"authorization {{ users: [{users}] }}") as server:
        async with connected(server.url, user="admin", password="p") as client:
            await filled(client, numbers(1))
        async with connected(server.url, user="reader", password="p") as client:
            pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
            async with asyncio.timeout(3):
                with pytest.raises(ConnectorError, match="credentials do not allow"):
                    await pull.read()
            await pull.close()


@bounded
async def test_a_closed_connection_is_an_error(server: NatsServer, wired: Wired) -> None:
    async with connected(server.url) as client:
        await filled(client, [])
        pull = await PullSubscription.open(client, "S", "C", wire=wired(client))
        reading = asyncio.create_task(pull.read())
        await until(lambda: open_requests(client), 1)
        await close(client)
        with pytest.raises(ConnectorError, match="closed"):
            await reading
        await pull.close()
