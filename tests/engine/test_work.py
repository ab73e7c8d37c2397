"""Stages with work in flight: what travels between chunks, item by item."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamflow import Fail
from streamflow.engine.channel import Channel
from streamflow.engine.chunk import Chunk, End, Item, Quiet, Watermark
from streamflow.engine.connector import Resources, RunContext, WorkContext
from streamflow.engine.guard import Guard
from streamflow.engine.observer import StatsObserver
from streamflow.engine.output import ToChannel
from streamflow.engine.transform import Work
from streamflow.operators import MapAsync
from streamflow.testing import VirtualClock
from tests.support import virtual


async def sleep(x: int) -> int:
    await asyncio.sleep(x)
    return x


async def passed(items: list[Item], *, ordered: bool) -> list[Any]:
    """What a `MapAsync` makes of these items; of chunks their values."""
    observer = StatsObserver()
    spawn: Any = None
    run = RunContext("p", "best_effort", VirtualClock(), observer, Resources(AsyncExitStack()), spawn)
    work = MapAsync(sleep, ordered=ordered).transform()
    assert isinstance(work, Work)
    before, behind = Channel(), Channel()
    for item in items:
        before.append(item)
    await work.open(WorkContext(run, "MapAsync", Guard("p", Fail(), observer))).run(
        before, ToChannel((behind, 0))
    )
    got: list[Any] = []
    while (out := behind.poll()) is not None:
        got.append(out.values if isinstance(out, Chunk) else out)
    return got


A, B = Quiet("a"), Quiet("b")


def chunk(origin: str, *values: int) -> Chunk:
    return Chunk(list(values), origin)


@pytest.mark.parametrize(
    ("ordered", "expected"),
    [
        (True, [[3, 1], [2], Watermark("a", 5), [1, 1], A, End()]),
        (False, [[1], [2], [3], Watermark("a", 5), [1, 1], A, End()]),
    ],
)
def test_a_watermark_keeps_its_place(ordered: bool, expected: list[Any]) -> None:
    items: list[Item] = [chunk("a", 3, 1), chunk("a", 2), Watermark("a", 5), chunk("a", 1, 1), A, End()]
    assert virtual(passed(items, ordered=ordered)) == expected


@pytest.mark.parametrize("ordered", [True, False])
def test_an_origin_is_not_called_quiet_while_results_of_it_are_on_their_way(ordered: bool) -> None:
    items: list[Item] = [chunk("a", 5), A, B, chunk("a", 1), chunk("a", 2), A, End()]
    chunks = [[5], B, [1], [2]] if ordered else [[1], [2], [5], B]
    assert virtual(passed(items, ordered=ordered)) == [*chunks, A, End()]
