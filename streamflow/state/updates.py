"""Updates of one key: applied in order, written once, each caller with a result of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from streamflow.errors import ConfigurationError, ConflictError
from streamflow.state.bucket import Record, Stale, Write, apply, revision, value_data
from streamflow.state.keys import unescape
from streamflow.state.lanes import Update, settle

if TYPE_CHECKING:
    from streamflow.state.store import ObjectStore

_FIRST_BACKOFF_SECONDS = 0.001
_LAST_BACKOFF_SECONDS = 0.1


class Updates:
    """What a store does in its lanes."""

    def __init__(self, store: ObjectStore[Any]) -> None:
        self._store = store

    def begin(self, name: str, updates: list[Update], done: Callable[[bool], None]) -> bool:
        """The first attempt, on what the store knows of the key."""
        record = self._store._cache.get(name)
        if record is None:
            return False
        group = _Group(self._store, name, record, updates)
        if group.data is None:  # to be tried on what is there now, before it counts
            return False
        group.begin(done)
        return True

    async def apply(self, name: str, updates: list[Update]) -> None:
        """As often as it takes, each time on what is there now."""
        store = self._store
        conflicts = 0
        while True:
            group = _Group(store, name, await store._look(name), updates)
            if group.data is None:
                break  # all of them failed
            try:
                store._wrote(await apply(store._bucket, group.write()))
                break
            except Stale:
                conflicts += 1
            if conflicts == store._attempts:
                raise ConflictError(store.bucket, unescape(name), conflicts)
            await asyncio.sleep(_backoff(conflicts))
        group.settle()


class _Group:
    """Updates applied to one record: what is to be written, and what each caller gets if it is."""

    __slots__ = ("_done", "_store", "data", "name", "record", "ttl", "updates")

    def __init__(
        self, store: ObjectStore[Any], name: str, record: Record | None, updates: list[Update]
    ) -> None:
        self._store = store
        self.name = name
        self.record = record
        self.updates = updates
        self.data: bytes | None = None
        """What to write, None if every update failed."""
        self.ttl: int | None = None
        key, data = unescape(name), value_data(record)
        for update in updates:
            # Each starts from the bytes, so that one that changes a value in place and fails leaves no trace.
            try:
                update.result = result = update.function(store._value(key, data))
                if isinstance(result, CoroutineType):
                    result.close()
                    raise ConfigurationError("update takes a function, and was given a coroutine function")
                data = store._encoded(key, name, result)
            except (Exception, asyncio.CancelledError) as error:
                update.error = error
            else:
                update.error, self.data, self.ttl = None, data, update.ttl

    def write(self) -> Write:
        """The write, if what was applied to is still there."""
        assert self.data is not None
        return Write(self.name, self.data, "put", revision(self.record), self.record, self.ttl)

    def begin(self, done: Callable[[bool], None]) -> None:
        """Write it, and settle the updates unless something else is there."""
        self._done = done
        self._store._bucket.begin(self.write(), self._written)

    def _written(self, outcome: Record | Exception) -> None:
        if isinstance(outcome, Record):
            self._store._wrote(outcome)
            self.settle()
        elif isinstance(outcome, Stale):
            self._store._cache.drop(self.name)
        else:
            for update in self.updates:
                if not update.future.done():
                    update.future.set_exception(outcome)
        self._done(not isinstance(outcome, Stale))

    def settle(self) -> None:
        for update in self.updates:
            error = update.error
            if error is None:
                settle(update.future, update.result)
            elif not update.future.done():
                if isinstance(error, StopIteration):  # a future does not take it
                    error = RuntimeError(f"the function of an update raised {error!r}")
                update.future.set_exception(error)


def _backoff(conflicts: int) -> float:
    """Seconds to wait, so that those who are after the same key do not meet again."""
    return random.uniform(0.0, min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(conflicts, 16), _LAST_BACKOFF_SECONDS))
