"""A pipeline with a checkpoint over a stream: each message counts once, whatever breaks in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from streamflow import Checkpoint, EventTime, Pipeline, Window
from streamflow._jetstream.admin import request
from streamflow.connectors import Collect, Discard
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.connectors.jetstream.exclusive import ExclusiveReader
from streamflow.errors import ConfigurationError, ConnectorError
from streamflow.operators import Fold, Inspect, Keyed, Map, Sum, Take, TumblingWindow
from streamflow.state import MemoryBucket
from streamflow.testing import MemoryStore, NatsServer
from tests.jetstream.support import add, bounded, connected, filled, numbers
from tests.jetstream.test_checkpoints import Told


def counts(server: NatsServer, seen: list[int], *, until: Any = "end", **options: Any) -> Pipeline[Any]:
    """A fold over all messages: ``seen`` gets each number, in order, exactly when it counts."""
    source = JetStreamSource("S", until=until, servers=server.url, **options)
    total: Any = Fold(0, lambda total, x: total + x, state=int)
    return source.via(Map(int)).via(Inspect(seen.append)).via(total).to(Collect(), name="counts")


def reader_of(running: Any) -> ExclusiveReader:
    """The reader of a pipeline's only source."""
    reader = running._assembly.pumps[0].reader
    assert isinstance(reader, ExclusiveReader)
    return reader


@bounded
async def test_a_run_goes_on_where_the_one_before_was(server: NatsServer) -> None:
    checkpoint = Checkpoint(MemoryBucket())
    async with connected(server.url) as client:
        await filled(client, numbers(500))
        seen: list[int] = []
        totals = await counts(server, seen).run(checkpoint=checkpoint)
        assert seen == list(range(500)) and totals[-1] == sum(range(500))
        assert await counts(server, seen).run(checkpoint=checkpoint) == []
        names = await request(client, "CONSUMER.NAMES.S")
        assert names["consumers"] == ["C"]  # the one that the stream was filled with


@bounded
async def test_a_restart_goes_to_the_end_of_the_first_start(server: NatsServer) -> None:
    store = MemoryStore()
    async with connected(server.url) as client:
        await filled(client, numbers(300))
        seen: list[int] = []
        first = counts(server, seen)
        checkpoint = Checkpoint(store=store, every=0.01)
        async with first.start(checkpoint=checkpoint, observers=[told := Told()]) as running:
            await told.until(lambda: told.checkpoints > 0)
            await running.stop()
        await add(client, numbers(50))
        for snapshot in store.history:
            again: list[int] = []
            totals = await counts(server, again).run(
                checkpoint=Checkpoint(store=MemoryStore.at(snapshot, "counts"))
            )
            assert again == list(range(300 - len(again), 300))
            assert not again or totals[-1] == sum(range(300))


@bounded
async def test_every_checkpoint_is_a_place_to_go_on_from(server: NatsServer) -> None:
    """Windows by event time and the sums in them: what was emitted before and after is what one run emits."""
    times = [float(number // 3 + (number * 7) % 5) for number in range(900)]

    def windows(seen: list[Any]) -> Pipeline[Any]:
        time: Any = EventTime(lambda t: t, out_of_order=5)
        flow: Any = Keyed(lambda t: int(t) % 4, TumblingWindow(timedelta(seconds=20), time=time, into=Sum()))
        source = JetStreamSource("S", until="end", servers=server.url, max_pending=64)
        return source.via(Map(float)).via(flow).via(Inspect(seen.append)).to(Discard(), name="windows")

    expected: Counter[tuple[int, int]] = Counter()
    for time in times:
        expected[int(time) % 4, int(time // 20) * 20] += 1
    store = MemoryStore()
    async with connected(server.url) as client:
        await filled(client, (str(time).encode() for time in times))
        whole: list[Any] = []
        await windows(whole).run(checkpoint=Checkpoint(store=store, every=0.005))
        results = {(key, window.start): window.value for key, window in whole}
        assert {place for place, count in expected.items() if count} == set(results)
        assert sum(results.values()) == sum(times)
        for snapshot in store.history[:: max(1, len(store.history) // 5)]:
            rest: list[Any] = []
            await windows(rest).run(checkpoint=Checkpoint(store=MemoryStore.at(snapshot, "windows")))
            again = {(key, window.start): window.value for key, window in rest}
            assert again.items() <= results.items()
            # Keys come in any order in a window.
            assert {
                (key, window.start): window.value for key, window in whole[len(whole) - len(rest) :]
            } == again
            assert all(isinstance(window, Window) for _, window in rest)


# What breaks


@pytest.mark.parametrize("how", ["kill", "restart", "consumer", "dropped", "gap"])
@bounded
async def test_each_message_counts_once(server: NatsServer, how: str) -> None:
    told = Told()
    seen: list[int] = []
    async with connected(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05) as client:
        await filled(client, numbers(2000))
        pipeline = counts(server, seen, until=None)
        async with pipeline.start(
            checkpoint=Checkpoint(MemoryBucket(), every=0.02), observers=[told]
        ) as running:
            await told.until(lambda: told.checkpoints > 1 and len(seen) == 2000)
            reader = reader_of(running)
            assert reader._pull is not None
            if how == "kill":
                server.kill()
                server.start()
            elif how == "restart":
                server.restart()
            elif how == "consumer":
                await request(client, f"CONSUMER.DELETE.S.{reader._pull.consumer}")
            elif how == "dropped":
                reader._client._transport.close()  # type: ignore[union-attr]
            if how == "gap":
                reader._delivered -= 1  # as if one had not come
            async with connected(server.url) as fresh:
                await add(fresh, (b"%d" % number for number in range(2000, 3000)))
            while len(seen) < 3000:
                await asyncio.sleep(0.01)
            await running.drain()
    assert seen == list(range(3000))
    assert any(name == "consumer is made again" for name, _ in told.events)


@bounded
async def test_a_stream_that_was_made_anew_is_refused(server: NatsServer) -> None:
    checkpoint = Checkpoint(MemoryBucket())
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        await counts(server, []).run(checkpoint=checkpoint)
        await request(client, "STREAM.DELETE.S")
        await filled(client, numbers(20))
        with pytest.raises(
            ConnectorError, match="pipeline 'counts', step 'JetStreamSource'.*checkpoint is of one"
        ):
            await counts(server, []).run(checkpoint=checkpoint)


@bounded
async def test_messages_that_were_removed_unread_are_missed(server: NatsServer) -> None:
    checkpoint = Checkpoint(MemoryBucket())
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        await counts(server, []).run(checkpoint=checkpoint)
        await add(client, numbers(20))
        await request(client, "STREAM.PURGE.S", {"seq": 15})
        with pytest.raises(ConnectorError, match="nothing before sequence 15 any more, .* goes on with 11"):
            await counts(server, []).run(checkpoint=checkpoint)


@bounded
async def test_a_stream_that_is_deleted_under_a_run_fails_it(server: NatsServer) -> None:
    seen: list[int] = []

    async def work(client: Any) -> None:
        pipeline = counts(server, seen, until=None)
        async with pipeline.start(checkpoint=Checkpoint(MemoryBucket())) as running:
            while len(seen) < 10:
                await asyncio.sleep(0.01)
            await request(client, "STREAM.DELETE.S")
            await running.wait()

    async with connected(server.url) as client:
        await filled(client, numbers(10))
        with pytest.raises(ConnectorError, match="step 'JetStreamSource': stream 'S' was deleted"):
            await work(client)


@pytest.mark.parametrize("retention", ["workqueue", "interest"])
@bounded
async def test_a_stream_that_forgets_what_is_acknowledged_is_refused(
    server: NatsServer, retention: Any
) -> None:
    async with connected(server.url) as client:
        await request(client, "STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "retention": retention})
        with pytest.raises(
            ConfigurationError, match=f"step 'JetStreamSource'.*keeps messages by {retention}"
        ):
            await counts(server, []).run(checkpoint=Checkpoint(MemoryBucket()))


# Ends and starts


@bounded
async def test_ends_and_starts(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        for start, until, expected in [
            ("all", "end", range(10)),
            ("all", 4, range(4)),
            (3, 7, range(2, 7)),
            ("last", "end", range(9, 10)),
            (8, "end", range(7, 10)),
        ]:
            seen: list[int] = []
            pipeline = counts(server, seen, start=start, until=until)
            await pipeline.run(checkpoint=Checkpoint(MemoryBucket()))
            assert seen == list(expected), (start, until)
        await request(client, "STREAM.PURGE.S")
        seen = []
        await counts(server, seen).run(checkpoint=Checkpoint(MemoryBucket()))
        assert seen == []


@bounded
async def test_an_end_that_is_still_to_come(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        seen: list[int] = []
        pipeline = counts(server, seen, until=15)
        async with pipeline.start(checkpoint=Checkpoint(MemoryBucket())) as running:
            while len(seen) < 10:
                await asyncio.sleep(0.01)
            await add(client, numbers(3))
            await add(client, numbers(8))
            await running.wait()
    assert seen == [*range(10), *range(3), *range(2)]


@bounded
async def test_what_take_leaves_is_not_lost(server: NatsServer) -> None:
    store = MemoryStore()
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        source = JetStreamSource("S", servers=server.url)
        taken = await source.via(Take(5)).to(Collect(), name="t").run(checkpoint=Checkpoint(store=store))
        assert taken == [b"%d" % n for n in range(5)]


@bounded
async def test_plain_sinks_have_everything_that_a_checkpoint_counts(server: NatsServer) -> None:
    """At least once: what a commit covers was confirmed by the output stream before."""
    async with connected(server.url) as client:
        await filled(client, numbers(3000))
        sink: Any = JetStreamSink("OUT", subject="out", create=StreamSettings("out"), servers=server.url)

        class Looking(MemoryStore):
            async def commit(self, pipeline: str, change: Any) -> None:
                info = await request(client, "STREAM.INFO.OUT")
                stored.append((change.positions["JetStreamSource"]["sequence"], info["state"]["messages"]))
                await super().commit(pipeline, change)

        stored: list[tuple[int, int]] = []
        fold: Any = Keyed(lambda x: int(x) % 10, Fold(0, lambda n, x: n + int(x), state=int))
        out: Any = Map(lambda pair: b"%d" % pair.value)
        source = JetStreamSource("S", until="end", servers=server.url, max_pending=200)
        pipeline = source.via(fold).via(out).to(sink, name="p")
        await pipeline.run(checkpoint=Checkpoint(store=Looking(), every=0.005))
        assert len(stored) > 1
        assert all(read <= written for read, written in stored)
        assert stored[-1] == (3000, 3000)
