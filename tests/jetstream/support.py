"""What the JetStream tests share: a deadline for each, and short ways to fill and look at a stream."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ParamSpec

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from streamflow._jetstream.admin import ensure_consumer, ensure_stream, request
from streamflow._jetstream.connection import close, connect
from streamflow._jetstream.protocol import Incoming
from streamflow._jetstream.pull import PullSubscription
from streamflow._jetstream.settings import ConsumerSettings, StreamSettings
from streamflow.testing.server import NatsServer

P = ParamSpec("P")

DEADLINE = 30.0


def bounded(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an asynchronous test on a loop of its own, within a deadline, and see that it leaves no task behind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            async with asyncio.timeout(DEADLINE):
                await test(*args, **kwargs)
                while left := asyncio.all_tasks() - {asyncio.current_task()}:  # what was cancelled ends now
                    await asyncio.wait(left, timeout=0.05)
                    assert all(task.done() for task in left), f"tasks left behind: {left}"

        asyncio.run(main())

    return run


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Client]:
    client = await connect(url, **options)
    try:
        yield client
    finally:
        await close(client)


async def filled(client: Client, payloads: Iterable[bytes], **settings: Any) -> str:
    """A stream S with these messages on the subject ``s.a``, and a durable consumer C of all of them."""
    await ensure_stream(client, "S", StreamSettings("s.>", **settings))
    await ensure_consumer(client, "S", ConsumerSettings("C"))
    await add(client, payloads)
    return "S"


async def add(client: Client, payloads: Iterable[bytes], subject: str = "s.a") -> None:
    """Publish, and return when they are stored."""
    expected = await stored(client)
    for payload in payloads:
        await client.publish(subject, payload)
        expected += 1
    await client.flush()
    await until(lambda: stored(client), expected)


async def stored(client: Client, stream: str = "S") -> int:
    return int((await request(client, f"STREAM.INFO.{stream}"))["state"]["messages"])


async def contents(client: Client, stream: str = "S") -> list[bytes]:
    """All payloads that the stream holds, read through nats-py's own calls."""
    js = client.jetstream()
    count = await stored(client, stream)
    if not count:
        return []
    subscription = await js.pull_subscribe(
        "", stream=stream, config=ConsumerConfig(ack_policy=AckPolicy.NONE)
    )
    payloads: list[bytes] = []
    while len(payloads) < count:
        payloads += [message.data for message in await subscription.fetch(1000, timeout=5)]
    await subscription.unsubscribe()
    return payloads


async def unacknowledged(client: Client) -> int:
    return int((await request(client, "CONSUMER.INFO.S.C"))["num_ack_pending"])


async def until(look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Look again until it is as expected; the test's deadline ends the wait."""
    while await look() != expected:
        await asyncio.sleep(0.01)


async def read_all(pull: PullSubscription, count: int, *, ack: bool = True) -> list[Incoming]:
    """Read ``count`` messages, or a few more."""
    messages: list[Incoming] = []
    while len(messages) < count:
        burst = await pull.read()
        messages += burst
        if ack:
            await pull.ack_many([message.reply for message in burst])
    return messages


@contextmanager
def frozen(server: NatsServer) -> Iterator[None]:
    """The server does nothing, as if the network were gone, without closing a connection."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        while any(_state(task) != "T" for task in Path(f"/proc/{server.pid}/task").iterdir()):
            pass  # until each of its threads has stopped
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]
