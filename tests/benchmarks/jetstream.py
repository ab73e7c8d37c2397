"""What the JetStream rows need from the server: a stream to read, a stream to write, and proof that it happened."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from attrs import frozen

from tests.benchmarks.work import BODY, expect

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

_DEADLINE_SECONDS = 30.0
_numbers = itertools.count()


@frozen
class Topic:
    """A stream with one subject, on the server at `url`."""

    url: str
    stream: str
    subject: str


@contextmanager
def topic(url: str, messages: int = 0, body: Callable[[int], bytes] = lambda number: BODY) -> Iterator[Topic]:
    """A new stream (file storage, the server's defaults) that holds `messages` of 100 bytes; deleted at the end."""
    number = next(_numbers)
    made = Topic(url, f"BENCH{number}", f"bench.{number}")
    asyncio.run(_create(made, messages, body))
    try:
        yield made
    finally:
        asyncio.run(_delete(made))


@contextmanager
def empty_bucket(url: str) -> Iterator[str]:
    """The name of a bucket that does not exist; deleted at the end if somebody made it."""
    name = f"bench{next(_numbers)}"

    async def delete() -> None:
        from nats.js.errors import NotFoundError

        async with client(url) as (_, js):
            with suppress(NotFoundError):
                await js.delete_key_value(name)

    try:
        yield name
    finally:
        asyncio.run(delete())


@asynccontextmanager
async def bucket(url: str, keys: Iterable[str]) -> AsyncIterator[str]:
    """A new key-value bucket in which each key is 0; deleted at the end. What `ObjectStore` opens, and nats-py too."""
    from streamflow.codecs import Json
    from streamflow.state import ObjectStore

    name = f"bench{next(_numbers)}"
    async with ObjectStore.open(name, codec=Json(int), servers=url) as store:
        await asyncio.gather(*(store.put(key, 0) for key in keys))
        try:
            yield name
        finally:
            await store.delete_bucket()


def new_durable() -> str:
    """A consumer name that no other measurement uses, so each reads its stream from the start."""
    return f"bench-{next(_numbers)}"


@asynccontextmanager
async def client(url: str, **options: int) -> AsyncIterator[tuple[Client, JetStreamContext]]:
    """A connection of its own, and its JetStream context made with `options`."""
    import nats

    connection = await nats.connect(url)
    try:
        yield connection, connection.jetstream(**options)
    finally:
        await connection.close()


async def expect_stored(topic: Topic, messages: int) -> None:
    """Raise unless the stream comes to hold exactly `messages`."""

    async def stored(js: JetStreamContext) -> int:
        return (await js.stream_info(topic.stream)).state.messages

    await _expect(topic, f"messages in {topic.stream}", stored, messages)


async def expect_acknowledged(topic: Topic, durable: str, messages: int) -> None:
    """Raise unless the server comes to see the first `messages` of the stream acknowledged, without a gap."""

    async def floor(js: JetStreamContext) -> int:
        info = await js.consumer_info(topic.stream, durable)
        # What was read past `messages` does not count against a reader that pulls ahead.
        return min(info.ack_floor.stream_seq if info.ack_floor else 0, messages)

    await _expect(topic, f"messages acknowledged by {durable}", floor, messages)


async def _expect(
    topic: Topic, what: str, look: Callable[[JetStreamContext], Awaitable[int]], wanted: int
) -> None:
    """Look until the server agrees: acknowledgements and core publishes are not confirmed one by one."""
    async with client(topic.url) as (_, js):
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while (seen := await look(js)) != wanted and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
    expect(what, seen, wanted)


async def _create(topic: Topic, messages: int, body: Callable[[int], bytes]) -> None:
    async with client(topic.url) as (connection, js):
        await js.add_stream(name=topic.stream, subjects=[topic.subject])
        for sent in range(messages):
            await connection.publish(topic.subject, body(sent))
            if sent % 1_000 == 999:
                await connection.flush()  # the server keeps up, and no buffer grows
        await connection.flush()
    await expect_stored(topic, messages)


async def _delete(topic: Topic) -> None:
    async with client(topic.url) as (_, js):
        await js.delete_stream(topic.stream)
