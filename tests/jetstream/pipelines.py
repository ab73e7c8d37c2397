"""What the tests of whole pipelines share: sinks that confirm late, looks at consumers, and workers in processes.

``python -m tests.jetstream.pipelines <url> <pace> [end]`` is a worker: it reads stream S through the durable C, one
message in ``pace`` seconds, writes into stream OUT, and prints how many there were when it is at the sequence ``end``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from streamflow import Message, Pipeline, Sink, StreamflowError
from streamflow._jetstream.admin import ensure_stream, request
from streamflow.connectors import Collect
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.operators import Map
from streamflow.testing.server import NatsServer
from tests.jetstream.support import add, connected, until

PROMPT = 15.0
"""Seconds within which a pipeline has to say what is wrong."""

SYSTEM = """
accounts {
  APP { jetstream: enabled, users: [{user: app, password: app}] }
  SYS { users: [{user: sys, password: sys}] }
}
system_account: SYS
no_auth_user: app
"""
"""A server that tells the user ``sys`` who is connected to it."""


class Late(Sink[Any, list[Any]]):
    """Takes everything, and confirms a chunk only when told: a sink whose outside world is slow."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._held: list[Chunk] = []
        self._confirmed = asyncio.Event()

    def confirm(self) -> None:
        """Confirm what was written so far."""
        for chunk in self._held:
            chunk.release()
        self._held.clear()
        self._confirmed.set()

    async def open(self, context: SinkContext) -> Writer[list[Any]]:
        return _LateWriter(self)

    async def came(self, count: int) -> None:
        """Wait until so many values were written."""
        while len(self.values) < count:
            await asyncio.sleep(0.01)

    def hold(self, chunk: Chunk) -> None:
        self.values += chunk.values
        self._held.append(chunk)
        self._confirmed.clear()

    async def empty(self) -> None:
        while self._held:
            await self._confirmed.wait()


class _LateWriter(Writer[list[Any]]):
    def __init__(self, sink: Late) -> None:
        self._sink = sink

    async def write(self, chunk: Chunk) -> None:
        self._sink.hold(chunk)

    async def flush(self) -> None:
        await self._sink.empty()

    def result(self) -> list[Any]:
        return self._sink.values


def source(server: NatsServer, subject: Any = None, **options: Any) -> JetStreamSource[Any]:
    """Stream S through the durable C."""
    settings: dict[str, Any] = {"durable": "C", "servers": server.url} | options
    return JetStreamSource("S", subject, **settings)


async def filled(client: Client, payloads: Iterable[bytes] = (), **settings: Any) -> None:
    """A stream S of ``s.>`` with these messages on ``s.a``."""
    await ensure_stream(client, "S", StreamSettings("s.>", **settings))
    await add(client, payloads)


async def consumer(client: Client, name: str = "C", stream: str = "S") -> dict[str, Any]:
    return await request(client, f"CONSUMER.INFO.{stream}.{name}")


async def standing(client: Client, name: str = "C") -> tuple[int, int, int]:
    """How the durable C of stream S stands: messages acknowledged without a gap, in hand, and still to deliver."""
    info = await consumer(client, name)
    return info["ack_floor"]["stream_seq"], info["num_ack_pending"], info["num_pending"]


async def eventually(look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """`until`, also while the server is away or what is looked at is not there yet."""

    async def patient() -> Any:
        try:
            return await look()
        except StreamflowError:
            return None

    await until(patient, expected)


async def add_stream(client: Client, name: str = "OUT", **settings: Any) -> None:
    """A stream for what comes out: ``out.>``."""
    await request(client, f"STREAM.CREATE.{name}", {"name": name, "subjects": ["out.>"], **settings})


async def deliveries(url: str, **options: Any) -> dict[bytes, int]:
    """Read the rest of stream S through the durable C: how often the server has delivered each message."""
    source = JetStreamSource("S", durable="C", with_metadata=True, until="end", servers=url, **options)
    messages: list[Message[bytes]] = await source.to(Collect()).run()
    assert len({message.value for message in messages}) == len(messages)
    return {message.value: message.deliveries for message in messages}


async def failure(pipeline: Pipeline[Any], *, within: float = PROMPT, **options: Any) -> StreamflowError:
    """Run a pipeline that has to fail, in time, and return what it says."""
    since = time.perf_counter()
    try:
        async with asyncio.timeout(within):
            result = await pipeline.run(**options)
    except StreamflowError as error:
        return error
    except TimeoutError:
        raise AssertionError(f"nothing was said for {time.perf_counter() - since:.0f} s") from None
    raise AssertionError(f"it should have failed, and returned {result!r}")


async def connections(url: str) -> list[dict[str, Any]]:
    """Who is connected to a server with `SYSTEM`, and what they are subscribed to."""
    async with connected(url, user="sys", password="sys", name="watcher") as client:
        ask = json.dumps({"subscriptions": True}).encode()
        answer = await client.request("$SYS.REQ.SERVER.PING.CONNZ", ask, timeout=5)
    found: list[dict[str, Any]] = json.loads(answer.data)["data"]["connections"]
    return [connection for connection in found if connection.get("name") != "watcher"]


async def publish_surely(client: Client, payload: bytes, subject: str = "s.a") -> None:
    """Publish until the stream has confirmed it, under an id by which it drops repeats."""
    headers = {"Nats-Msg-Id": payload.decode()}
    while True:
        try:
            await client.jetstream().publish(subject, payload, timeout=1, headers=headers)
        except (nats.errors.Error, nats.js.errors.Error):
            await asyncio.sleep(0.05)
        else:
            return


@asynccontextmanager
async def publishing(publish: Callable[[int], Any]) -> AsyncIterator[list[int]]:
    """Publish number after number beside the block; the list has those that are stored so far."""
    stored: list[int] = []
    enough = False

    async def work() -> None:
        while not enough:
            await publish(len(stored))
            stored.append(len(stored))

    task = asyncio.create_task(work())
    try:
        yield stored
    finally:
        enough = True  # not cancelled: nats-py's flush would swallow that
        await task


def worker(url: str, pace: float, end: Literal["end"] | int | None = None) -> Pipeline[int]:
    """Writes what it reads from S into OUT, after a while for each message."""

    def slowly(value: bytes) -> bytes:
        time.sleep(pace)
        return value

    items = JetStreamSource("S", durable="C", until=end, ack_wait=2.0, servers=url)
    sink: JetStreamSink[bytes] = JetStreamSink("OUT", "out.a", servers=url, create=StreamSettings("out.>"))
    return items.via(Map(slowly)).to(sink, name="worker")


if __name__ == "__main__":
    print("working", flush=True)
    print(asyncio.run(worker(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:])).run()))
