"""Where the tests of a store run: in memory in virtual time, and on a real server. The same for both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from streamflow.codecs import Json
from streamflow.state import MemoryBucket, ObjectStore, Transaction
from streamflow.testing import NatsServer, VirtualClock
from tests.jetstream.support import DEADLINE
from tests.support import virtual

T = TypeVar("T")

_numbers = itertools.count()


class Lab(Protocol):
    """Runs a test and opens stores for it; stores opened with the same name share a bucket."""

    def run(self, test: Callable[[], Coroutine[Any, Any, T]]) -> T: ...

    async def open(self, name: str = "b", **options: Any) -> ObjectStore[Any]: ...


class MemoryLab:
    def __init__(self) -> None:
        self._buckets: dict[str, MemoryBucket] = {}

    def run(self, test: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return virtual(test())

    async def open(self, name: str = "b", **options: Any) -> ObjectStore[Any]:
        settings = {key: options.pop(key) for key in ("history", "ttl") if key in options}
        if name not in self._buckets:
            self._buckets[name] = MemoryBucket(name, clock=VirtualClock(1000.0), **settings)
        return await ObjectStore.open(self._buckets[name], **{"codec": Json(), **options})


class ServerLab:
    """Buckets of a name that no other test uses."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.prefix = f"test{next(_numbers)}-"

    def run(self, test: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(DEADLINE):
                result = await test()
                while left := asyncio.all_tasks() - {asyncio.current_task()}:  # what was cancelled ends now
                    await asyncio.wait(left, timeout=0.05)
                    assert all(task.done() for task in left), f"tasks left behind: {left}"
                return result

        return asyncio.run(bounded())

    async def open(self, name: str = "b", **options: Any) -> ObjectStore[Any]:
        settings = {"codec": Json(), "servers": self.server.url, **options}
        return await ObjectStore.open(self.prefix + name, **settings)


def plus(amount: int) -> Callable[[Any], Any]:
    return lambda value: (value or 0) + amount


async def within(store: ObjectStore[Any], work: Callable[[Transaction[Any]], Awaitable[None]]) -> None:
    async with store.transaction() as tx:
        await work(tx)


async def eventually(look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Look again until it is as expected; the test's deadline ends the wait."""
    while await look() != expected:
        await asyncio.sleep(0.05)
