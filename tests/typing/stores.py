"""What the type checkers infer for stores. ``make types`` checks it; it is never run."""

from __future__ import annotations

from typing import assert_type

from streamflow.codecs import Json
from streamflow.state import Entry, MemoryBucket, ObjectStore, Transaction


async def stores() -> None:
    async with ObjectStore.open("counts", codec=Json(int), initial=0) as counts:
        assert_type(counts, ObjectStore[int])
        assert_type(await counts.update("k", lambda n: n + 1), int)
        assert_type(await counts.entry("k"), Entry[int])
        async with counts.transaction() as tx:
            assert_type(tx, Transaction[int])
            assert_type(await tx.update("k", lambda n: n + 1), int)
        async with counts.watch() as changes:
            assert_type(await changes.snapshot(), dict[str, Entry[int]])
            assert_type(await anext(changes), Entry[int])
    names = await ObjectStore.open(MemoryBucket(), codec=Json(str))
    assert_type(await names.read("k"), str | None)
    assert_type(await names.update("k", lambda name: (name or "") + "!"), str | None)
