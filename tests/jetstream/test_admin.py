from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamflow._jetstream.admin import (
    JetStreamError,
    consumer_info,
    covers,
    ensure_consumer,
    ensure_stream,
    last_sequence,
    overlap,
    request,
    stream_info,
)
from streamflow._jetstream.settings import ConsumerSettings, StreamSettings
from streamflow.errors import ConfigurationError, ConnectorError
from streamflow.testing.server import NatsServer
from tests.jetstream.support import add, bounded, connected, filled, numbers

FULL = StreamSettings(
    ["s.>", "t"],
    storage="memory",
    retention="workqueue",
    max_age=timedelta(hours=1),
    max_bytes=1_000_000,
    max_messages=1000,
    max_messages_per_subject=10,
    max_message_size=10_000,
    discard="new",
    duplicate_window=timedelta(seconds=30),
)


# --- streams ---


@bounded
async def test_creates_a_stream_as_described(server: NatsServer) -> None:
    async with connected(server.url) as client:
        assert await stream_info(client, "S") is None
        config = (await ensure_stream(client, "S", FULL)).config
        assert config.subjects == ["s.>", "t"]
        assert (config.storage, config.retention, config.discard) == ("memory", "workqueue", "new")
        assert (config.max_bytes, config.max_msgs, config.max_msgs_per_subject) == (1_000_000, 1000, 10)
        assert (config.max_age, config.duplicate_window, config.max_msg_size) == (3600, 30, 10_000)
        again = await ensure_stream(client, "S", FULL)
        assert again.did_create is None
        assert await stream_info(client, "S") is not None


@bounded
async def test_a_missing_stream_shows_the_line_to_add(server: NatsServer) -> None:
    async with connected(server.url) as client:
        with pytest.raises(ConnectorError, match=r"no stream 'S'.*create=StreamSettings\("):
            await ensure_stream(client, "S")


@bounded
async def test_each_conflict_is_listed_and_nothing_changes(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.a", max_age=timedelta(minutes=1)))
        before = await request(client, "STREAM.INFO.S")
        with pytest.raises(ConnectorError) as failure:
            await ensure_stream(client, "S", FULL)
        for line in (
            "subjects: wanted ['s.>', 't'], found ['s.a']",
            "storage: wanted memory, found file",
            "retention: wanted workqueue, found limits",
            "max_age: wanted 1:00:00, found 0:01:00",
            "max_bytes: wanted 1000000, found no limit",
            "max_messages: wanted 1000, found no limit",
            "max_messages_per_subject: wanted 10, found no limit",
            "max_message_size: wanted 10000, found no limit",
            "discard: wanted new, found old",
            "duplicate_window: wanted 0:00:30, found 0:01:00",
        ):
            assert f"\n  {line}" in str(failure.value)
        assert str(failure.value).count("\n") == 10
        assert (await request(client, "STREAM.INFO.S"))["config"] == before["config"]


@bounded
async def test_a_wider_stream_will_do(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings(["s.>", "t.*.u"], max_age=timedelta(hours=1)))
        for subjects in ("s.a", "s.*", "s.a.b.>", ["t.x.u", "s.>"]):
            await ensure_stream(client, "S", StreamSettings(subjects))
        for subjects in ("s", "t.>", "t.x", ">"):
            with pytest.raises(ConnectorError, match="subjects: wanted"):
                await ensure_stream(client, "S", StreamSettings(subjects))


@bounded
async def test_two_create_the_same_stream_at_once(server: NatsServer) -> None:
    async with connected(server.url) as client:
        settings = StreamSettings("s.>")
        await asyncio.gather(*(ensure_stream(client, "S", settings) for _ in range(10)))
        await asyncio.gather(*(ensure_consumer(client, "S", ConsumerSettings("C")) for _ in range(10)))


@bounded
async def test_of_two_that_create_it_differently_one_has_a_conflict(server: NatsServer) -> None:
    async with connected(server.url) as client:
        streams = [StreamSettings("s.>", max_messages=number) for number in (10, 20)]
        results = await asyncio.gather(
            *(ensure_stream(client, "S", s) for s in streams), return_exceptions=True
        )
        (conflict,) = [result for result in results if isinstance(result, ConnectorError)]
        assert "\n  max_messages: wanted" in str(conflict)
        consumers = [ConsumerSettings("C", max_deliver=number) for number in (10, 20)]
        infos = await asyncio.gather(
            *(ensure_consumer(client, "S", c) for c in consumers), return_exceptions=True
        )
        (conflict,) = [info for info in infos if isinstance(info, ConnectorError)]
        assert "\n  max_deliver: wanted" in str(conflict)


@bounded
async def test_overlapping_subjects_name_the_owner(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "OTHER", StreamSettings("s.a"))
        with pytest.raises(ConnectorError, match=r"'S'.*another stream already: OTHER"):
            await ensure_stream(client, "S", StreamSettings("s.>"))


@bounded
async def test_what_the_server_refuses_keeps_its_reason(server: NatsServer) -> None:
    async with connected(server.url) as client:
        with pytest.raises(ConnectorError, match="cannot create stream 'S': .*replicas"):
            await ensure_stream(client, "S", StreamSettings("s.>", replicas=3))
        with pytest.raises(ConnectorError, match="no stream 'S'"):
            await ensure_consumer(client, "S", ConsumerSettings("C"))


def test_a_short_max_age_bounds_the_duplicate_window() -> None:
    config = StreamSettings("s", max_age=timedelta(seconds=5)).config()
    assert config["duplicate_window"] == config["max_age"] == 5_000_000_000


@pytest.mark.parametrize(
    "settings",
    [
        {"subjects": []},
        {"subjects": "s", "storage": "disk"},
        {"subjects": "s", "retention": "forever"},
        {"subjects": "s", "discard": "all"},
        {"subjects": "s", "replicas": 0},
        {"subjects": "s", "max_bytes": -1},
        {"subjects": "s", "max_age": 60},
        {"subjects": "s", "max_age": timedelta(0)},
    ],
)
def test_nonsense_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        StreamSettings(**settings)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", "a>", "a/b"])
@bounded
async def test_nonsense_names_are_refused(server: NatsServer, name: str) -> None:
    async with connected(server.url) as client:
        with pytest.raises(ConfigurationError, match="not a name"):
            await ensure_stream(client, name)
        with pytest.raises(ConfigurationError, match="not a name"):
            await ensure_consumer(client, "S", ConsumerSettings(name))


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a.*", "a.b", True),
        ("a.*", "a.*", True),
        ("a.b", "a.*", False),
        ("a.*", "a.>", False),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a.>", True),
        (">", "a.b", True),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
    ],
)
def test_covers(pattern: str, subject: str, expected: bool) -> None:
    assert covers(pattern, subject) is expected


# --- consumers ---


@bounded
async def test_creates_a_consumer_as_described(server: NatsServer) -> None:
    settings = ConsumerSettings(
        "C",
        ["s.a", "s.b"],
        deliver="sequence",
        start_sequence=3,
        ack="all",
        ack_wait=timedelta(seconds=7),
        max_ack_pending=77,
        max_deliver=5,
    )
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        assert await consumer_info(client, "S", "C") is None
        config = (await ensure_consumer(client, "S", settings)).config
        assert (config.durable_name, config.filter_subjects) == ("C", ["s.a", "s.b"])
        assert (config.deliver_policy, config.opt_start_seq) == ("by_start_sequence", 3)
        assert (config.ack_policy, config.ack_wait, config.max_ack_pending) == ("all", 7, 77)
        assert config.max_deliver == 5
        assert (await ensure_consumer(client, "S", settings)).name == "C"
        ephemeral = await ensure_consumer(client, "S", ConsumerSettings("E", durable=False))
        assert (ephemeral.config.durable_name, ephemeral.config.inactive_threshold) == (None, 300)
        assert await consumer_info(client, "S", "E") is not None
        assert await consumer_info(client, "NONE", "E") is None


@bounded
async def test_a_larger_durable_is_adopted_and_a_smaller_one_is_a_conflict(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        await ensure_consumer(
            client, "S", ConsumerSettings("C", ack_wait=timedelta(seconds=60), max_ack_pending=500)
        )
        less = ConsumerSettings("C", ack_wait=timedelta(seconds=30), max_ack_pending=100)
        config = (await ensure_consumer(client, "S", less)).config
        assert (config.ack_wait, config.max_ack_pending) == (60, 500)
        more = ConsumerSettings("C", ack_wait=timedelta(seconds=61), max_ack_pending=501)
        with pytest.raises(ConnectorError) as failure:
            await ensure_consumer(client, "S", more)
        assert "\n  ack_wait: wanted at least 0:01:01, found 0:01:00" in str(failure.value)
        assert "\n  max_ack_pending: wanted at least 501, found 500" in str(failure.value)


@bounded
async def test_each_conflict_of_a_consumer_is_listed(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        await ensure_consumer(client, "S", ConsumerSettings("C", "s.a", deliver="new", max_deliver=3))
        before = await request(client, "CONSUMER.INFO.S.C")
        wanted = ConsumerSettings("C", deliver="sequence", start_sequence=1, ack="all")
        with pytest.raises(ConnectorError) as failure:
            await ensure_consumer(client, "S", wanted)
        for line in (
            "subjects: wanted ['>'], found ['s.a']",
            "deliver: wanted by_start_sequence, found new",
            "start_sequence: wanted 1, found nothing",
            "ack: wanted all, found explicit",
            "max_deliver: wanted no limit, found 3",
        ):
            assert f"\n  {line}" in str(failure.value)
        assert str(failure.value).count("\n") == 5
        assert (await request(client, "CONSUMER.INFO.S.C"))["config"] == before["config"]


@bounded
async def test_a_push_consumer_is_a_conflict(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        config = {"durable_name": "C", "ack_policy": "explicit", "deliver_subject": "out"}
        await request(client, "CONSUMER.DURABLE.CREATE.S.C", {"stream_name": "S", "config": config})
        with pytest.raises(ConnectorError, match="kind: wanted a pull consumer, found a push consumer"):
            await ensure_consumer(client, "S", ConsumerSettings("C"))


def test_nonsense_consumers_are_refused() -> None:
    for settings in (
        {"deliver": "sequence"},
        {"start_sequence": 3},
        {"ack": "maybe"},
        {"max_ack_pending": 0},
    ):
        with pytest.raises(ConfigurationError):
            ConsumerSettings("C", **settings)


# --- the last message ---


@bounded
async def test_last_sequence(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await ensure_stream(client, "S", StreamSettings("s.>"))
        assert await last_sequence(client, "S") is None
        await add(client, numbers(3), "s.a.x")
        await add(client, numbers(2), "s.b")
        assert await last_sequence(client, "S") == 5
        assert await last_sequence(client, "S", "s.a.*") == 3
        assert await last_sequence(client, "S", "s.>") == 5
        assert await last_sequence(client, "S", "s.none") is None
        with pytest.raises(JetStreamError, match="stream not found") as failure:
            await last_sequence(client, "NONE")
        assert failure.value.err_code == 10059


# --- what is missing ---

RESTRICTED = """
accounts {
  NONE { users: [ { user: none, password: p } ] }
  JS {
    jetstream: enabled
    users: [
      { user: admin, password: p }
      { user: reader, password: p, permissions { publish { deny: ["$JS.API.STREAM.>"] } } }
      { user: mute, password: p, permissions { subscribe { deny: "_INBOX.>" } } }
    ]
  }
}
"""


@bounded
async def test_what_is_not_allowed_is_said_at_once() -> None:
    with NatsServer(config=RESTRICTED) as server:
        async with connected(server.url, user="none", password="p") as client:
            with pytest.raises(ConnectorError, match="JetStream is not enabled"):
                await ensure_stream(client, "S")
        for user in ("reader", "mute"):
            async with connected(server.url, user=user, password="p") as client, asyncio.timeout(3):
                with pytest.raises(ConnectorError, match="credentials do not allow.*permissions violation"):
                    await ensure_stream(client, "S")
        async with connected(server.url, user="admin", password="p") as client:
            await filled(client, numbers(1))


def test_patterns_overlap_when_some_subject_matches_both() -> None:
    assert overlap("a.>", "a.b")
    assert overlap("a.*.c", "*.b.c")
    assert overlap(">", "x")
    assert not overlap("a", "a.>")
    assert not overlap("a.b", "a.c")
    assert not overlap("a.*", "a.b.c")
