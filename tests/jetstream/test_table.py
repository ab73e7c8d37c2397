"""`KeyValueTable` against a real server: what is there at first, what changes, what goes wrong, what is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from attrs import define, field
from nats.aio.client import Client
from nats.js.kv import KeyValue

from streamflow import ConfigurationError, ConnectorError, Observer, Skip, Source, StepError
from streamflow._jetstream.admin import request
from streamflow.codecs import Json, Text
from streamflow.connectors import Collect
from streamflow.connectors.jetstream import KeyValueTable
from streamflow.connectors.jetstream import bucket as bucket_module
from streamflow.operators import Keyed, Lookup
from streamflow.testing.server import NatsServer
from tests.jetstream.pipelines import eventually
from tests.jetstream.support import bounded, connected, until
from tests.support import Chunked


async def bucket(client: Client, name: str = "B", **settings: Any) -> KeyValue:
    """A key-value bucket, with what nats-py cannot ask for when it creates one."""
    config = {
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": 1,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "discard": "new",
    }
    await request(client, f"STREAM.CREATE.KV_{name}", config | settings)
    return await client.jetstream().key_value(name)


async def fill(client: Client, entries: dict[str, bytes], name: str = "B") -> None:
    js = client.jetstream()
    await asyncio.gather(*[js.publish(f"$KV.{name}.{key}", data) for key, data in entries.items()])


async def consumers(client: Client, name: str = "B") -> int:
    return int((await request(client, f"STREAM.INFO.KV_{name}"))["state"]["consumer_count"])


@define
class Asked(Observer):
    """A running pipeline that is asked for keys."""

    events: list[tuple[str, dict[str, Any]]] = field(factory=list)
    table: Any = None

    def event(self, name: str, **details: Any) -> None:
        self.events.append((name, details))

    async def count(self, name: str) -> int:
        return sum(event == name for event, _ in self.events)

    async def get(self, *keys: str) -> Any:
        """What the table has for these keys, None for those it does not have; one key alone gives its value."""
        values = [self.table.get(key) for key in keys]
        return values if len(keys) > 1 else values[0]

    async def size(self) -> int:
        return len(self.table)


@asynccontextmanager
async def running(table: KeyValueTable[Any]) -> AsyncIterator[Asked]:
    """Run a pipeline with the table, and look into its cache."""
    asked = Asked()

    class Spied(Lookup[Any, Any]):
        def _joining(self, table: Any) -> Any:
            asked.table = table
            return super()._joining(table)

    waiting = asyncio.Event()

    async def nothing() -> AsyncIterator[str]:
        await waiting.wait()
        yield "a"

    pipeline = Source(nothing).via(Spied(table, lambda x: x, None), name="names").to(Collect(), name="p")
    async with pipeline.start(observers=[asked]) as run:
        yield asked
        waiting.set()
        assert len(await run.wait()) == 1


async def joined(keys: list[str], table: KeyValueTable[Any], *default: Any, **options: Any) -> list[Any]:
    """What a short pipeline makes of these keys."""
    lookup: Any = Lookup(table, lambda x: x, *default)
    return await Source(keys).via(lookup, name="names").to(Collect(), name="p").run(**options)


# The beginning


@bounded
async def test_the_whole_bucket_is_there_before_the_first_element(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await bucket(client)
        entries = {f"k.{number}": b"%d" % number for number in range(5000)}
        await fill(client, entries)
        keys = random.Random(1).sample(sorted(entries), 3000)
        table = KeyValueTable("B", codec=Json(int), servers=server.url)
        assert await joined(keys, table) == [(key, int(key[2:])) for key in keys]
        assert await consumers(client) == 0


@bounded
async def test_describing_a_pipeline_opens_nothing(server: NatsServer) -> None:
    pipeline = Source(["a"]).via(Lookup(KeyValueTable("B", servers="nats://127.0.0.1:1"), str)).to(Collect())
    assert pipeline.describe().steps[1].type == "Lookup"


@pytest.mark.parametrize(
    ("pattern", "wanted"), [("eu.*", {"eu.a": "1", "eu.b": "2"}), ("us.>", {"us.a.x": "3"}), ("none", {})]
)
@bounded
async def test_a_pattern_takes_a_part(server: NatsServer, pattern: str, wanted: dict[str, str]) -> None:
    async with connected(server.url) as client:
        await bucket(client)
        await fill(client, {"eu.a": b"1", "eu.b": b"2", "us.a.x": b"3"})
        table = KeyValueTable("B", codec=Text(), pattern=pattern, connection=client)
        async with running(table) as asked:
            assert asked.table == wanted
        assert client.is_connected


@bounded
async def test_deleted_and_purged_keys_are_not_loaded(server: NatsServer) -> None:
    async with connected(server.url) as client:
        kv = await bucket(client, max_msgs_per_subject=3)
        for key in "abc":
            await kv.put(key, b"old")
            await kv.put(key, key.encode())
        await kv.delete("a")
        await kv.purge("b")
        async with running(KeyValueTable("B", connection=client)) as asked:
            assert asked.table == {"c": b"c"}


@bounded
async def test_two_lookups_share_one_cache_and_keyed_and_policies_work(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await bucket(client)
        await fill(client, {"a": b"1", "b": b"2"})
        table = KeyValueTable("B", codec=Json(int), servers=server.url)
        first: Any = Lookup(table, lambda x: x, on_error=Skip())
        second: Any = Keyed(lambda pair: pair[0], Lookup(table, lambda pair: pair[0], default=0))
        seen: list[int] = []

        async def items() -> AsyncIterator[str]:
            seen.append(await consumers(client))
            for key in "axb":
                yield key

        result = await Source(items).via(first).via(second).to(Collect()).run()
        assert result == [("a", (("a", 1), 1)), ("b", (("b", 2), 2))]
        assert seen == [1]
        assert await consumers(client) == 0


# What changes


@bounded
async def test_puts_deletes_and_purges_are_seen(server: NatsServer) -> None:
    async with connected(server.url) as client:
        kv = await bucket(client)
        await fill(client, {"a": b"1", "b": b"1", "c": b"1"})
        async with running(KeyValueTable("B", codec=Json(int), servers=server.url)) as asked:
            await kv.put("a", b"2")
            await until(lambda: asked.get("a"), 2)
            await kv.put("new", b"3")
            await until(lambda: asked.get("new"), 3)
            await kv.delete("b")
            await until(lambda: asked.get("b"), None)
            await kv.purge("c")
            await until(lambda: asked.get("c"), None)
            await kv.put("c", b"4")
            await until(lambda: asked.get("c"), 4)
            assert asked.table == {"a": 2, "new": 3, "c": 4}
        assert await consumers(client) == 0


@bounded
async def test_an_empty_bucket_fills(server: NatsServer) -> None:
    async with connected(server.url) as client:
        kv = await bucket(client)
        async with running(KeyValueTable("B", servers=server.url)) as asked:
            assert asked.table == {}
            await kv.put("a", b"1")
            await until(lambda: asked.get("a"), b"1")


@bounded
async def test_a_bucket_that_is_written_all_the_time_is_loaded(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await bucket(client)
        await fill(client, {f"k{number}": b"0" for number in range(2000)})
        enough = False

        async def write() -> int:
            js, count = client.jetstream(), 0
            while not enough:
                count += 1
                await js.publish(f"$KV.B.k{count * 7919 % 2000}", b"%d" % count)
            return count

        writing = asyncio.create_task(write())
        table = KeyValueTable("B", codec=Json(int), servers=server.url)
        async with running(table) as asked:
            assert len(asked.table) == 2000
            enough = True
            count = await writing
            last = {f"k{n * 7919 % 2000}": n for n in range(1, count + 1)}
            await until(lambda: asked.get(*last), list(last.values()))
            assert await asked.count("table is out of date") == 0


@pytest.mark.parametrize(
    "settings", [{}, {"subject_delete_marker_ttl": 5_000_000_000}], ids=["plain", "marker"]
)
@bounded
async def test_an_entry_goes_with_its_time_to_live(server: NatsServer, settings: dict[str, Any]) -> None:
    async with connected(server.url) as client:
        await bucket(client, **settings)
        js = client.jetstream()
        for key, ttl in [("a", "1"), ("b", "1s"), ("never", "never"), ("long", "1h30m")]:
            await js.publish(f"$KV.B.{key}", b"1", headers={"Nats-TTL": ttl})
        async with running(KeyValueTable("B", servers=server.url)) as asked:
            assert set(asked.table) == {"a", "b", "never", "long"}
            await js.publish("$KV.B.a", b"2", headers={"Nats-TTL": "2"})  # it lives longer now
            await until(lambda: asked.get("a", "b"), [b"2", None])
            await until(lambda: asked.get("a"), None)
            if settings:
                await until(lambda: _reason(client, "$KV.B.a"), "MaxAge")
            await js.publish("$KV.B.last", b"1")
            await until(lambda: asked.get("last"), b"1")
            assert set(asked.table) == {"never", "long", "last"}


async def _reason(client: Client, subject: str) -> str | None:
    """Why the server has put a marker there."""
    message = await client.jetstream().get_last_msg("KV_B", subject)
    return (message.headers or {}).get("Nats-Marker-Reason")


@bounded
async def test_entries_go_with_the_age_limit_of_the_bucket(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await bucket(client, max_age=1_500_000_000)
        await client.jetstream().publish("$KV.B.never", b"1", headers={"Nats-TTL": "never"})
        await fill(client, {f"k{number}": b"1" for number in range(500)})
        async with running(KeyValueTable("B", servers=server.url)) as asked:
            assert len(asked.table) == 501
            await until(asked.size, 1)
            assert asked.table == {"never": b"1"}


@bounded
async def test_in_a_history_an_earlier_entry_is_back_when_the_last_is_over(server: NatsServer) -> None:
    async with connected(server.url) as client:
        kv = await bucket(client, max_msgs_per_subject=3)
        await kv.put("a", b"old")
        await client.jetstream().publish("$KV.B.a", b"new", headers={"Nats-TTL": "1"})
        await client.jetstream().publish("$KV.B.b", b"new", headers={"Nats-TTL": "1"})
        async with running(KeyValueTable("B", servers=server.url)) as asked:
            assert asked.table == {"a": b"new", "b": b"new"}
            await until(lambda: asked.get("a", "b"), [b"old", None])
            assert (await kv.get("a")).value == b"old"


# Restarts


@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill])
@bounded
async def test_the_server_restarts_in_the_middle(
    server: NatsServer, end: Callable[[NatsServer], None]
) -> None:
    async with connected(server.url) as client:
        kv = await bucket(client)
        await fill(client, {f"k{number}": b"0" for number in range(1000)})
        async with running(KeyValueTable("B", codec=Json(int), servers=server.url)) as asked:
            for time in (1, 2):
                await asyncio.to_thread(end, server)
                assert asked.table["k999"] == time - 1  # still there while nobody answers
                await server.start_async()
                await eventually(lambda: consumers(client), 1)
                await kv.put("k999", b"%d" % time)
                await kv.delete(f"k{time}")
                await until(partial(asked.get, "k999", f"k{time}"), [time, None])
                assert len(asked.table) == 1000 - time
                await until(partial(asked.count, "table is up to date"), time)
                assert await consumers(client) == 1
        assert await consumers(client) == 0


@bounded
async def test_what_happened_while_it_was_cut_off_is_caught_up(server: NatsServer) -> None:
    async with connected(server.url) as client:
        kv = await bucket(client)
        await fill(client, {"a": b"1", "b": b"1", "gone": b"1"})
        async with connected(server.url) as mine, running(KeyValueTable("B", connection=mine)) as asked:
            mine._transport.close()  # type: ignore[union-attr]
            await kv.put("a", b"2")
            await kv.delete("b")
            await request(client, "STREAM.PURGE.KV_B", {"filter": "$KV.B.gone"})  # tells no watcher
            await until(lambda: asked.get("a", "b", "gone"), [b"2", None, None])
            await until(lambda: consumers(client), 1)
        assert await consumers(client) == 0


@bounded
async def test_a_consumer_that_somebody_deletes_is_made_again(server: NatsServer) -> None:
    async with connected(server.url) as client:
        kv = await bucket(client)
        async with running(KeyValueTable("B", servers=server.url)) as asked:
            (name,) = (await request(client, "CONSUMER.NAMES.KV_B"))["consumers"]
            await request(client, f"CONSUMER.DELETE.KV_B.{name}")
            await kv.put("a", b"1")
            await until(lambda: asked.get("a"), b"1")
            assert await consumers(client) == 1
        assert await consumers(client) == 0


@pytest.mark.parametrize("others", [False, True])
@bounded
async def test_a_lost_message_is_noticed(
    server: NatsServer, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not others:  # nothing comes that would show the gap
        monkeypatch.setattr(bucket_module, "_LOOK_SECONDS", 0.3)
    async with connected(server.url) as client:
        kv = await bucket(client)
        async with running(KeyValueTable("B", servers=server.url)) as asked:
            (name,) = (await request(client, "CONSUMER.NAMES.KV_B"))["consumers"]
            # Somebody else takes one of the next messages of its consumer.
            inbox = client.new_inbox()
            await client.subscribe(inbox)
            theft = b'{"batch": 1, "expires": 25000000000}'
            await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.KV_B.{name}", theft, reply=inbox)
            for time in range(3):
                await kv.put("a", b"%d" % time)
                while await asked.get("a") != b"%d" % time:
                    if others:
                        await kv.put("b", b"%d" % time)
                    await asyncio.sleep(0.01)
            assert await asked.count("table is out of date") == 1


@bounded
async def test_the_bucket_is_deleted_in_the_middle(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await bucket(client)
        table: Any = KeyValueTable("B", servers=server.url)
        pipeline = (
            Chunked([], ends=False).via(Lookup(table, lambda x: x), name="names").to(Collect(), name="p")
        )

        async def delete_in_the_middle() -> None:
            async with pipeline.start() as run:
                await client.jetstream().delete_key_value("B")
                await run.wait()

        with pytest.raises(
            ConnectorError, match=r"^pipeline 'p', step 'names': there is no key-value bucket"
        ):
            await delete_in_the_middle()


@bounded
async def test_it_stops_at_once_while_the_server_is_away(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await bucket(client)
        async with running(KeyValueTable("B", servers=server.url)):
            await asyncio.to_thread(server.stop)
        await server.start_async()
        info = await request(client, "CONSUMER.NAMES.KV_B")
        for name in info["consumers"]:  # the server forgets it
            config = (await request(client, f"CONSUMER.INFO.KV_B.{name}"))["config"]
            assert config["inactive_threshold"] == 60_000_000_000


# What is wrong


@bounded
async def test_a_missing_bucket_is_named(server: NatsServer) -> None:
    with pytest.raises(
        ConnectorError, match=r"^pipeline 'p', step 'names': there is no key-value bucket 'B'"
    ):
        await joined(["a"], KeyValueTable("B", servers=server.url))


@bounded
async def test_no_server_is_named() -> None:
    with pytest.raises(ConnectorError, match=r"^pipeline 'p', step 'names': cannot connect to NATS"):
        await joined(["a"], KeyValueTable("B", servers="nats://127.0.0.1:1"))


@bounded
async def test_a_value_that_does_not_decode_fails_who_looks_it_up_and_nobody_else(server: NatsServer) -> None:
    async with connected(server.url) as client:
        kv = await bucket(client)
        await fill(client, {"a": b"1", "bad": b'"text"'})
        table = KeyValueTable("B", codec=Json(int), servers=server.url)
        asked = Asked()
        assert await joined(["a", "x", "bad", "a"], table, 0, on_error=Skip(), observers=[asked]) == [
            ("a", 1),
            ("x", 0),
            ("a", 1),
        ]
        assert await asked.count("table entry does not decode") == 1
        wrong = (
            r"step 'names': failed on 'bad': CodecError: key 'bad' of bucket 'B': Json\(int\) cannot decode"
        )
        with pytest.raises(StepError, match=wrong):
            await joined(["bad"], table, 0)
        async with running(table) as asked:
            await kv.put("a", b"[]")
            await until(lambda: asked.get("a"), None)
            await kv.put("bad", b"2")
            await until(lambda: asked.get("bad"), 2)
            await kv.put("a", b"3")
            await until(lambda: asked.get("a"), 3)


@bounded
async def test_a_key_that_is_no_string_is_an_error_and_not_missing(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await bucket(client)
        keys: Any = [1]
        with pytest.raises(StepError, match=r"TypeError: the keys of bucket 'B' are strings, not 1"):
            await joined(keys, KeyValueTable("B", servers=server.url), 0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"bucket": "a.b"},
        {"bucket": ""},
        {"bucket": None},
        {"pattern": ">.a"},
        {"pattern": "a..b"},
        {"pattern": "a b"},
        {"pattern": ""},
        {"codec": Json},
        {"servers": "nats://x", "connection": Client()},
    ],
    ids=repr,
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        KeyValueTable(**({"bucket": "B"} | arguments))
