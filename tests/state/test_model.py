"""Two stores on one bucket against a dict, step by step as hypothesis likes, in memory and on a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from streamflow.state import ConflictError, Entry, ObjectStore, Transaction, Watch
from streamflow.testing import NatsServer
from streamflow.testing.virtual import VirtualLoop
from tests.state.support import Lab, MemoryLab, ServerLab, plus

HISTORY = 3
KEYS = ["a", "a.b", "", "a..b", "x y", "*"]
MATCHING = {">": KEYS, "a.>": ["a.b", "a..b"], "a": ["a"], "*": ["a", "", "x y", "*"]}

keys = st.sampled_from(KEYS)
values = st.integers(-3, 3)
either = st.integers(0, 1)
Step = tuple[str, Any]


class StoreMachine(RuleBasedStateMachine):
    """Each rule does something with one of the stores and with the model; a watch follows all of it."""

    def __init__(self, lab: Lab, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        super().__init__()
        self.lab = lab
        self.runner = asyncio.Runner(loop_factory=new_loop)
        self.model: dict[str, int] = {}
        self.history: dict[str, list[Step]] = {key: [] for key in KEYS}
        self.last_revision = 0
        self.watched: dict[str, int] = {}
        self.run(self.begin())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def begin(self) -> None:
        self.stores: list[ObjectStore[int]] = [
            await self.lab.open(initial=0, history=HISTORY) for _ in range(2)
        ]
        self.watch: Watch[int] = self.stores[0].watch()
        assert await self.watch.snapshot() == {}

    def teardown(self) -> None:
        self.run(self.end())
        self.runner.close()

    async def end(self) -> None:
        for store in self.stores:
            assert await store.keys() == sorted(self.model)
            for key in KEYS:
                assert await store.read(key) == self.model.get(key, 0)
        async with self.stores[1].watch() as again:
            found = {key: entry.value for key, entry in (await again.snapshot()).items()}
            assert found == self.model
        while self.watched != self.model:
            self.seen(await anext(self.watch))  # or the test ends by its deadline
        await self.stores[0].delete_bucket()
        await self.stores[1].close()

    def seen(self, entry: Entry[int]) -> None:
        if entry.exists:
            self.watched[entry.key] = entry.value
        else:
            self.watched.pop(entry.key, None)

    # What the model does

    def wrote(self, key: str, value: int) -> None:
        self.model[key] = value
        self.history[key] = [*self.history[key], ("put", value)][-HISTORY:]

    def deleted(self, key: str) -> None:
        self.model.pop(key, None)
        self.history[key] = [*self.history[key], ("delete", 0)][-HISTORY:]

    # What can happen

    @rule(store=either, key=keys, value=values)
    def put(self, store: int, key: str, value: int) -> None:
        revision = self.run(self.stores[store].put(key, value))
        assert revision > self.last_revision
        self.last_revision = revision
        self.wrote(key, value)

    @rule(store=either, key=keys, value=values, wrong=st.booleans(), looked=st.booleans())
    def put_expecting(self, store: int, key: str, value: int, wrong: bool, looked: bool) -> None:
        async def work() -> None:
            reader = self.stores[store if looked else 1 - store]
            expected = (await reader.entry(key)).revision + (1 if wrong else 0)
            await self.stores[store].put(key, value, expected_revision=expected)

        if wrong:
            with pytest.raises(ConflictError):
                self.run(work())
        else:
            self.run(work())
            self.wrote(key, value)

    @rule(store=either, key=keys, amounts=st.lists(st.none() | values, min_size=1, max_size=4))
    def update(self, store: int, key: str, amounts: list[int | None]) -> None:
        """Several at once; those without an amount fail."""

        def change(amount: int | None) -> Callable[[int], int]:
            return lambda value: value // 0 if amount is None else value + amount

        async def work() -> list[Any]:
            calls = (self.stores[store].update(key, change(amount)) for amount in amounts)
            return await asyncio.gather(*calls, return_exceptions=True)

        value = self.model.get(key, 0)
        for amount, result in zip(amounts, self.run(work()), strict=True):
            if amount is None:
                assert isinstance(result, ZeroDivisionError)
            else:
                value += amount
                assert result == value
        if any(amount is not None for amount in amounts):
            self.wrote(key, value)  # one write for all

    @rule(key=keys, amounts=st.lists(values, min_size=2, max_size=4))
    def update_from_both(self, key: str, amounts: list[int]) -> None:
        async def work() -> None:
            stores = self.stores * 2
            await asyncio.gather(
                *(store.update(key, plus(n)) for store, n in zip(stores, amounts, strict=False))
            )

        before = self.model.get(key, 0)
        self.run(work())
        entries = self.run(self.stores[0].history(key))
        assert entries[-1].value == before + sum(amounts)
        self.model[key] = entries[-1].value
        self.history[key] = [(entry.operation, entry.value) for entry in entries]

    @rule(store=either, key=keys)
    def delete(self, store: int, key: str) -> None:
        self.run(self.stores[store].delete(key))
        self.deleted(key)

    @rule(store=either, key=keys)
    def reset(self, store: int, key: str) -> None:
        assert self.run(self.stores[store].reset(key)) == 0
        self.wrote(key, 0)

    @rule(
        store=either,
        reads=st.lists(keys, max_size=3),
        writes=st.dictionaries(keys, st.none() | values, max_size=3),
        meanwhile=st.none() | keys,
    )
    def transact(
        self, store: int, reads: list[str], writes: dict[str, int | None], meanwhile: str | None
    ) -> None:
        async def work() -> None:
            async with self.stores[store].transaction() as tx:
                for key in reads:
                    assert await tx.read(key) == self.model.get(key, 0)
                await stage(tx)
                if meanwhile is not None:
                    await self.stores[1 - store].put(meanwhile, 7)

        async def stage(tx: Transaction[int]) -> None:
            for key, value in writes.items():
                if value is None:
                    tx.delete(key)
                else:
                    tx.put(key, value)

        checked = bool(writes) or len(set(reads)) > 1
        if meanwhile in reads and checked:
            with pytest.raises(ConflictError):
                self.run(work())
            self.wrote(str(meanwhile), 7)
            return
        self.run(work())
        if meanwhile is not None:
            self.wrote(meanwhile, 7)
        for key, value in writes.items():
            if value is None:
                self.deleted(key)
            else:
                self.wrote(key, value)

    @rule(store=either, key=keys)
    def look(self, store: int, key: str) -> None:
        entry = self.run(self.stores[store].entry(key))
        assert (entry.exists, entry.value) == (key in self.model, self.model.get(key, 0))
        found = self.run(self.stores[store].history(key))
        assert [(entry.operation, entry.value) for entry in found] == self.history[key]

    @rule(store=either, pattern=st.sampled_from([*MATCHING]))
    def list_keys(self, store: int, pattern: str) -> None:
        expected = sorted(key for key in MATCHING[pattern] if key in self.model)
        assert self.run(self.stores[store].keys(pattern)) == expected


class MemoryMachine(StoreMachine):
    """In virtual time, where values can end."""

    def __init__(self) -> None:
        super().__init__(MemoryLab(), VirtualLoop)
        self.now = 0
        self.mortal: dict[int, list[tuple[str, int]]] = {}

    @rule(store=either, key=keys, value=values, ttl=st.integers(1, 5))
    def put_for_a_while(self, store: int, key: str, value: int, ttl: int) -> None:
        self.run(self.stores[store].put(key, value, ttl=ttl))
        self.model[key] = value
        self.history[key] = [("put", value)]
        revision = self.run(self.stores[store].entry(key)).revision
        self.mortal.setdefault(self.now + ttl, []).append((key, revision))

    @rule(seconds=st.integers(1, 4))
    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            due = self.mortal.pop(self.now, [])
            before = {key: self.run(self.stores[0].entry(key)).revision for key, _ in due}
            self.run(asyncio.sleep(1))
            for key, revision in due:
                if before[key] == revision:
                    self.model.pop(key)
                    self.history[key] = []
                else:
                    found = self.run(self.stores[0].history(key))
                    assert revision not in [entry.revision for entry in found]
                    self.history[key] = [(entry.operation, entry.value) for entry in found]


def test_a_store_in_memory_is_a_dict() -> None:
    run_state_machine_as_test(MemoryMachine, settings=settings(max_examples=60, stateful_step_count=30))


def test_a_store_on_a_server_is_a_dict(shared_server: NatsServer) -> None:
    class ServerMachine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(ServerLab(shared_server), asyncio.SelectorEventLoop)

    run_state_machine_as_test(
        ServerMachine,
        settings=settings(max_examples=15, stateful_step_count=20),
    )
