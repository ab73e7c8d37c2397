"""Opening a bucket: what is created, what is refused, and what a server may say no to."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from streamflow._jetstream.admin import request
from streamflow._jetstream.connection import connect
from streamflow.codecs import Json
from streamflow.errors import ConfigurationError, ConnectorError, StateError
from streamflow.state import ObjectStore
from streamflow.testing import NatsServer
from tests.jetstream.support import bounded, connected
from tests.state.support import plus


async def config_of(server: NatsServer, stream: str) -> dict[str, Any]:
    async with connected(server.url) as client:
        found: dict[str, Any] = (await request(client, f"STREAM.INFO.{stream}"))["config"]
        return found


async def create(server: NatsServer, **config: Any) -> None:
    async with connected(server.url) as client:
        _ = await request(client, f"STREAM.CREATE.{config['name']}", config)


@bounded
async def test_a_bucket_is_created_with_all_it_needs(server: NatsServer) -> None:
    async with ObjectStore.open("plain", codec=Json(), servers=server.url):
        plain = await config_of(server, "KV_plain")
    needed = ("allow_atomic", "allow_msg_ttl", "allow_direct", "allow_rollup_hdrs", "deny_delete")
    assert all(plain[name] for name in needed)
    assert (plain["subjects"], plain["discard"]) == (["$KV.plain.>"], "new")
    assert (plain["max_msgs_per_subject"], plain["storage"], plain["num_replicas"]) == (1, "file", 1)

    options: dict[str, Any] = {
        "history": 4,
        "ttl": timedelta(minutes=1),
        "storage": "memory",
        "max_bytes": 100_000,
    }
    for _ in range(2):  # created, and found as it should be
        async with ObjectStore.open("asked", codec=Json(), servers=server.url, **options) as store:
            await store.put("k", 1)
    asked = await config_of(server, "KV_asked")
    assert (asked["max_msgs_per_subject"], asked["storage"], asked["max_bytes"]) == (4, "memory", 100_000)
    assert asked["max_age"] == asked["duplicate_window"] == 60_000_000_000
    async with ObjectStore.open("asked", codec=Json(), servers=server.url) as store:  # whatever it is
        assert await store.read("k") == 1


@bounded
async def test_a_bucket_with_other_settings_is_refused_with_each_of_them(server: NatsServer) -> None:
    await create(server, name="KV_b", subjects=["$KV.b.>"], max_msgs_per_subject=2, storage="memory")
    with pytest.raises(StateError) as caught:
        await ObjectStore.open("b", codec=Json(), servers=server.url, history=1, ttl=5, storage="file")
    text = str(caught.value)
    for line in (
        "bucket 'b' (stream 'KV_b') exists with other settings",
        "history: wanted 1, found 2",
        "ttl: wanted 0:00:05, found no limit",
        "storage: wanted file, found memory",
        "allow_atomic: wanted True, found nothing",
        "discard: wanted new, found old",
    ):
        assert line in text
    assert (await config_of(server, "KV_b"))["discard"] == "old"


@bounded
async def test_a_stream_that_takes_the_buckets_subjects_is_named(server: NatsServer) -> None:
    await create(server, name="GREEDY", subjects=["$KV.>"])
    with pytest.raises(StateError, match="belong to another stream already: GREEDY"):
        await ObjectStore.open("b", codec=Json(), servers=server.url)


@bounded
async def test_foreign_content_that_fits_is_fine(server: NatsServer) -> None:
    async with (
        ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url) as store,
        connected(server.url) as client,
    ):
        js = client.jetstream()
        bucket = await js.key_value("b")
        await bucket.put("k", b"41")
        assert await store.update("k", plus(1)) == 42
        entry = await bucket.get("k")
        assert entry.value == b"42"
        assert entry.revision is not None
        await bucket.update("k", b"50", entry.revision)
        assert await store.update("k", plus(1)) == 51
        await bucket.delete("k")
        assert await store.update("k", plus(1)) == 1
        await bucket.purge("k")
        assert await store.read("k") == 0
        await store.put("größe 3", 1)
        assert await bucket.keys() == ["gr=C3=B6=C3=9Fe=203"]


@bounded
async def test_a_bucket_in_which_the_server_marks_what_expired(server: NatsServer) -> None:
    async with ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url):
        config = await config_of(server, "KV_b")
    async with connected(server.url) as client:
        _ = await request(
            client, "STREAM.UPDATE.KV_b", {**config, "subject_delete_marker_ttl": 2_000_000_000}
        )
    async with ObjectStore.open("b", codec=Json(int), initial=0, servers=server.url) as store:
        async with store.watch() as changes:
            await store.put("k", 1, ttl=2)
            assert (await anext(changes)).value == 1
            assert (await anext(changes)).operation == "expire"
        assert (await store.entry("k")).operation == "absent"
        assert await store.put("k", 5, expected_revision=0) > 1
        assert await store.update("k", plus(1)) == 6


@bounded
async def test_a_full_bucket_says_so_and_goes_on_when_there_is_room(server: NatsServer) -> None:
    async with ObjectStore.open("b", codec=Json(), servers=server.url, max_bytes=5000) as store:
        await store.put("a", "x" * 3000)
        with pytest.raises(StateError, match="key 'b' was refused, the bucket or the server's store is full"):
            await store.put("b", "x" * 3000)
        with pytest.raises(StateError, match="is full"):
            await store.update("b", lambda _: "x" * 3000)
        async with connected(server.url) as client:
            _ = await request(client, "STREAM.PURGE.KV_b")
        await store.put("b", "x" * 3000)


@bounded
async def test_a_value_over_the_payload_limit(server: NatsServer) -> None:
    async with ObjectStore.open("b", codec=Json(), servers=server.url) as store:
        await store.put("k", "x" * 1_000_000)
        with pytest.raises(StateError, match=r"key 'k': a value of 1048578 bytes; the server takes 1047552"):
            await store.put("k", "x" * 1_048_576)
        assert await store.update("k", lambda text: str(text)[:3]) == "xxx"


@bounded
async def test_a_connection_of_the_user_stays_open(server: NatsServer) -> None:
    async with connected(server.url) as client:
        async with (
            ObjectStore.open("b", codec=Json(), connection=client) as one,
            ObjectStore.open("b", codec=Json(), connection=client) as other,
        ):
            await one.put("k", 1)
            assert await other.read("k") == 1
        assert client.is_connected
        assert len(client._subs) == 1  # nats-py's own, for requests
        with pytest.raises(ConfigurationError, match="connection= takes an open nats-py client"):
            await ObjectStore.open("b", codec=Json(), connection=server.url)  # type: ignore[call-overload]


@bounded
async def test_a_connection_that_is_closed_under_a_store(server: NatsServer) -> None:
    client = await connect(server.url)
    store = await ObjectStore.open("b", codec=Json(), connection=client)
    changes = store.watch()
    assert await changes.snapshot() == {}
    await client.close()
    for call in (store.read("k"), store.put("k", 1), anext(changes)):
        with pytest.raises(StateError, match="closed"):
            await call
    await store.close()


@bounded
async def test_servers_come_from_the_environment(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", server.url)
    async with ObjectStore.open("b", codec=Json()) as store:
        assert await store.read("k") is None
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    with pytest.raises(ConnectorError, match="connection refused"):
        await ObjectStore.open("b", codec=Json())


def test_a_server_without_jetstream() -> None:
    @bounded
    async def test() -> None:
        with (
            NatsServer(jetstream=False) as server,
            pytest.raises(StateError, match="JetStream is not enabled"),
        ):
            await ObjectStore.open("b", codec=Json(), servers=server.url)

    test()


def test_what_credentials_do_not_allow_is_said() -> None:
    config = """
    authorization { users = [
      { user: u, password: p, permissions: { publish: { deny: ["$KV.b.secret.>"] } } }
      { user: admin, password: p }
    ] }
    """

    @bounded
    async def test() -> None:
        with NatsServer(config=config) as server:
            url = server.url.replace("nats://", "nats://u:p@")
            async with ObjectStore.open("b", codec=Json(), servers=url) as store:
                await store.put("open", 1)
                with pytest.raises(StateError, match=r"credentials do not allow \$KV.b.secret.x"):
                    await store.put("secret.x", 1)

    test()


@pytest.mark.parametrize(("version", "refused"), [("2.13.4", True), ("2.14.0", False), ("banana", False)])
@bounded
async def test_a_server_that_is_too_old(version: str, refused: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": version, "max_payload": 1_000_000, "headers": True}
        writer.write(b"INFO %b\r\n" % json.dumps(info).encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            if line.startswith(b"PUB"):
                break  # past the check
        writer.close()

    fake = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with fake:
        url = f"nats://127.0.0.1:{fake.sockets[0].getsockname()[1]}"
        opening = asyncio.ensure_future(asyncio.wait_for(_open(url), 1.0))
        if refused:
            with pytest.raises(StateError, match=r"needs nats-server 2.14 or newer.*this one is 2.13"):
                await opening
        else:
            with pytest.raises(TimeoutError):
                await opening


async def _open(url: str) -> None:
    await ObjectStore.open("b", codec=Json(), servers=url)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.b", {}, "not a name for a bucket"),
        ("", {}, "not a name for a bucket"),
        ("b", {"history": 65}, "history must be 64 or less"),
        ("b", {"history": 0}, "history must be 1 or more"),
        ("b", {"ttl": 0.2}, "ttl must be 1 second or more"),
        ("b", {"storage": "disk"}, "storage must be"),
        ("b", {"replicas": "1"}, "replicas must be a whole number"),
    ],
)
def test_settings_that_no_bucket_can_have(name: str, options: dict[str, Any], message: str) -> None:
    @bounded
    async def test() -> None:
        with pytest.raises(ConfigurationError, match=message):
            await ObjectStore.open(name, codec=Json(), **options)

    test()
