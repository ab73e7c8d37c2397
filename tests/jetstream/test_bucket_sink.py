"""`KeyValueSink`: elements put into a bucket, at least once and exactly once."""

from __future__ import annotations

from typing import Any

import pytest

from streamflow import Checkpoint, Pipeline, Source
from streamflow.codecs import Json
from streamflow.connectors.jetstream import JetStreamSource, KeyValueSink
from streamflow.errors import ConfigurationError, StateError, StepError
from streamflow.operators import Fold, Keyed, Map, Throttle
from streamflow.state import ObjectStore
from streamflow.testing import NatsServer
from streamflow.testing.crash import crash_at
from tests.jetstream.support import bounded, connected, filled, until


def latest(server: NatsServer, **options: Any) -> Pipeline[int]:
    """The running sum of each key, as its value."""
    fold: Any = Keyed(lambda n: f"key {n % 5}", Fold(0, lambda total, n: total + n, state=int))
    sink: Any = KeyValueSink(
        "sums",
        key=lambda pair: pair.key,
        value=lambda pair: pair.value,
        codec=Json(),
        servers=server.url,
        **options,
    )
    source = JetStreamSource("S", until="end", servers=server.url)
    return source.via(Map(int)).via(Throttle(200, per=0.02)).via(fold).to(sink, name="latest")


def sums(count: int) -> dict[str, int]:
    return {f"key {key}": sum(range(key, count, 5)) for key in range(5)}


async def read(server: NatsServer) -> dict[str, Any]:
    async with ObjectStore.open("sums", codec=Json(int), servers=server.url) as store, store.watch() as watch:
        return {key: entry.value for key, entry in (await watch.snapshot()).items()}


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@bounded
async def test_the_bucket_has_the_last_value_of_each_key(server: NatsServer, delivery: Any) -> None:
    async with connected(server.url) as client:
        await filled(client, (b"%d" % number for number in range(3000)))
    checkpoint = Checkpoint(servers=server.url, every=0.03)
    with crash_at("before commit", 4) as armed, pytest.raises(BaseException, match="before commit"):
        await latest(server, history=64).run(checkpoint=checkpoint, delivery=delivery)
    assert armed.happened
    await latest(server, history=64).run(checkpoint=checkpoint, delivery=delivery)
    await until(lambda: read(server), sums(3000))
    async with ObjectStore.open("sums", codec=Json(int), servers=server.url) as store:
        values = [entry.value for entry in await store.history("key 3")]
    if delivery == "exactly_once":
        expected, total = [], 0
        for number in range(3, 3000, 5):
            total += number
            expected.append(total)
        assert values == expected[-64:]


@bounded
async def test_none_deletes_and_any_text_is_a_key(server: NatsServer) -> None:
    elements = [("a b.*", 1), ("", 2), ("gone", 3), ("gone", None)]
    sink: Any = KeyValueSink(
        "sums", key=lambda pair: pair[0], value=lambda pair: pair[1], codec=Json(), servers=server.url
    )
    assert await Source(elements).to(sink).run() == 4
    assert await read(server) == {"a b.*": 1, "": 2}


@bounded
async def test_what_cannot_work_is_said(server: NatsServer) -> None:
    key: Any = "key"
    with pytest.raises(ConfigurationError, match="KeyValueSink's key must be a function"):
        KeyValueSink("sums", key=key)
    with pytest.raises(ConfigurationError, match="'a b' is not a name for a bucket"):
        KeyValueSink("a b", key=str)
    with pytest.raises(StepError, match="a key is a string, not 3"):
        await Source([b"x"]).to(KeyValueSink("sums", key=lambda value: 3, servers=server.url)).run()  # type: ignore[arg-type, return-value]
    await (await ObjectStore.open("other", codec=Json(), history=5, servers=server.url)).close()
    with pytest.raises(StateError, match=r"(?s)bucket 'other'.*history: wanted 7, found 5"):
        await Source([b"x"]).to(KeyValueSink("other", key=repr, history=7, servers=server.url)).run()
