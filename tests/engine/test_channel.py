"""The channel between stages: bounded, aligned at barriers, closed from either side."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamflow.engine.channel import Channel
from streamflow.engine.chunk import (
    TICK,
    Barrier,
    Chunk,
    End,
    Outcome,
    PortEnd,
    Progress,
    Quiet,
    Receipt,
    Watermark,
)
from tests.support import virtual


def taken(channel: Channel) -> list[Any]:
    items = []
    while (item := channel.poll()) is not None:
        items.append(item.values if isinstance(item, Chunk) else item)
    return items


def test_a_full_channel_makes_the_producer_wait_and_never_drops() -> None:
    async def work() -> None:
        channel = Channel(capacity=3)
        await channel.put(Chunk([1, 2]))
        waiting = asyncio.create_task(channel.put(Chunk([3, 4])))
        await asyncio.sleep(1)
        assert not waiting.done()
        assert channel.size == 4
        assert taken(channel) == [[1, 2], [3, 4]]
        await waiting

    virtual(work())


def test_a_barrier_is_handed_out_once_when_it_is_in_on_every_port() -> None:
    channel = Channel(3)
    channel.append(Chunk([1]), 0)
    channel.append(Barrier(1), 0)
    channel.append(Chunk([2]), 0)
    channel.append(Barrier(1), 1)
    assert taken(channel) == [[1]]
    channel.append(Chunk([3]), 2)
    assert taken(channel) == [[3]]
    channel.append(End(), 2)
    assert taken(channel) == [Barrier(1), [2]]


ports = st.lists(
    st.lists(st.sampled_from(["chunk", "chunk", "barrier"]), max_size=6).filter(
        lambda p: p.count("barrier") < 2
    ),
    min_size=1,
    max_size=4,
)
"""One barrier is under way at a time; a port that has ended brings none."""


@given(ports, st.data())
def test_what_is_before_a_barrier_comes_before_it_and_what_is_behind_behind(
    ports: list[list[str]], data: Any
) -> None:
    channel = Channel(len(ports))
    queues: list[list[Any]] = []
    for port, kinds in enumerate(ports):
        number = 0
        queue: list[Any] = []
        for kind in kinds:
            if kind == "barrier":
                number += 1
                queue.append(Barrier(number))
            else:
                queue.append(Chunk([(port, number)]))
        queues.append([*queue, End()])
    last = max(sum(kind == "barrier" for kind in kinds) for kinds in ports)
    passed = 0
    ended = False
    counts = 0
    while any(queues) or not ended:
        ready = [port for port, queue in enumerate(queues) if queue]
        if ready:
            port = data.draw(st.sampled_from(ready))
            channel.append(queues[port].pop(0), port)
        item = channel.poll()
        if isinstance(item, Barrier):
            passed += 1
            assert item.number == passed
        elif isinstance(item, Chunk):
            counts += 1
            assert item.values[0][1] == passed
        elif isinstance(item, End):
            ended = True
    assert taken(channel) == []
    assert passed == last
    assert counts == sum(kind == "chunk" for kinds in ports for kind in kinds)


def test_the_end_comes_when_all_ports_have_ended_and_a_drain_is_remembered() -> None:
    channel = Channel(2)
    channel.append(End(), 0)
    assert taken(channel) == []
    channel.append(End(drain=True), 1)
    assert taken(channel) == [End(drain=True)]


def test_detaching_gives_back_what_waits_and_whatever_comes_and_frees_producers() -> None:
    outcomes: list[Outcome] = []

    def chunk() -> Chunk:
        return Chunk([1, 2], receipt=Receipt(lambda _, outcome: outcomes.append(outcome)))

    async def work() -> None:
        channel = Channel(capacity=1)
        told: list[bool] = []
        channel.on_detach.append(lambda: told.append(channel.detached))
        waiting = asyncio.create_task(channel.put(chunk()))
        await asyncio.sleep(0)
        channel.detach()
        await waiting
        await channel.put(chunk())
        assert outcomes == [Outcome.UNUSED] * 2
        assert told == [True]

    virtual(work())


def test_a_tick_comes_while_the_consumer_waits_and_disturbs_no_order() -> None:
    async def work() -> None:
        channel = Channel()
        channel.append(Chunk([1]))
        channel.wake()
        channel.wake()
        assert await channel.get() is TICK
        assert (await channel.get()).values == [1]  # type: ignore[union-attr]
        waiting = asyncio.create_task(channel.get())
        await asyncio.sleep(0)
        channel.wake()
        assert await waiting is TICK
        channel.append(Chunk([2]))
        ticking = asyncio.create_task(channel.get_tick())
        await asyncio.sleep(1)
        assert not ticking.done()
        channel.wake()
        assert await ticking is TICK
        assert (await channel.get()).values == [2]  # type: ignore[union-attr]

    virtual(work())


def test_a_barrier_is_injected_behind_producers_that_have_finished_and_only_there() -> None:
    channel = Channel(2)
    channel.append(End(), 0)
    channel.finish(0)
    channel.inject(Barrier(1))
    assert taken(channel) == []
    channel.append(Chunk([1]), 1)
    channel.append(End(), 1)
    channel.finish(1)
    channel.inject(Barrier(1))
    channel.inject(Barrier(1))
    assert taken(channel) == [[1], End(), Barrier(1)]


def test_branches_of_one_origin_are_told_apart_and_a_port_that_ends_ends_its_origins() -> None:
    called = [{"a": "a 1"}, {"a": "a 2"}, {"b": "b"}]
    channel = Channel(3, origins=called, tells_ends=True)
    channel.append(Watermark("a", 5), 0)
    channel.append(Progress("a", 1), 1)
    channel.append(Quiet("b"), 2)
    assert taken(channel) == [Watermark("a 1", 5), Progress("a 2", 1), Quiet("b")]
    for port, origin in enumerate("aab"):
        channel.append(Chunk([port], origin), port)
    chunks = [channel.poll() for _ in range(3)]
    assert [(c.origin, c.port, c.values) for c in chunks if isinstance(c, Chunk)] == [
        ("a 1", 0, [0]),
        ("a 2", 1, [1]),
        ("b", 2, [2]),
    ]
    channel.append(End(), 1)
    assert taken(channel) == [Watermark("a 2", math.inf), PortEnd(1)]
    channel.append(End(), 2)
    channel.append(End(), 0)
    assert taken(channel) == [
        Watermark("b", math.inf),
        PortEnd(2),
        Watermark("a 1", math.inf),
        PortEnd(0),
        End(),
    ]


def test_a_port_that_is_shut_waits() -> None:
    channel = Channel(2)
    channel.append(Chunk([1]), 0)
    channel.append(Chunk([2]), 1)
    channel.shut = {0}
    assert taken(channel) == [[2]]
    channel.shut = ()
    assert taken(channel) == [[1]]
