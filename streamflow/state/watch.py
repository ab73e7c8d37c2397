"""Follow the values of a store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from streamflow.errors import StateError
from streamflow.state.bucket import Feed, Record
from streamflow.state.entry import Entry
from streamflow.state.keys import RESERVED

T = TypeVar("T")


class Watch(Generic[T]):
    """The entries of the keys that match a pattern: those there are, oldest write first, then each change.

    An asynchronous iterator and context manager; made by `ObjectStore.watch`. `caught_up` turns true once all there
    was at the beginning has been returned; `snapshot` takes all that at once::

        async with store.watch("orders.>") as changes:
            orders = await changes.snapshot()           # what there is
            async for entry in changes:                 # what happens from then on
                ...

    An entry whose `Entry.operation` is "delete" or "expire" says that a key lost its value. After a lost connection it
    goes on where it was; of a key that was written several times meanwhile, or faster than it is read, it may
    return the last entry only. Cancelling a wait for the next entry loses nothing.

    Raises `CodecError` for a value that does not decode, naming the key, and goes on behind it when asked again;
    `StateError` if the bucket is deleted.
    """

    def __init__(
        self, feed: Feed, entry_of: Callable[[Record], Entry[T]], leave: Callable[[Watch[T]], None]
    ) -> None:
        self._feed = feed
        self._entry_of = entry_of
        self._leave = leave
        self._records: deque[Record] = deque()

    @property
    def caught_up(self) -> bool:
        """Whether all entries that there were at the beginning have been returned."""
        return self._feed.caught_up and not self._records

    async def snapshot(self) -> dict[str, Entry[T]]:
        """What has a value, by key, once all there was at the beginning is in. Iterating goes on behind it."""
        entries: dict[str, Entry[T]] = {}
        while True:
            while self._records:
                entry = self._entry_of(self._records.popleft())
                if entry.exists:
                    entries[entry.key] = entry
                else:
                    entries.pop(entry.key, None)
            if self._feed.caught_up:
                return entries
            if not await self._more():
                raise StateError("the watch was closed before it had all values")

    async def aclose(self) -> None:
        """End it: nothing of it is left on the server. Whoever waits for the next entry is told that it is over."""
        self._leave(self)
        self._records.clear()
        await self._feed.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry[T]:
        while not self._records:
            if not await self._more():
                raise StopAsyncIteration
        return self._entry_of(self._records.popleft())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _more(self) -> bool:
        """Take in what comes next; False when it is closed."""
        records = await self._feed.next()
        if records is None:
            return False
        self._records += [record for record in records if record.name.partition(".")[0] != RESERVED]
        return True
