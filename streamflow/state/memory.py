"""A bucket in memory that behaves like one in JetStream, for tests and for state that need not survive."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import timedelta

from streamflow.clock import Clock, SystemClock
from streamflow.errors import StateError
from streamflow.policies import positive
from streamflow.state.bucket import (
    BATCH,
    MARKER_SECONDS,
    Done,
    Message,
    Record,
    Stale,
    Write,
    revision,
    whole_seconds,
)
from streamflow.state.keys import matches, unescape

_MAX_VALUE = 1024 * 1024


class MemoryBucket:
    """A bucket for `ObjectStore.open`, with the same revisions, conflicts, expiry, watches and transactions.

    What is in it lives as long as this object, and all stores opened on it see the same. Its time is ``clock``: with
    a `streamflow.testing.VirtualClock` values expire in virtual time. ``history`` values of each key are kept; values
    live for ``ttl``, by default for ever. ``max_value`` is the size of the largest value in bytes (default 1 MiB).

    >>> import asyncio
    >>> from streamflow.codecs import Json
    >>> from streamflow.state import ObjectStore
    >>> async def count() -> int:
    ...     async with ObjectStore.open(MemoryBucket(), codec=Json(int), initial=0) as counts:
    ...         return await counts.update("visits", lambda n: n + 1)
    >>> asyncio.run(count())
    1
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        clock: Clock | None = None,
        history: int = 1,
        ttl: timedelta | float | None = None,
        max_value: int = _MAX_VALUE,
    ) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self._history = positive(history, "history")
        self._ttl = whole_seconds(ttl)
        self.max_value = positive(max_value, "max_value")
        self._records: dict[str, deque[Record]] = {}
        self._revision = 0
        self.messages: list[Message] = []
        """What was committed beside the records, in order."""
        self._feeds: list[_MemoryFeed] = []
        self._deleted = False

    async def get(self, name: str) -> Record | None:
        self._check_existence()
        await asyncio.sleep(0)  # as if it were far away: others may come between
        return self._last(name)

    def begin(self, write: Write, done: Done) -> None:
        asyncio.get_running_loop().call_soon(lambda: done(self._written(write)))

    async def commit(
        self,
        writes: Sequence[Write],
        guards: Sequence[tuple[str, int]],
        messages: Sequence[Message] = (),
    ) -> list[Record]:
        self._check_existence()
        count = len(writes) + len(guards) + len(messages)
        if count > BATCH:
            raise StateError(
                f"bucket {self.name!r}: a transaction of {count} keys is too large for one atomic batch of {BATCH}"
            )
        await asyncio.sleep(0)
        self._check_existence()
        fences = [(write.name, write.expected) for write in writes if write.expected is not None]
        if any(revision(self._last(name)) != expected for name, expected in [*fences, *guards]):
            raise Stale
        records = [self._store(write) for write in writes]
        self.messages += messages
        self._revision += len(messages)
        await asyncio.sleep(0)
        return records

    def check(self, name: str, data: bytes) -> None:
        if len(data) > self.max_value:
            raise StateError(
                f"bucket {self.name!r}, key {unescape(name)!r}: a value of {len(data)} bytes; it takes "
                f"{self.max_value} (max_value)"
            )

    def feed(self, pattern: str, *, history: bool = False, values: bool = True) -> _MemoryFeed:
        return _MemoryFeed(self, pattern, history)

    async def close(self) -> None:
        """Nothing: the bucket lives as long as the object."""

    async def destroy(self) -> None:
        self._deleted = True
        self._records.clear()
        for feed in self._feeds:
            feed.wake.set()

    def _check_existence(self) -> None:
        if self._deleted:
            raise self._gone()

    def _gone(self) -> StateError:
        return StateError(f"bucket {self.name!r} was deleted")

    def _last(self, name: str) -> Record | None:
        records = self._records.get(name)
        return records[-1] if records else None

    def _written(self, write: Write) -> Record | Exception:
        if self._deleted:
            return self._gone()
        if write.expected is not None and revision(self._last(write.name)) != write.expected:
            return Stale()
        return self._store(write)

    def _store(self, write: Write) -> Record:
        self._revision += 1
        record = Record(write.name, write.data, self._revision, self._clock.now(), write.operation)
        ttl = write.ttl
        if write.operation == "delete" and self._history == 1:
            ttl = MARKER_SECONDS
        kept = self._records.setdefault(write.name, deque(maxlen=self._history))
        if write.ttl is not None:
            kept.clear()  # else an earlier value would be back when this one's time is up
        kept.append(record)
        self._tell(record)
        lifetimes = [seconds for seconds in (ttl, self._ttl) if seconds is not None]
        if lifetimes:
            self._clock.call_later(min(lifetimes), lambda: self._expire(record))
        return record

    def _expire(self, record: Record) -> None:
        records = self._records.get(record.name)
        if records is None or record not in records:
            return
        was_last = records[-1] is record
        records.remove(record)
        if not records:
            del self._records[record.name]
        if was_last and record.operation == "put":
            self._tell(record.expired())

    def _tell(self, record: Record) -> None:
        for feed in self._feeds:
            feed.offer(record)


class _MemoryFeed:
    """What a watch of the memory bucket reads. It begins with the first `next`."""

    def __init__(self, bucket: MemoryBucket, pattern: str, history: bool) -> None:
        self.caught_up = False
        self.wake = asyncio.Event()
        self._bucket = bucket
        self._pattern = pattern
        self._history = history
        self._pending: list[Record] = []
        self._begun = False
        self._closed = False

    def offer(self, record: Record) -> None:
        if matches(self._pattern, record.name):
            self._pending.append(record)
            self.wake.set()

    async def next(self) -> list[Record] | None:
        bucket = self._bucket
        await asyncio.sleep(0)
        if self._closed:
            return None
        if not self._begun:
            bucket._check_existence()
            self._begun = True
            bucket._feeds.append(self)
            self._pending = self._stored()
            if not self._pending:
                self.caught_up = True
                return []
        while not self._pending:
            if self._closed:
                return None
            bucket._check_existence()
            self.wake.clear()
            await self.wake.wait()
        records, self._pending = self._pending, []
        self.caught_up = True
        return records

    async def close(self) -> None:
        self._closed = True
        self.wake.set()
        if self in self._bucket._feeds:
            self._bucket._feeds.remove(self)

    def _stored(self) -> list[Record]:
        found = [
            record
            for name, records in self._bucket._records.items()
            if matches(self._pattern, name)
            for record in (records if self._history else [records[-1]])
        ]
        return sorted(found, key=lambda record: record.revision)
