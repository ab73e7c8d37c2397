"""What every store does, in memory and on a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from streamflow.codecs import Json, MessagePack
from streamflow.errors import CodecError, ConfigurationError, StateError
from streamflow.state import ConflictError, Entry, ObjectStore, Transaction
from streamflow.state.bucket import Bucket, Done, Record, Write, apply
from tests.state.support import Lab, eventually, plus, within


def test_a_key_without_a_value_reads_as_the_initial_one(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(initial=[1]) as store, await lab.open("other") as plain:
            first = await store.read("a")
            first.append(2)  # each reader has its own
            assert await store.read("a") == [1]
            assert await store.entry("a") == Entry("a", [1], 0, 0.0, "absent")
            assert await plain.read("a") is None
            assert await store.keys() == []

    lab.run(test)


def test_put_and_read_any_key(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open() as store:
            keys = ["a", "", ".", "a..b", "a b", "ü.*", ">", "=41", "x\r\ny", "\ud800"]
            revisions = [await store.put(key, number) for number, key in enumerate(keys)]
            assert revisions == sorted(set(revisions))
            assert [await store.read(key) for key in keys] == [*range(len(keys))]
            assert await store.keys() == sorted(keys)
            entry = await store.entry("a..b")
            assert (entry.key, entry.value, entry.revision, entry.exists) == ("a..b", 3, revisions[3], True)
            assert entry.at > 0

    lab.run(test)


def test_updates_of_one_key_are_applied_in_the_order_of_the_calls(lab: Lab) -> None:
    def add(letter: str, text: str) -> str:
        return text + letter

    async def test() -> None:
        async with await lab.open(initial="") as store:
            results = await asyncio.gather(*(store.update("k", partial(add, c)) for c in "abcdefghij"))
            assert results == ["abcdefghij"[: n + 1] for n in range(10)]
            assert await store.read("k") == "abcdefghij"
            assert (await store.entry("k")).revision == 1  # one write

    lab.run(test)


def test_puts_and_deletes_keep_their_place_among_updates(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(initial=0) as store:
            results = await asyncio.gather(
                store.update("k", plus(1)),
                store.put("k", 10),
                store.update("k", plus(1)),
                store.delete("k"),
                store.update("k", plus(5)),
                store.update("k", plus(5)),
                store.reset("k"),
                store.update("k", plus(7)),
            )
            assert [results[i] for i in (0, 2, 4, 5, 6, 7)] == [1, 11, 5, 10, 0, 7]

    lab.run(test)


def test_an_update_that_fails_does_not_touch_the_others(lab: Lab) -> None:
    def spoil(value: list[int]) -> list[int]:
        value.append(99)
        raise ValueError("spoiled")

    def stop(value: Any) -> Any:
        raise StopIteration

    async def wrong(value: Any) -> Any:
        return value

    async def test() -> None:
        async with await lab.open(initial=[]) as store:
            results = await asyncio.gather(
                store.update("k", lambda v: [*v, 1]),
                store.update("k", spoil),
                store.update("k", lambda v: {1j}),
                store.update("k", stop),
                store.update("k", wrong),
                store.update("k", lambda v: ["x" * 2_000_000]),
                store.update("k", lambda v: [*v, 2]),
                return_exceptions=True,
            )
            assert results[0] == [1]
            kinds = [ValueError, CodecError, RuntimeError, ConfigurationError, StateError]
            assert [*map(type, results[1:6])] == kinds
            assert results[6] == await store.read("k") == [1, 2]
            with pytest.raises(ValueError, match="spoiled"):
                await store.update("k", spoil)
            assert await store.read("k") == [1, 2]

    lab.run(test)


def test_a_failure_on_an_old_value_does_not_count(lab: Lab) -> None:
    def withdraw(balance: int) -> int:
        if balance < 50:
            raise ValueError("not enough")
        return balance - 50

    async def test() -> None:
        async with await lab.open() as store, await lab.open() as other:
            await store.put("k", 0)
            await other.put("k", 100)
            assert await store.update("k", withdraw) == 50
            await store.read("k")
            await other.put("k", 10)
            with pytest.raises(ValueError, match="not enough"):
                await store.update("k", withdraw)

    lab.run(test)


def test_no_update_is_lost_between_stores(lab: Lab) -> None:
    async def test() -> None:
        stores = [await lab.open(initial=0) for _ in range(4)]

        async def count(store: ObjectStore[int]) -> None:
            for _ in range(25):
                await store.update("n", plus(1))

        await asyncio.gather(*map(count, stores))
        assert await stores[0].read("n") == 100
        for store in stores:
            await store.close()

    lab.run(test)


class Rival:
    """A bucket in which somebody is always faster."""

    def __init__(self, bucket: Bucket, times: int) -> None:
        self._bucket = bucket
        self.times = times

    def begin(self, write: Write, done: Done) -> None:
        def first(_: Record | Exception) -> None:
            self._bucket.begin(write, done)

        if not self.times:
            return self._bucket.begin(write, done)
        self.times -= 1
        self._bucket.begin(Write(write.name, b"100"), first)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bucket, name)


@pytest.mark.parametrize("known", [False, True])
def test_an_update_gives_up_after_its_attempts(lab: Lab, known: bool) -> None:
    async def test() -> None:
        async with await lab.open() as inner:
            rival = Rival(inner._bucket, 3)
            store: ObjectStore[Any] = await ObjectStore.open(rival, codec=Json(), attempts=4)
            if known:
                await store.read("k")
            assert await store.update("k", plus(1)) == 101
            rival.times = 1000
            both = await asyncio.gather(
                store.update("k", plus(1)), store.update("k", plus(1)), return_exceptions=True
            )
            for error in both:
                assert isinstance(error, ConflictError)
                assert (error.key, error.attempts, error.bucket) == ("k", 4, inner.bucket)
                assert "also in the last of 4 attempts" in str(error)
            await store.close()

    lab.run(test)


def test_a_put_that_expects_a_revision(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open() as store, await lab.open() as other:
            first = await store.put("k", 1, expected_revision=0)
            with pytest.raises(ConflictError, match=f"revision {first} instead of the expected 0"):
                await other.put("k", 2, expected_revision=0)
            second = await other.put("k", 2, expected_revision=first)
            assert second > first
            for expected in (first, second + 1):
                with pytest.raises(ConflictError, match=f"{second} instead of the expected {expected}"):
                    await store.put("k", 3, expected_revision=expected)
            with pytest.raises(ConflictError):
                await store.delete("k", expected_revision=first)
            await store.delete("k", expected_revision=second)
            assert await other.read("k") is None
            with pytest.raises(ConflictError):
                await other.put("k", 3, expected_revision=second)
            assert await other.put("k", 4, expected_revision=0) > second
            with pytest.raises(ConfigurationError):
                await store.put("k", 1, expected_revision=-1)
            with pytest.raises(ConfigurationError):
                await store.delete("k", expected_revision=0)

    lab.run(test)


def test_delete_and_reset(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(initial=5) as store, await lab.open("other") as plain:
            await store.put("a", 1)
            await store.delete("a")
            await store.delete("nothing")
            assert (await store.read("a"), await store.keys()) == (5, [])
            assert await store.update("a", plus(1)) == 6
            assert await store.reset("a") == 5
            assert (await store.entry("a")).exists
            await plain.put("a", 1)
            assert await plain.reset("a") is None
            assert not (await plain.entry("a")).exists

    lab.run(test)


def test_keys_that_match_a_pattern(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open() as store:
            for key in ("a", "a.b", "a.c", "a.b.c", "x.b", "ü.b"):
                await store.put(key, 1)
            await store.delete("a.c")
            assert await store.keys("a.*") == ["a.b"]
            assert await store.keys("*.b") == ["a.b", "x.b", "ü.b"]
            assert await store.keys("a.>") == ["a.b", "a.b.c"]
            assert await store.keys("ü.b") == ["ü.b"]
            assert await store.keys("none") == []

    lab.run(test)


def test_history(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(history=3) as store:
            assert await store.history("k") == []
            for value in (1, 2, 3):
                await store.put("k", value)
            await store.delete("k")
            await store.put("other", 7)
            found = [(entry.operation, entry.value) for entry in await store.history("k")]
            assert found == [("put", 2), ("put", 3), ("delete", None)]

    lab.run(test)


# Time to live


def test_a_value_ends_after_its_time(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(initial=0) as store:
            async with store.watch() as changes:
                assert await changes.snapshot() == {}
                await store.put("a", 1, ttl=1)
                await store.update("b", plus(2), ttl=timedelta(seconds=1))
                await store.put("c", 3, ttl=1)
                await store.update("c", plus(0))  # it stays
                last: dict[str, Entry[Any]] = {}
                while sum(entry.operation == "expire" for entry in last.values()) < 2:
                    entry = await anext(changes)
                    last[entry.key] = entry
                assert {key: (e.value, e.operation) for key, e in last.items()} == {
                    "a": (0, "expire"),
                    "b": (0, "expire"),
                    "c": (3, "put"),
                }
            assert await store.keys() == ["c"]
            assert await store.update("a", plus(1)) == 1  # from what it remembers, which is over
            assert await store.put("b", 5, expected_revision=0) > 0
            with pytest.raises(ConfigurationError, match="1 second or more"):
                await store.put("a", 1, ttl=0.5)

    lab.run(test)


def test_a_value_that_ends_does_not_bring_an_earlier_one_back(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(history=5) as store:
            await store.put("k", 1)
            await store.put("k", 2, ttl=1)
            assert await store.read("k") == 2
            await eventually(lambda: store.read("k"), None)
            assert await store.history("k") == []

    lab.run(test)


def test_a_bucket_whose_values_end(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(ttl=1) as store:
            async with store.watch("*") as changes:
                await store.put("k", 1)
                assert (await anext(changes)).value == 1
                assert (await anext(changes)).operation == "expire"
            assert await store.read("k") is None

    lab.run(test)


# What goes wrong


def test_a_value_that_does_not_decode_is_named(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(codec=Json(int)) as store:
            await store.put("good", 1)
            await apply(store._bucket, Write("bad", b"{"))
            calls: list[Callable[[], Any]] = [
                lambda: store.read("bad"),
                lambda: store.update("bad", plus(1)),
                lambda: store.history("bad"),
                lambda: store.put("k", [1j]),
            ]
            for call in calls:
                with pytest.raises(CodecError, match=r"bucket '.*b', key '(bad|k)'"):
                    await call()
            async with store.watch() as changes:
                assert (await anext(changes)).key == "good"
                with pytest.raises(CodecError, match="key 'bad'"):
                    await anext(changes)
                await store.put("bad", 2)
                assert (await anext(changes)).value == 2

    lab.run(test)


def test_a_key_that_is_none_of_ours_is_named(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open() as store:
            await apply(store._bucket, Write("a=b", b"1"))
            with pytest.raises(StateError, match="'a=b' is not a key"):
                await store.keys()

    lab.run(test)


def test_a_bucket_that_is_deleted_under_a_store(lab: Lab) -> None:
    async def put_one(tx: Transaction[Any]) -> None:
        tx.put("k", 1)

    async def test() -> None:
        store, other = await lab.open(), await lab.open()
        await other.put("k", 1)
        changes = other.watch()
        await changes.snapshot()
        await store.delete_bucket()
        calls: list[Callable[[], Any]] = [
            lambda: anext(changes),
            lambda: other.read("k"),
            lambda: other.update("k", plus(1)),
            lambda: other.put("k", 1),
            lambda: other.keys(),
            lambda: within(other, put_one),
        ]
        for call in calls:
            with pytest.raises(StateError, match="was deleted"):
                await call()
        with pytest.raises(StateError, match="was closed"):
            await store.put("k", 1)
        await other.close()

    lab.run(test)


def test_a_caller_that_is_cancelled_while_it_waits_wants_nothing(lab: Lab) -> None:
    async def test() -> None:
        async with await lab.open(initial=0) as store:
            calls = [asyncio.ensure_future(store.update("k", plus(10**n))) for n in range(3)]
            await asyncio.sleep(0)
            calls[1].cancel()
            assert await asyncio.gather(*calls, return_exceptions=True) != []
            assert await store.read("k") == 101

    lab.run(test)


def test_closing_a_store_tells_those_who_wait(lab: Lab) -> None:
    async def test() -> None:
        store = await lab.open()
        await store.read("k")
        calls = [asyncio.ensure_future(store.update(key, plus(1))) for key in "kkl"]
        calls.append(asyncio.ensure_future(store.put("k", 1)))
        await asyncio.sleep(0)
        await store.close()
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, StateError)
            assert "may or may not" in str(error)

    lab.run(test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": Json}, r"did you mean Json\(\)"),
        ({"codec": Json(), "initial": (1, 2)}, "comes back from the codec as"),
        ({"codec": MessagePack(int), "initial": "x"}, "does not go through the codec"),
        ({"codec": Json(), "attempts": 0}, "attempts must be 1 or more"),
        ({"codec": Json(), "timeout": -1}, "timeout must be"),
    ],
)
def test_arguments_are_checked_before_anything_is_opened(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _ = ObjectStore.open("b", **options)
