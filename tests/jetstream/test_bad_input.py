"""What goes wrong is said in time, with the place and the cause, and what was not delivered is not acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from attrs import frozen

from streamflow import ErrorPolicy, Fail, Pipeline, Skip, Source, StepError, StreamflowError
from streamflow._jetstream.admin import request
from streamflow.codecs import Json, Text
from streamflow.connectors import Collect, Discard
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.operators import Map
from streamflow.testing.server import NatsServer
from tests.jetstream import pipelines
from tests.jetstream.pipelines import (
    Late,
    add_stream,
    eventually,
    failure,
    filled,
    standing,
)
from tests.jetstream.support import add, bounded, connected, contents, numbers, stored, until

# A run that fails may end while the server still sends: what it misses comes again after ``ack_wait``.
source = partial(pipelines.source, ack_wait=1.0)
deliveries = partial(pipelines.deliveries, ack_wait=1.0)

NOWHERE = "nats://127.0.0.1:1"


@frozen
class Order:
    total: float


def check(error: StreamflowError, step: str, *causes: str) -> None:
    """The error says where and why, in one line of each."""
    text = str(error)
    assert text.startswith(f"pipeline 'orders', step '{step}': "), text
    for cause in causes:
        assert cause in text
    assert "Traceback" not in text


def read_from(server: NatsServer | str, **options: Any) -> Pipeline[Any]:
    url = server if isinstance(server, str) else server.url
    settings: dict[str, Any] = {"durable": "C", "servers": url, "until": "end", "ack_wait": 1.0} | options
    return JetStreamSource("S", **settings).to(Collect(), name="orders")


def write_to(server: NatsServer | str, subject: Any = "out.a", *values: Any, **options: Any) -> Pipeline[int]:
    url = server if isinstance(server, str) else server.url
    settings: dict[str, Any] = {"servers": url} | options
    sink = JetStreamSink[Any]("OUT", subject, **settings)
    return Source(values or numbers(10)).to(sink, name="orders")


def through(server: NatsServer, *, on_error: ErrorPolicy | None = None, **options: Any) -> Pipeline[int]:
    """From S to OUT."""
    sink = JetStreamSink[Any]("OUT", "out.a", servers=server.url, on_error=on_error)
    return source(server, until="end", **options).to(sink, name="orders")


# No way in


@pytest.mark.parametrize("build", [read_from, write_to])
@bounded
async def test_no_server(build: Callable[..., Pipeline[Any]]) -> None:
    step = "JetStreamSource" if build is read_from else "JetStreamSink"
    check(await failure(build(NOWHERE)), step, NOWHERE, "connection refused")


@bounded
async def test_no_jetstream() -> None:
    with NatsServer(jetstream=False) as server:
        check(await failure(read_from(server)), "JetStreamSource", "JetStream is not enabled")
        check(await failure(write_to(server)), "JetStreamSink", "JetStream is not enabled")


@bounded
async def test_wrong_credentials() -> None:
    with NatsServer(config="authorization { user: ada, password: secret }") as server:
        for user in ("", "ada:wrong@"):
            url = server.url.replace("//", f"//{user}")
            error = await failure(read_from(url))
            check(error, "JetStreamSource", "credentials")
            assert "wrong" not in str(error)
            check(await failure(write_to(url)), "JetStreamSink", "credentials")


PERMISSIONS = """
authorization {{
  users: [
    {{ user: root, password: pw }}
    {{ user: some, password: pw, permissions: {{ publish: {{ deny: {deny} }}, subscribe: ">" }} }}
  ]
}}
"""


@pytest.mark.parametrize(
    ("deny", "step", "cause"),
    [
        (["out.a"], "JetStreamSink", "do not allow"),
        (["$JS.API.STREAM.INFO.OUT"], "JetStreamSink", "do not allow"),
        (["$JS.API.CONSUMER.>"], "JetStreamSource", "do not allow"),
        (["$JS.API.CONSUMER.MSG.NEXT.>"], "JetStreamSource", "do not allow"),
        (["$JS.ACK.>"], "JetStreamSource", "do not allow to acknowledge"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@bounded
async def test_missing_permissions(deny: list[str], step: str, cause: str) -> None:
    with NatsServer(config=PERMISSIONS.format(deny=deny)) as server:
        async with connected(server.url, user="root", password="pw") as client:
            await filled(client, numbers(10))
            await add_stream(client)
            url = server.url.replace("//", "//some:pw@")
            sink = JetStreamSink[bytes]("OUT", "out.a", servers=url)
            items = JetStreamSource("S", durable="C", until="end", ack_wait=1.0, servers=url)
            pipeline = items.to(sink, name="orders")
            check(await failure(pipeline), step, cause)
            if step == "JetStreamSink":
                url = server.url.replace("//", "//root:pw@")
                assert set(await deliveries(url)) == set(numbers(10))


# Streams and consumers that are not as asked for


@bounded
async def test_no_such_stream(server: NatsServer) -> None:
    check(await failure(read_from(server)), "JetStreamSource", "there is no stream 'S'", "create=")
    check(await failure(write_to(server)), "JetStreamSink", "there is no stream 'OUT'", "create=")


@bounded
async def test_a_stream_in_conflict(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, max_messages=100, max_age=timedelta(hours=1), storage="memory")
        create = StreamSettings(["s.>", "t"], max_messages=50, max_age=timedelta(minutes=5), discard="new")
        causes = (
            "subjects",
            "['t']",
            "max_messages: wanted 50, found 100",
            "0:05:00",
            "1:00:00",
            "discard",
            "storage",
        )
        check(await failure(read_from(server, create=create)), "JetStreamSource", *causes)
        sink = JetStreamSink[bytes]("S", "s.a", servers=server.url, create=create)
        check(await failure(Source([b"1"]).to(sink, name="orders")), "JetStreamSink", *causes)
        assert await stored(client) == 0


@bounded
async def test_subjects_of_another_stream(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client)
        error = await failure(write_to(server, "s.a", create=StreamSettings("s.a")))
        check(error, "JetStreamSink", "'OUT'", "another stream", "S")


@bounded
async def test_a_consumer_in_conflict(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(3))
        config = {
            "durable_name": "C",
            "ack_policy": "explicit",
            "deliver_policy": "new",
            "filter_subject": "s.b",
            "ack_wait": 5_000_000_000,
            "max_ack_pending": 10,
        }
        await request(client, "CONSUMER.CREATE.S.C", {"stream_name": "S", "config": config})
        error = await failure(read_from(server, ack_wait=60))
        causes = ("consumer 'C' of stream 'S'", "subjects", "s.b", "deliver: wanted all, found new")
        check(error, "JetStreamSource", *causes, "ack_wait", "0:00:05", "max_ack_pending", "found 10")


@pytest.mark.parametrize("name", ["a.b", "a b", "*"])
@bounded
async def test_impossible_names(server: NatsServer, name: str) -> None:
    async with connected(server.url) as client:
        await filled(client)
        for pipeline in (
            JetStreamSource(name, servers=server.url).to(Collect(), name="orders"),
            JetStreamSource("S", durable=name, servers=server.url).to(Collect(), name="orders"),
            Source([b""]).to(JetStreamSink[bytes](name, "s.a", servers=server.url), name="orders"),
        ):
            assert "is not a name" in str(await failure(pipeline))


# Elements that cannot be processed


@bounded
async def test_a_payload_that_does_not_decode_fails_the_pipeline(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, [b'{"total": 1}', b'{"total": "x"}', b'{"total": 3}'])
        error = await failure(read_from(server, codec=Json(Order)))
        check(error, "JetStreamSource", "CodecError", "total", '{"total": "x"}')
        assert isinstance(error, StepError)
        again = await deliveries(server.url)
        assert again[b'{"total": "x"}'] == 2


@pytest.mark.parametrize("with_metadata", [False, True])
@bounded
async def test_a_payload_that_does_not_decode_is_skipped(server: NatsServer, with_metadata: bool) -> None:
    async with connected(server.url) as client:
        await filled(client, [b'{"total": 1}', b"no", b'{"total": 3}'])
        options: dict[str, Any] = {"codec": Json(Order), "with_metadata": with_metadata, "on_error": Skip()}
        async with read_from(server, **options).start() as running:
            values = await running.wait()
        orders = [value.value for value in values] if with_metadata else values
        assert orders == [Order(1), Order(3)]
        assert running.stats().steps["JetStreamSource"].failed == 1
        await until(lambda: standing(client), (3, 0, 0))


@pytest.mark.parametrize(
    "error", [ValueError("no"), StopIteration(), asyncio.CancelledError(), KeyError("k")], ids=repr
)
@bounded
async def test_a_function_that_raises(server: NatsServer, error: BaseException) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        await add_stream(client)

        def work(value: bytes) -> bytes:
            if value == b"50":
                raise error
            return value

        sink = JetStreamSink[bytes]("OUT", "out.a", servers=server.url)
        pipeline = source(server, until="end").via(Map(work), name="work").to(sink, name="orders")
        check(await failure(pipeline), "work", type(error).__name__, "b'50'")
        again = await deliveries(server.url)
        assert b"50" in again
        assert set(again) | set(await contents(client, "OUT")) == set(numbers(100))


@bounded
async def test_a_function_that_raises_and_a_policy_that_skips(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, [b"1", b"x", b"3"])
        await add_stream(client)
        sink = JetStreamSink[int]("OUT", "out.a", codec=Json(), servers=server.url)
        pipeline = source(server, codec=Text(), until="end").via(Map(int)).to(sink, name="orders")
        assert await pipeline.run(on_error=Skip()) == 2
        await until(lambda: standing(client), (3, 0, 0))


# Elements that the stream does not take


@bounded
async def test_a_payload_beyond_the_servers_limit() -> None:
    with NatsServer(config="max_payload: 1000") as server:
        async with connected(server.url) as client:
            await filled(client, numbers(100))
            await add_stream(client)
            grow = Map[bytes, bytes](lambda value: value * 1000 if value == b"50" else value)
            items = source(server, until="end").via(grow)
            sink = JetStreamSink[bytes]("OUT", "out.a", servers=server.url)
            error = await failure(items.to(sink, name="orders"))
            check(error, "JetStreamSink", "'out.a'", "max_payload", "1000")
            assert (await standing(client))[0] <= 50
            # The same, as a policy wants it. What was stored before is not stored again.
            skipping = JetStreamSink[bytes]("OUT", "out.a", servers=server.url, on_error=Skip())
            async with items.to(skipping, name="orders").start() as running:
                await running.wait()
            assert running.stats().steps["JetStreamSink"].failed == 1
            assert sorted(await contents(client, "OUT"), key=int) == [v for v in numbers(100) if v != b"50"]
            await until(lambda: standing(client), (100, 0, 0))


@pytest.mark.parametrize(
    "subject", [None, 7, ["out.a"], "", "out a", "out.*", "out.>", "out..a", ".a"], ids=repr
)
@bounded
async def test_a_subject_function_that_returns_nonsense(server: NatsServer, subject: Any) -> None:
    async with connected(server.url) as client:
        await add_stream(client)

        def at(value: bytes) -> Any:
            return subject if value == b"5" else "out.a"

        check(await failure(write_to(server, at)), "JetStreamSink", repr(subject), "subject")
        await request(client, "STREAM.PURGE.OUT")
        assert await write_to(server, at, on_error=Skip()).run() == 9
        assert await contents(client, "OUT") == [value for value in numbers(10) if value != b"5"]


@bounded
async def test_functions_of_the_sink_that_raise(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await add_stream(client)
        check(await failure(write_to(server, lambda v: v.nothing)), "JetStreamSink", "AttributeError")
        bad = write_to(server, "out.a", headers=lambda v: {"a b": "c"})
        check(await failure(bad), "JetStreamSink", "'a b' is not a header name")
        worse = write_to(server, "out.a", headers=lambda v: 7)
        check(await failure(worse), "JetStreamSink", "headers", "7")
        check(await failure(write_to(server, "out.a", "text")), "JetStreamSink", "'text'")
        assert await stored(client, "OUT") == 0


@bounded
async def test_a_subject_that_the_stream_does_not_take(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await add_stream(client)
        check(await failure(write_to(server, "in.a")), "JetStreamSink", "'OUT'", "'in.a'", "out.>")
        error = await failure(write_to(server, lambda _: "in.a", timeout=1))
        check(error, "JetStreamSink", "'in.a'", "no stream takes this subject")


@pytest.mark.parametrize("policy", [Fail(), Skip()])
@bounded
async def test_a_stream_that_is_full(server: NatsServer, policy: ErrorPolicy) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        await add_stream(client, max_msgs=60, discard="new")
        pipeline = through(server, on_error=policy)
        if isinstance(policy, Fail):
            check(await failure(pipeline), "JetStreamSink", "maximum messages exceeded")
            again = await deliveries(server.url)
            assert set(again) | set(await contents(client, "OUT")) == set(numbers(100))
            assert len(again) >= 40
        else:
            async with pipeline.start() as running:
                assert await running.wait() == 60
            assert running.stats().steps["JetStreamSink"].failed == 40
            await until(lambda: standing(client), (100, 0, 0))
        assert await contents(client, "OUT") == numbers(60)


# What is taken away while a pipeline runs


@pytest.mark.parametrize("until_end", [None, 100])
@pytest.mark.parametrize(
    ("take", "cause"),
    [
        ("STREAM.DELETE.S", "stream 'S' was deleted"),
        ("CONSUMER.DELETE.S.C", "consumer 'C' of stream 'S' was deleted"),
    ],
)
@bounded
async def test_the_source_is_taken_away(
    server: NatsServer, take: str, cause: str, until_end: int | None
) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        late = Late()
        pipeline = source(server, until=until_end).to(late, name="orders")

        async def take_away() -> None:
            await late.came(10)
            await request(client, take)

        taking = asyncio.create_task(take_away())
        check(await failure(pipeline), "JetStreamSource", cause)
        await taking


@bounded
async def test_the_output_stream_is_taken_away(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        await add_stream(client)
        sink = JetStreamSink[bytes]("OUT", "out.a", servers=server.url, timeout=1)
        pipeline = source(server).to(sink, name="orders")

        async def take_away() -> None:
            await eventually(lambda: standing(client), (10, 0, 0))
            await request(client, "STREAM.DELETE.OUT")
            await add(client, numbers(10, 10))

        taking = asyncio.create_task(take_away())
        check(await failure(pipeline), "JetStreamSink", "'out.a'", "no stream takes this subject")
        await taking
        assert await deliveries(server.url) == dict.fromkeys(numbers(10, 10), 2)


@bounded
async def test_the_users_connection_is_closed_meanwhile(server: NatsServer) -> None:
    async with connected(server.url) as client, connected(server.url) as users:
        await filled(client, numbers(10))
        late = Late()
        pipeline = JetStreamSource("S", durable="C", connection=users).to(late, name="orders")

        async def close() -> None:
            await late.came(10)
            await users.close()

        closing = asyncio.create_task(close())
        check(await failure(pipeline), "JetStreamSource", "closed")
        await closing


@bounded
async def test_a_failure_leaves_the_users_connection_usable(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        for pipeline in (
            JetStreamSource("S", durable="C", connection=client, codec=Json(Order)).to(
                Discard(), name="orders"
            ),
            JetStreamSource("NONE", connection=client).to(Discard(), name="orders"),
            Source([b""]).to(JetStreamSink[bytes]("NONE", "none", connection=client), name="orders"),
            Source([b""]).to(JetStreamSink[bytes]("S", lambda _: "a b", connection=client), name="orders"),
        ):
            await failure(pipeline)
            assert client.is_connected
        assert await JetStreamSource("S", until="end", connection=client).to(Collect()).run() == numbers(10)
        await add(client, [b"usable"])
