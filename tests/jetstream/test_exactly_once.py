"""Exactly once: consumers of the output stream see each output once and in order, whatever breaks in between."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest
from nats.aio.client import Client

from streamflow import Checkpoint, EventTime, Pipeline
from streamflow._jetstream.admin import ensure_stream, request
from streamflow.codecs import Json
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.errors import ConfigurationError, StepError
from streamflow.operators import Count, Fold, Keyed, Map, PassThrough, Throttle, TumblingWindow
from streamflow.policies import Skip
from streamflow.state import MemoryBucket
from streamflow.testing import NatsServer
from streamflow.testing.crash import POINTS, crash_at
from tests.jetstream.support import add, bounded, connected, contents, filled, numbers, stored, until
from tests.jetstream.test_checkpoints import Told

KEYS = 7


def sums(server: NatsServer, *, until: Any = "end", before: Any = None, **sink: Any) -> Pipeline[Any]:
    """The running sum of each key, one output for each message."""
    fold: Any = Keyed(lambda x: x % KEYS, Fold(0, lambda total, x: total + x, state=int))
    subject = sink.pop("subject", lambda pair: f"out.{pair.key}")
    settings = {"create": StreamSettings("out.>"), "codec": Json(), "servers": server.url, **sink}
    out: Any = JetStreamSink("OUT", subject, **settings)
    source = JetStreamSource("S", until=until, servers=server.url)
    return source.via(Map(int)).via(before or PassThrough()).via(fold).to(out, name="sums")


def model(count: int) -> dict[int, list[int]]:
    outputs: dict[int, list[int]] = defaultdict(list)
    totals: dict[int, int] = defaultdict(int)
    for number in range(count):
        totals[number % KEYS] += number
        outputs[number % KEYS].append(totals[number % KEYS])
    return outputs


async def outputs(client: Client, count: int) -> dict[int, list[int]]:
    """What the output stream has, by key, once it has so many messages; and that it gets no more."""
    await until(lambda: stored(client, "OUT"), count)
    await asyncio.sleep(0.1)
    found: dict[int, list[int]] = defaultdict(list)
    for message in await contents(client, "OUT"):
        pair = json.loads(message)
        found[pair["key"]].append(pair["value"])
    return found


def once(server: NatsServer, **options: Any) -> Any:
    return {"checkpoint": Checkpoint(servers=server.url, **options), "delivery": "exactly_once"}


@bounded
async def test_each_output_is_there_once_and_a_second_run_adds_none(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(3000))
        assert await sums(server).run(**once(server)) == 3000
        assert await outputs(client, 3000) == model(3000)
        assert await sums(server).run(**once(server)) == 0
        await sums(server, until=3000).run(**once(server))
        assert await outputs(client, 3000) == model(3000)


async def stopped(pipeline: Pipeline[Any], checkpoints: int, **options: Any) -> bool:
    """Run a pipeline and stop it after so many checkpoints; True if it ended before."""
    told = Told()
    async with pipeline.start(observers=[told], **options) as running:
        first = told.events[0][1]["number"] if told.events else 0
        ended = asyncio.create_task(running.wait())
        come = asyncio.create_task(told.until(lambda: told.checkpoints >= first + checkpoints))
        await asyncio.wait([ended, come], return_when=asyncio.FIRST_COMPLETED)
        come.cancel()
        done = ended.done()
        await running.stop()
        await asyncio.wait([ended, come])
        return done


@bounded
async def test_stops_and_kills_of_the_server_cost_and_repeat_nothing(server: NatsServer) -> None:
    chance = random.Random(5)
    count, stops = 10_000, 0
    async with connected(server.url) as client:
        await filled(client, (b"%d" % number for number in range(count)))
    slowly: Any = Throttle(250, per=0.02)
    while not await stopped(sums(server, before=slowly), chance.randrange(1, 5), **once(server, every=0.02)):
        stops += 1
        if stops % 4 == 2:
            server.kill()
            server.start()
    async with connected(server.url) as client:
        assert await outputs(client, count) == model(count)
    assert stops >= 4


@pytest.mark.parametrize("point", [point for point in POINTS if "acknowledging" not in point])
@bounded
async def test_a_crash_at_any_point(server: NatsServer, point: Any) -> None:
    """The second time that a run comes by it, and once more in the run after it."""
    count = 4000
    slowly: Any = Throttle(500, per=0.02)
    async with connected(server.url) as client:
        await filled(client, (b"%d" % number for number in range(count)))
        crashes = 0
        for _ in range(2):
            with crash_at(point, 2) as armed:
                try:
                    await sums(server, before=slowly).run(**once(server, every=0.03))
                except BaseException:
                    if not armed.happened:
                        raise
            crashes += armed.happened
        assert crashes > 0 or point == "outputs moved"
        await sums(server, before=slowly).run(**once(server, every=0.03))
        assert await outputs(client, count) == model(count)


@bounded
async def test_ten_thousand_windows_that_close_at_once(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, [*(b"%d" % number for number in range(10_000)), b"-1"])
        time: Any = EventTime(lambda n: 0.0 if n >= 0 else 100.0)
        window: Any = Keyed(lambda n: n, TumblingWindow(timedelta(seconds=10), time=time, into=Count()))
        sink: Any = JetStreamSink(
            "OUT",
            subject="out.all",
            codec=Json(),
            headers=lambda pair: {"Key": str(pair.key)},
            create=StreamSettings("out.>"),
            servers=server.url,
        )
        source = JetStreamSource("S", until="end", servers=server.url)
        await source.via(Map(int)).via(window).to(sink, name="w").run(**once(server))
        await until(lambda: stored(client, "OUT"), 10_001)
        keys = [json.loads(message)["key"] for message in await contents(client, "OUT")]
        assert sorted(keys) == [-1, *range(10_000)]
        message = await client.jetstream().get_msg("OUT", 1)
        assert message.headers is not None and message.headers["Key"] == str(keys[0])


@bounded
async def test_outputs_wait_while_the_stream_takes_none(server: NatsServer) -> None:
    """It is full for several checkpoints, and the server is killed meanwhile: nothing is removed before it is there."""
    async with connected(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05) as client:
        await filled(client, numbers(2000))
        await ensure_stream(client, "OUT", StreamSettings("out.>"))
        config = (await request(client, "STREAM.INFO.OUT"))["config"]
        full = {**config, "max_msgs": 500, "discard": "new"}
        await request(client, "STREAM.UPDATE.OUT", full)
        told = Told()
        sink = {"create": None}
        with pytest.raises(ConfigurationError) as refused:
            await sums(server, **sink).run(**once(server))
        source = str(refused.value).partition("have it done: ")[2]
        full = {**full, "sources": [json.loads(source.replace("'", '"'))]}
        await request(client, "STREAM.UPDATE.OUT", full)
        pipeline = sums(server, until=None, **sink)
        async with pipeline.start(observers=[told], **once(server, every=0.05)) as running:
            await told.until(lambda: told.checkpoints > 5)
            server.kill()
            server.start()
            async with connected(server.url) as fresh:
                await add(fresh, (b"%d" % number for number in range(2000, 3000)))
                before = told.checkpoints
                await told.until(lambda: told.checkpoints > before + 25)  # the place looks each second
                assert await stored(fresh, "OUT") == 500
                await request(fresh, "STREAM.UPDATE.OUT", {**full, "max_msgs": -1})
                assert await outputs(fresh, 3000) == model(3000)
            await running.drain()


# What cannot be kept


@bounded
async def test_streams_that_cannot_keep_it_are_refused(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        await request(
            client, "STREAM.CREATE.OUT", {"name": "OUT", "subjects": ["out.>"], "retention": "workqueue"}
        )
        with pytest.raises(
            ConfigurationError, match="step 'JetStreamSink'.* 'OUT' keeps messages by workqueue"
        ):
            await sums(server, create=None).run(**once(server))
        await request(client, "STREAM.DELETE.OUT")
        await ensure_stream(client, "OUT", StreamSettings("out.>"))
        with pytest.raises(ConfigurationError, match="'OUT' does not take outputs .*Add this to its sources"):
            await sums(server, create=None).run(**once(server))
        with pytest.raises(ConfigurationError, match="needs a checkpoint in a JetStream bucket"):
            await sums(server).run(checkpoint=Checkpoint(MemoryBucket()), delivery="exactly_once")
        away = pytest.raises(ConfigurationError, match="'KV_sums', which is not on its server")
        with NatsServer() as other, away:
            await sums(server).run(**once(other))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"headers": lambda pair: {"Nats-TTL": "5s"}}, "header 'Nats-TTL' tells the server"),
        ({"subject": lambda pair: "out.*"}, r"'out\.\*' is not a subject to publish to"),
    ],
    ids=["header", "subject"],
)
@bounded
async def test_outputs_that_cannot_be_sent_go_to_the_policy(
    server: NatsServer, options: Any, says: str
) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(10))
        with pytest.raises(StepError, match=f"pipeline 'sums', step 'JetStreamSink'.*{says}"):
            await sums(server, **options).run(**once(server))
        assert await sums(server, on_error=Skip(), **options).run(**once(server)) == 0
        assert await stored(client, "OUT") == 0


@bounded
async def test_several_sinks_share_a_bucket_and_a_stream(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await filled(client, numbers(100))
        source = JetStreamSource("S", until="end", servers=server.url)

        def sink(subject: str) -> Any:
            return JetStreamSink("OUT", subject, create=StreamSettings("out.>"), servers=server.url)

        pipeline = Pipeline(
            source.to(sink("out.a"), step="first sink"), source.to(sink("out.b"), step="second"), name="both"
        )
        await pipeline.run(**once(server))
        await until(lambda: stored(client, "OUT"), 200)
        for subject in ("out.a", "out.b"):
            info = await request(client, "STREAM.INFO.OUT", {"subjects_filter": subject})
            assert info["state"]["subjects"] == {subject: 100}
