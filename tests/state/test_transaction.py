"""Several keys together or not at all, in memory and on a server."""

from __future__ import annotations

from typing import Any

import pytest

from streamflow.errors import StateError
from streamflow.state import ConflictError, Transaction
from tests.state.support import Lab, eventually, plus, within


def test_a_transaction_applies_all_or_nothing(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(initial=0) as store, await lab.open(initial=0) as other:
            await store.put("a", 70)
            async with store.transaction() as tx:
                amount = await tx.read("a")
                assert await tx.update("b", plus(amount)) == 70
                tx.delete("a")
                assert (await tx.read("a"), await tx.read("b")) == (0, 70)  # its own writes
                assert await other.read("b") == 0
            assert (await other.read("a"), await other.read("b")) == (0, 70)

            async def too_late(tx: Transaction[int]) -> None:
                await tx.update("b", plus(1))
                tx.put("c", 1)
                await other.update("b", plus(5))

            with pytest.raises(ConflictError) as caught:
                await within(store, too_late)
            assert caught.value.key == "b"
            assert (await other.read("b"), await store.keys()) == (75, ["b"])

            async def fail(tx: Transaction[int]) -> None:
                tx.put("d", 1)
                raise ValueError("never mind")

            with pytest.raises(ValueError, match="never mind"):
                await within(store, fail)
            assert await store.read("d") == 0
            with pytest.raises(StateError, match="is over"):
                tx.put("d", 1)
            assert await store.update("b", plus(1)) == 76

    lab.run(test)


def test_a_transaction_fences_what_it_only_read(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open() as store, await lab.open() as other:
            await store.put("limit", 10)
            for write in (True, False):

                async def lowered(tx: Transaction[Any], write: bool = write) -> None:
                    await tx.read("free")
                    limit = await tx.read("limit")
                    if write:
                        tx.put("used", limit)
                    await other.update("limit", plus(-1))

                with pytest.raises(ConflictError) as caught:
                    await within(store, lowered)
                assert caught.value.key == "limit"
            async with store.transaction() as tx:
                assert (await tx.read("free"), await tx.read("limit")) == (None, 8)
                tx.put("used", 8)

            async def taken(tx: Transaction[Any]) -> None:
                await tx.read("free")
                tx.put("used", 9)
                await other.put("free", 1)

            with pytest.raises(ConflictError):  # a key that was not there counts as well
                await within(store, taken)
            assert await store.keys() == ["free", "limit", "used"]
            async with store.watch() as changes:
                assert [*await changes.snapshot()] == ["limit", "used", "free"]

    lab.run(test)


def test_a_transaction_that_is_too_large(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open() as store:
            async with store.transaction() as tx:
                for number in range(1000):
                    tx.put(f"k{number}", number)
            assert len(await store.keys()) == 1000
            tx = store.transaction()
            for number in range(1001):
                tx.put(f"k{number}", -1)
            with pytest.raises(StateError, match="1001 keys is too large for one atomic batch"):
                await tx.__aexit__(None, None, None)
            assert await store.read("k0") == 0
            with pytest.raises(StateError, match="bytes"):
                store.transaction().put("big", "x" * 2_000_000)

    lab.run(test)


def test_a_transaction_with_values_that_end(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(history=4) as store:
            await store.put("k", 1)
            async with store.transaction() as tx:
                tx.put("k", 2, ttl=1)
                tx.put("l", 2)
            assert await store.read("k") == 2
            await eventually(lambda: store.read("k"), None)
            assert await store.read("l") == 2

    lab.run(test)
