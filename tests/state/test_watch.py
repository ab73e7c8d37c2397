"""Following what happens to keys, in memory and on a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamflow.state import Entry
from tests.state.support import Lab


def test_a_watch_has_what_there_is_and_then_what_comes(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(history=2) as store:
            for key, value in (("a.1", 1), ("a.2", 2), ("b.1", 3), ("a.1", 4)):
                await store.put(key, value)
            await store.delete("a.2")
            async with store.watch("a.>") as changes:
                seen = []
                while not changes.caught_up:
                    seen.append(await anext(changes))
                assert [(entry.key, entry.operation) for entry in seen] == [
                    ("a.1", "put"),
                    ("a.2", "delete"),
                ]
                await store.put("b.1", 5)
                await store.put("a.3", 6)
                entry = await anext(changes)
                assert (entry.key, entry.value, entry.operation) == ("a.3", 6, "put")
                await store.delete("a.3")
                assert (await anext(changes)).operation == "delete"

    lab.run(test)


def test_a_wait_for_a_change_may_be_cancelled(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open() as store, store.watch() as changes:
            for number in range(20):
                waiting = asyncio.ensure_future(anext(changes))
                await asyncio.sleep(0.001 * number)
                waiting.cancel()
                await asyncio.wait([waiting])
            await store.put("k", 1)
            assert (await anext(changes)).value == 1

    lab.run(test)


@pytest.mark.parametrize("by_store", [False, True])
def test_closing_a_watch_ends_it(lab: Lab, by_store: bool) -> None:
    async def test() -> None:
        store = await lab.open()
        changes = store.watch()
        assert await changes.snapshot() == {}

        async def read_on() -> list[Entry[Any]]:
            return [entry async for entry in changes]

        reading = asyncio.ensure_future(read_on())
        await asyncio.sleep(0.05)
        await (store.close() if by_store else changes.aclose())
        assert await reading == []
        await store.close()

    lab.run(test)
