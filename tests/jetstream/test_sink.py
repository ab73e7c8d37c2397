from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from attrs import frozen
from nats.aio.client import Client

from streamflow import ConfigurationError, Pipeline, Skip, Source, StreamflowError
from streamflow._jetstream.admin import request
from streamflow.codecs import Json, Text
from streamflow.connectors import Collect
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.operators import Batch, Filter, FlatMap, Map, MapAsync
from streamflow.testing.server import NatsServer
from tests.jetstream import pipelines
from tests.jetstream.pipelines import Late, add_stream, filled, standing
from tests.jetstream.support import add, bounded, connected, contents, numbers, stored, until


@frozen
class Order:
    customer: str
    total: float


source = partial(pipelines.source, until="end", ack_wait=2.0)


def sink(server: NatsServer, subject: Any = "out.a", **options: Any) -> JetStreamSink[Any]:
    return JetStreamSink("OUT", subject, servers=server.url, create=StreamSettings("out.>"), **options)


async def counted(client: Client) -> Counter[bytes]:
    """What is in the output stream, by content."""
    return Counter(await contents(client, "OUT"))


# What is written


@bounded
async def test_writes_in_order_and_counts(server: NatsServer) -> None:
    async with connected(server.url) as client:
        assert await Source(numbers(10_000)).to(sink(server)).run() == 10_000
        assert await contents(client, "OUT") == numbers(10_000)


@bounded
async def test_subject_payload_and_headers_of_each_element(server: NatsServer) -> None:
    async with connected(server.url) as client:
        orders = [Order("ada", 1.5), Order("bob", 2)]
        to = sink(
            server,
            lambda order: f"out.{order.customer}",
            codec=Json(),
            headers=lambda order: {"N": order.customer},
        )
        assert await Source(orders).to(to).run() == 2
        stored = JetStreamSource(
            "OUT", until="end", codec=Json(Order), with_metadata=True, servers=server.url
        ).to(Collect())
        first, second = await stored.run()
        assert [first.value, second.value] == orders
        assert (first.subject, second.subject) == ("out.ada", "out.bob")
        assert second.headers["N"] == "bob"
        assert first.headers["Nats-Msg-Id"] != second.headers["Nats-Msg-Id"]
        assert await stored_in(client) == 2


async def stored_in(client: Client) -> int:
    return await stored(client, "OUT")


@bounded
async def test_a_small_window_is_enough(server: NatsServer) -> None:
    async with connected(server.url) as client:
        assert await Source(numbers(2000)).to(sink(server, window=7)).run() == 2000
        assert await contents(client, "OUT") == numbers(2000)


@bounded
async def test_writes_at_once_what_comes_slowly(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client)
        async with source(server, until=None).to(sink(server)).start():
            for number in range(3):
                await add(client, [b"%d" % number])
                await until(lambda: stored_in(client), number + 1)


# Message ids: nothing is swallowed that is not a repeat


@bounded
async def test_equal_payloads_both_arrive(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, [b"same", b"same"])
        twice = FlatMap[bytes, bytes](lambda value: [value, value])
        assert await source(server).via(twice).to(sink(server)).run() == 4
        assert await Source([b"same", b"same"]).to(sink(server)).run() == 2
        assert await counted(client) == {b"same": 6}


@bounded
async def test_another_run_over_a_list_arrives_too(server: NatsServer) -> None:
    async with connected(server.url) as client:
        pipeline = Source(numbers(5)).to(sink(server))
        assert [await pipeline.run(), await pipeline.run()] == [5, 5]
        assert await counted(client) == dict.fromkeys(numbers(5), 2)


@bounded
async def test_two_sinks_into_one_stream(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(5))
        items = source(server)
        assert await Pipeline(items.to(sink(server)), items.to(sink(server))).run() == (5, 5)
        assert await counted(client) == dict.fromkeys(numbers(5), 2)


@bounded
async def test_messages_of_a_stream_that_was_made_anew_arrive(server: NatsServer) -> None:
    async with connected(server.url) as client:
        pipeline = source(server).to(sink(server), name="p")
        await filled(client, numbers(5))
        assert await pipeline.run() == 5
        await request(client, "STREAM.DELETE.S")
        await filled(client, numbers(5, 5))
        assert await pipeline.run() == 5
        assert await counted(client) == dict.fromkeys(numbers(10), 1)


@bounded
async def test_messages_read_anew_on_purpose_arrive(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(5))
        await source(server).via(Map(lambda value: b"wrong " + value)).to(sink(server), name="p").run()
        await request(client, "CONSUMER.DELETE.S.C")
        await source(server).via(Map(lambda value: b"right " + value)).to(sink(server), name="p").run()
        assert set(await counted(client)) == {
            b"%b %d" % (word, n) for n in range(5) for word in (b"wrong", b"right")
        }


# Message ids: what a redelivered message becomes is stored once


def outputs(value: bytes) -> list[bytes]:
    """None, some or more of them than a chunk holds."""
    number = int(value)
    return [b"%d/%d" % (number, part) for part in range(2500 if number == 40 else number % 4)]


def derived(stream: Any) -> Any:
    return (
        stream.via(Map(bytes.strip)).via(Filter(lambda value: not value.endswith(b"7"))).via(FlatMap(outputs))
    )


EXPECTED = Counter(out for value in numbers(100) if not value.endswith(b"7") for out in outputs(value))


@pytest.mark.parametrize("between", [None, NatsServer.stop, NatsServer.kill])
@bounded
async def test_a_redelivery_is_not_stored_twice(
    server: NatsServer, between: Callable[[NatsServer], None] | None
) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        items, late = source(server, until=None), Late()
        # The other branch confirms nothing, so that all of it comes again.
        first = Pipeline(derived(items).to(sink(server)), items.to(late), name="p")
        async with first.start() as running:
            await until(lambda: stored_in(client), EXPECTED.total())
            await late.came(100)
            await running.stop()
        if between is not None:
            between(server)
            await server.start_async()
            await until(lambda: reachable(client), True)
        assert (await standing(client))[0] == 0
        second = derived(source(server)).to(sink(server), name="p")
        assert await second.run() == EXPECTED.total()  # confirmed, as repeats
        assert await counted(client) == EXPECTED
        await until(lambda: standing(client), (100, 0, 0))


async def reachable(client: Client) -> bool:
    try:
        await request(client, "STREAM.INFO.S")
    except StreamflowError:
        return False
    return True


@bounded
async def test_what_one_message_became_in_part_is_completed(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        limits: dict[str, Any] = {"max_msgs": 1200, "discard": "new"}
        await add_stream(client, **limits)
        to = JetStreamSink[Any]("OUT", "out.a", servers=server.url)
        pipeline = derived(source(server)).to(to, name="p")
        with pytest.raises(StreamflowError, match="maximum messages exceeded"):
            await pipeline.run()
        assert 0 < await stored_in(client) <= 1200
        wider = {"name": "OUT", "subjects": ["out.>"], **limits, "max_msgs": 10_000}
        await request(client, "STREAM.UPDATE.OUT", wider)
        await pipeline.run()
        assert await counted(client) == EXPECTED


async def later(value: str) -> str:
    return value


@pytest.mark.parametrize("step", [Batch(2), MapAsync(later)], ids=lambda step: type(step).__name__)
@bounded
async def test_behind_other_steps_repeats_arrive_rather_than_nothing(server: NatsServer, step: Any) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(4))
        items, late = source(server, until=None, codec=Text()), Late()

        def build(stream: Any) -> Any:
            return stream.via(step).via(Map(repr)).to(sink(server, codec=Text()), name="p")

        async with Pipeline(build(items), items.to(late), name="p").start() as running:
            await late.came(4)
            wanted = len(numbers(4)) // (2 if isinstance(step, Batch) else 1)
            await until(lambda: stored_in(client), wanted)
            await running.stop()
        await build(source(server, codec=Text())).run()
        assert await stored_in(client) == 2 * wanted


# Nonsense in the description


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subject": 7}, "subject must be"),
        ({"subject": "a", "window": 0}, "window"),
        ({"subject": "a", "timeout": -1}, "timeout"),
        ({"subject": "a", "on_error": "skip"}, "on_error"),
        ({"subject": "a", "servers": "nats://x", "connection": object()}, "not both"),
    ],
)
def test_nonsense_is_refused_when_it_is_written(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        JetStreamSink("S", **options)


@bounded
async def test_a_subject_of_another_stream_is_refused(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await add_stream(client)
        await request(client, "STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["other.>"]})
        values = [b"out.a", b"other.a", b"out.b"]
        sink = JetStreamSink[bytes]("OUT", lambda value: value.decode(), servers=server.url)
        with pytest.raises(StreamflowError, match=r"stream 'OTHER' takes this subject, not 'OUT'"):
            await Source(values).to(sink).run()
        assert await Source(values).to(sink).run(on_error=Skip()) == 2
