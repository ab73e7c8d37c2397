"""Several keys of a store, changed together or not at all."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from streamflow.errors import StateError
from streamflow.state.bucket import Record, Write, revision, value_data, whole_seconds
from streamflow.state.keys import escape

if TYPE_CHECKING:
    from datetime import timedelta

    from streamflow.state.store import ObjectStore

T = TypeVar("T")


class Transaction(Generic[T]):
    """Reads and writes that happen at one moment, or not. Made by `ObjectStore.transaction`.

    Reads note the revision of what they return. At the end of the block all writes are sent as one atomic batch, with
    the condition that nothing that was read has changed: else none is applied and the block ends with a
    `ConflictError`. An exception in the block discards the writes. A transaction sees its own writes::

        async with store.transaction() as accounts:
            amount = await accounts.read("a")
            accounts.put("b", await accounts.read("b") + amount)
            accounts.delete("a")

    What was read more than once is as it was the first time. Keys that are only read are checked as well, also when
    nothing is written. Each key that was written or only read counts as a message of the batch; the server takes 1,000.
    """

    def __init__(self, store: ObjectStore[T]) -> None:
        self._store = store
        self._reads: dict[str, Record | None] = {}
        self._writes: dict[str, Write] = {}
        self._over = False

    async def read(self, key: str) -> T:
        """The value of a key, as `ObjectStore.read`, and fence it."""
        name = self._name(key)
        write = self._writes.get(name)
        if write is not None:
            return self._store._value(key, write.data if write.operation == "put" else None)
        if name not in self._reads:
            self._reads[name] = await self._store._look(name)
        return self._store._value(key, value_data(self._reads[name]))

    def put(self, key: str, value: T, *, ttl: timedelta | float | None = None) -> None:
        """Store a value at the end of the block; whatever the key has then, unless it was read."""
        name = self._name(key)
        self._writes[name] = Write(name, self._store._encoded(key, name, value), ttl=whole_seconds(ttl))

    def delete(self, key: str) -> None:
        """Delete a key at the end of the block."""
        name = self._name(key)
        self._writes[name] = Write(name, operation="delete")

    async def update(
        self, key: str, function: Callable[[T], T], *, ttl: timedelta | float | None = None
    ) -> T:
        """Read a key, put what the function makes of its value, and return that."""
        value = function(await self.read(key))
        self.put(key, value, ttl=ttl)
        return value

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if kind is None:
            await self._store._commit([*map(self._fenced, self._writes.values())], self._reads)

    def _fenced(self, write: Write) -> Write:
        """A write with the condition that the key is as it was read."""
        if write.name not in self._reads:
            return write
        record = self._reads[write.name]
        return write._replace(expected=revision(record), after=record)

    def _name(self, key: str) -> str:
        if self._over:
            raise StateError("this transaction is over: begin another one")
        return escape(key)
