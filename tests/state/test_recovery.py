"""A store on a server that goes away, and on a connection that loses answers: each write is applied once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streamflow._jetstream.admin import request
from streamflow._jetstream.pull import PullSubscription
from streamflow._jetstream.wire import PublicWire
from streamflow.codecs import Json
from streamflow.errors import StateError
from streamflow.state import ConflictError, Entry, ObjectStore
from streamflow.state.jetstream import exchange, feed, messages
from streamflow.testing import NatsServer
from tests.jetstream.support import bounded, connected, frozen
from tests.repository import ROOT
from tests.state.proxy import Proxy
from tests.state.support import eventually, plus

Store = ObjectStore[int]


@asynccontextmanager
async def shaky(server: NatsServer, **options: Any) -> AsyncIterator[tuple[Proxy, Store, Store]]:
    """A store behind a proxy, and one with a good connection."""
    async with (
        Proxy(server.url) as proxy,
        ObjectStore.open("b", codec=Json(int), initial=0, servers=proxy.url, **options) as store,
        ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url) as other,
    ):
        yield proxy, store, other


async def consumers(server: NatsServer, stream: str = "KV_b") -> int:
    async with connected(server.url) as client:
        return int((await request(client, f"STREAM.INFO.{stream}"))["state"]["consumer_count"])


# Answers and requests that get lost


@pytest.mark.parametrize("others", [0, 1, 30])
@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
@bounded
async def test_an_update_without_an_answer_is_applied_once(
    server: NatsServer, known: bool, others: int
) -> None:
    async with shaky(server) as (proxy, store, other):
        if known:
            await store.put("k", 100)
        await store.read("k")
        start = 100 if known else 0
        proxy.hold("down")
        calls = [asyncio.ensure_future(store.update("k", plus(1))) for _ in range(3)]
        await eventually(lambda: other.read("k"), start + 3)
        for _ in range(others):
            await other.update("k", plus(10))
        await proxy.cut()
        assert await asyncio.gather(*calls) == [start + 1, start + 2, start + 3]
        assert await other.read("k") == start + 3 + 10 * others
        assert await store.update("k", plus(1)) == start + 4 + 10 * others


@bounded
async def test_an_update_that_got_lost_is_sent_again(server: NatsServer) -> None:
    async with shaky(server) as (proxy, store, other):
        await store.put("k", 1)
        proxy.hold("up")
        call = asyncio.ensure_future(store.update("k", plus(1)))
        await asyncio.sleep(0.05)
        assert await other.update("k", plus(10)) == 11
        await proxy.cut()
        assert await call == 12


@bounded
async def test_an_expected_revision_without_an_answer(server: NatsServer) -> None:
    async with shaky(server) as (proxy, store, other):
        revision = await store.put("k", 1)
        proxy.hold("down")
        put = asyncio.ensure_future(store.put("k", 2, expected_revision=revision))
        await eventually(lambda: other.read("k"), 2)
        await proxy.cut()
        assert await put == (await other.entry("k")).revision

        proxy.hold("down")
        put = asyncio.ensure_future(store.put("k", 3, expected_revision=await put))
        await eventually(lambda: other.read("k"), 3)
        await other.update("k", plus(1))
        await proxy.cut()
        assert await put < (await other.entry("k")).revision  # it was written, and is not the last
        with pytest.raises(ConflictError):
            await store.put("k", 5, expected_revision=await put)

        proxy.hold("up")
        entry = await other.entry("k")
        put = asyncio.ensure_future(store.put("k", 9, expected_revision=entry.revision))
        await asyncio.sleep(0.05)
        await other.put("k", 6)
        await proxy.cut()
        with pytest.raises(ConflictError):
            await put
        assert await other.read("k") == 6


@bounded
async def test_a_put_without_an_answer_does_not_hide_a_later_one(server: NatsServer) -> None:
    async with shaky(server) as (proxy, store, other):
        proxy.hold("down")
        put = asyncio.ensure_future(store.put("k", 1))
        await eventually(lambda: other.read("k"), 1)
        await other.put("k", 2)
        await proxy.cut()
        await put
        assert await other.read("k") == 2


@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("reads", [True, False], ids=["fenced", "blind"])
@bounded
async def test_a_transaction_without_an_answer_is_applied_once(
    server: NatsServer, reads: bool, others: int
) -> None:
    async with shaky(server) as (proxy, store, other):

        async def transact() -> None:
            async with store.transaction() as tx:
                if reads:
                    await tx.update("a", plus(1))
                    await tx.read("c")
                tx.put("b", 1)
                proxy.hold("down")

        call = asyncio.ensure_future(transact())
        await eventually(lambda: other.read("b"), 1)
        for _ in range(others):
            await other.update("a", plus(10))
            await other.update("b", plus(10))
        await proxy.cut()
        await call
        assert await other.read("a") == (1 if reads else 0) + 10 * others
        assert await other.read("b") == 1 + 10 * others


@bounded
async def test_a_transaction_without_an_answer_does_not_hide_a_later_put(server: NatsServer) -> None:
    async with shaky(server) as (proxy, store, other):

        async def transact() -> None:
            async with store.transaction() as tx:
                tx.put("a", 1)
                tx.put("b", 1)
                proxy.hold("down")

        call = asyncio.ensure_future(transact())
        await eventually(lambda: other.read("b"), 1)
        await other.put("a", 2)
        await other.put("b", 2)
        await proxy.cut()
        await call
        assert (await other.read("a"), await other.read("b")) == (2, 2)


@bounded
async def test_a_transaction_that_got_lost(server: NatsServer) -> None:
    async with shaky(server) as (proxy, store, other):

        async def transact() -> None:
            async with store.transaction() as tx:
                await tx.update("a", plus(1))
                tx.put("b", 1)
                proxy.hold("up")

        call = asyncio.ensure_future(transact())
        await asyncio.sleep(0.05)
        await proxy.cut()
        await call
        assert (await other.read("a"), await other.read("b")) == (1, 1)

        call = asyncio.ensure_future(transact())
        await asyncio.sleep(0.05)
        await other.put("a", 50)
        await proxy.cut()
        with pytest.raises(ConflictError):
            await call
        assert await other.read("a") == 50


@bounded
async def test_a_read_without_an_answer_is_asked_again(server: NatsServer) -> None:
    async with shaky(server) as (proxy, store, _):
        await store.put("k", 1)
        proxy.hold("down")
        read = asyncio.ensure_future(store.read("k"))
        await asyncio.sleep(0.05)
        await proxy.cut()
        assert await read == 1


@bounded
async def test_a_server_that_does_not_answer_for_a_while(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "ANSWER_SECONDS", 0.2)
    async with ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url) as store:
        with frozen(server):
            calls = [asyncio.ensure_future(store.update(key, plus(1))) for key in "aab"]
            await asyncio.sleep(1.5)  # the sweep is due each second
        assert await asyncio.gather(*calls) == [1, 2, 1]
        assert (await store.read("a"), await store.read("b")) == (2, 1)


@bounded
async def test_patience_ends(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ANSWER_SECONDS", 0.2)
    async with shaky(server, timeout=0.5) as (proxy, store, other):
        await store.read("k")
        proxy.hold("down")
        call = asyncio.ensure_future(store.update("k", plus(1)))
        await eventually(lambda: other.read("k"), 1)
        with pytest.raises(StateError, match=r"key 'k': not done within 0.5 s.*may or may not have been"):
            await call
        proxy.release()
        assert await store.update("k", plus(1)) == 2


@bounded
async def test_patience_with_a_server_that_is_gone(server: NatsServer) -> None:
    async with ObjectStore.open("b", codec=Json(int), servers=server.url, timeout=0.3) as store:
        await store.put("k", 1)
        server.kill()
        with pytest.raises(StateError, match="not done within"):
            await store.update("k", plus(1))
        with pytest.raises(StateError, match=r"not done within 0.3 s: no connection$"):
            await store.put("k", 1)
        with pytest.raises(StateError, match=r"not done within 0.3 s: no connection$"):
            await store.read("k")


def test_a_writer_finds_itself_behind_others() -> None:
    record: Any = None
    for number in range(1, 5):
        for writer in range(8):
            line = messages.lineage(f"w{writer}={number}", record)
            record = messages.record_of("k", b"", {messages.WRITERS: line}, 1, 0.0)
    assert messages.has_written("w0=4", record)
    assert messages.has_written("w0=3", record)
    assert not messages.has_written("w0=5", record)
    assert not messages.has_written("w=1", record)
    assert len(record.writers.split(",")) == 8


# The server goes away


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "SIGKILL"])
@bounded
async def test_the_server_goes_away_under_updates_and_watches(server: NatsServer, crash: bool) -> None:
    async with (
        ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url) as one,
        ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url) as other,
    ):
        going = True
        counted = 0

        async def count(store: Store, key: str) -> None:
            nonlocal counted
            while going:
                await store.update("n", plus(1))
                await store.update(key, plus(1))
                counted += 1

        last: dict[str, Entry[int]] = {}
        last_revision = 0

        async def follow(changes: AsyncIterator[Entry[int]]) -> None:
            nonlocal last_revision
            async for entry in changes:
                assert entry.revision > last_revision
                last_revision = entry.revision
                last[entry.key] = entry

        changes = other.watch()
        following = asyncio.ensure_future(follow(changes))
        counting = [asyncio.ensure_future(count(s, k)) for s, k in ((one, "a"), (one, "b"), (other, "c"))]
        for _ in range(3):
            before = counted
            while counted < before + 30:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill if crash else server.stop)
            await server.start_async()
        before = counted
        while counted < before + 30:
            await asyncio.sleep(0.01)
        going = False
        await asyncio.gather(*counting)
        assert await one.read("n") == counted
        values = {key: await one.read(key) for key in "abcn"}
        assert values["a"] + values["b"] + values["c"] == counted

        async def followed() -> dict[str, int]:
            return {key: entry.value for key, entry in last.items()}

        await eventually(followed, values)
        await changes.aclose()
        await following
        assert await consumers(server) == 0


@bounded
async def test_a_watch_misses_nothing_when_its_connection_is_lost(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_LOOK_SECONDS", 1000.0)  # it need not ask
    async with shaky(server) as (proxy, store, other):
        await other.put("a", 1)
        async with store.watch() as changes:
            assert [*await changes.snapshot()] == ["a"]
            proxy.hold("down")
            for number in range(5):
                await other.put("b", number)
            await other.put("mortal", 1, ttl=1)
            await other.delete("a")
            await asyncio.sleep(0.1)  # the server believes that all of it was delivered
            await proxy.cut()
            seen: dict[str, tuple[int, str]] = {}
            while len(seen) < 3:
                entry = await anext(changes)
                seen[entry.key] = (entry.value, entry.operation)
            assert seen == {"a": (0, "delete"), "b": (4, "put"), "mortal": (1, "put")}
            assert (await anext(changes)).operation == "expire"
        assert await consumers(server) == 0


@bounded
async def test_a_watch_that_is_cut_off_in_the_middle_of_the_beginning(server: NatsServer) -> None:
    async with shaky(server) as (proxy, store, other):
        await asyncio.gather(*(other.put(f"k{number}", number) for number in range(6000)))
        async with store.watch() as changes:
            first = [await anext(changes) for _ in range(10)]
            await proxy.cut()
            rest = await changes.snapshot()
            found = {entry.key: entry.value for entry in [*first, *rest.values()]}
            assert found == {f"k{number}": number for number in range(6000)}
            assert len(first) + len(rest) == 6000
    assert await consumers(server) == 0


@bounded
async def test_a_watch_notices_a_gap(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    read, lose = PullSubscription.read, True

    async def losing(self: Any, *args: Any) -> list[Any]:
        nonlocal lose
        arrived = await read(self, *args)
        if lose and any(message.data == b"2" for message in arrived):
            lose = False
            return [message for message in arrived if message.data != b"2"]
        return arrived

    monkeypatch.setattr(PullSubscription, "read", losing)
    monkeypatch.setattr(feed, "_LOOK_SECONDS", 0.3)
    for bucket, others in (
        ("a", [3]),
        ("b", []),
    ):  # one that comes after it shows the gap, else the server is asked
        lose = True
        async with ObjectStore.open(bucket, codec=Json(int), servers=server.url) as store:
            async with store.watch() as changes:
                assert await changes.snapshot() == {}
                for value in [1, 2, *others]:
                    await store.put(f"k{value}", value)
                values = [(await anext(changes)).value for _ in range(2 + len(others))]
                assert values == [1, 2, *others]
            assert not lose


@bounded
async def test_nothing_of_a_watch_is_left_on_the_server(server: NatsServer) -> None:
    async with ObjectStore.open("b", codec=Json(int), servers=server.url) as store:
        await store.put("k", 1)
        async with store.watch() as changes:
            await anext(changes)
            assert await consumers(server) == 1
        never_read = store.watch()
        await never_read.aclose()
        await store.keys()
        await store.history("k")
        waiting = asyncio.ensure_future(anext(store.watch("none")))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        cancelled = asyncio.ensure_future(store.keys())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
    assert await consumers(server) == 0


@bounded
async def test_a_watch_of_a_bucket_that_is_created_anew(server: NatsServer) -> None:
    async with shaky(server) as (proxy, store, other):
        changes = store.watch()
        await changes.snapshot()
        await other.delete_bucket()
        async with ObjectStore.open("b", codec=Json(int), servers=server.url):
            await proxy.cut()
            with pytest.raises(StateError, match="created anew|was deleted"):
                await anext(changes)


# Other processes

COUNT = """
import asyncio, sys
from streamflow.codecs import Json
from streamflow.state import ObjectStore
async def main():
    async with ObjectStore.open("b", codec=Json(int), initial=0, servers=sys.argv[1]) as store:
        async def count():
            for _ in range(20):
                await store.update("n", lambda n: n + 1)
        await asyncio.gather(*(count() for _ in range(10)))
asyncio.run(main())
"""


@bounded
async def test_processes_count_together(server: NatsServer) -> None:
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", COUNT, server.url, cwd=ROOT)
        for _ in range(3)
    ]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    async with ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url) as store:
        assert await store.read("n") == 600


@pytest.mark.parametrize("work", ["update", "transaction"])
@bounded
async def test_the_public_wire_does_the_same(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setattr(exchange, "open_wire", PublicWire)
    async with ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url) as store:
        doing: dict[str, Callable[[], Awaitable[Any]]] = {
            "update": lambda: store.update("k", plus(1)),
            "transaction": lambda: transact(store),
        }
        await doing[work]()
        await doing[work]()
        assert await store.read("k") == 2
        assert await store.read("none") == 0


async def transact(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.update("k", plus(1))
