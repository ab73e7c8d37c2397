"""Typed values that survive, in a key-value bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from streamflow.codecs import Codec, check_codec
from streamflow.errors import CodecError, ConfigurationError, ConflictError, shorten
from streamflow.policies import positive, seconds
from streamflow.state.bucket import Bucket, Record, Stale, Write, apply, revision, value_data, whole_seconds
from streamflow.state.cache import Cache
from streamflow.state.entry import Entry
from streamflow.state.keys import RESERVED, escape, escape_pattern, unescape
from streamflow.state.lanes import Lanes
from streamflow.state.transaction import Transaction
from streamflow.state.updates import Updates
from streamflow.state.watch import Watch

if TYPE_CHECKING:
    from nats.aio.client import Client

T = TypeVar("T")
V = TypeVar("V")

_NOT_GIVEN: Any = object()

Duration = timedelta | float


class Opening(Generic[T]):
    """A store that will be opened: ``await`` it, or use it as an asynchronous context manager that also closes it."""

    def __init__(self, open: Callable[[], Awaitable[ObjectStore[T]]]) -> None:
        self._open = open
        self._store: ObjectStore[T] | None = None

    def __await__(self) -> Generator[Any, Any, ObjectStore[T]]:
        return self._open().__await__()

    async def __aenter__(self) -> ObjectStore[T]:
        self._store = await self._open()
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._store is not None
        await self._store.close()


class ObjectStore(Generic[T]):
    """Typed values under keys, in a NATS key-value bucket. Made by `open`::

        async with ObjectStore.open("stock", codec=Json(int), initial=0) as stock:
            await stock.update("apples", lambda n: n + 5)

    Any string is a key; dots separate its tokens for patterns (`streamflow.state.keys` has the details). A key without
    a value reads as the store's ``initial`` value, or as None.

    Every write gets a revision, which counts all writes to the bucket. A write that depends on what was read is applied
    only if that has not changed meanwhile, in this process or in any other: no update is ever lost. A write whose
    answer never came, because the server or the connection went away, is looked up when the server is back, so that it
    is applied once and not twice.

    Reads are never older than a write that has been answered. The store may be used by many tasks at a time. Writes to
    one key are applied in the order in which they were called; writes to different keys are under way together.

    Raises, besides what the methods name: `CodecError` for a value that does not encode or decode, `StateError` if the
    bucket cannot be used: deleted, full, no answer within the ``timeout`` given to `open`.
    """

    def __init__(
        self, bucket: Bucket, codec: Codec[Any], initial: bytes | None, *, attempts: int, owned: bool
    ) -> None:
        self._bucket = bucket
        self._codec = codec
        self._initial = initial
        self._attempts = attempts
        self._owned = owned
        self._cache = Cache()
        self._lanes = Lanes(Updates(self), f"the store of bucket {bucket.name!r} was closed")
        self._watches: set[Watch[T]] = set()

    @overload
    @classmethod
    def open(
        cls,
        bucket: str | Bucket,
        *,
        codec: Codec[V],
        initial: V,
        servers: str | Sequence[str] | None = None,
        connection: Client | None = None,
        history: int | None = None,
        ttl: Duration | None = None,
        replicas: int | None = None,
        storage: Literal["file", "memory"] | None = None,
        max_bytes: int | None = None,
        attempts: int = 32,
        timeout: Duration = 30.0,
    ) -> Opening[V]: ...
    @overload
    @classmethod
    def open(
        cls,
        bucket: str | Bucket,
        *,
        codec: Codec[V],
        servers: str | Sequence[str] | None = None,
        connection: Client | None = None,
        history: int | None = None,
        ttl: Duration | None = None,
        replicas: int | None = None,
        storage: Literal["file", "memory"] | None = None,
        max_bytes: int | None = None,
        attempts: int = 32,
        timeout: Duration = 30.0,
    ) -> Opening[V | None]: ...
    @classmethod
    def open(
        cls,
        bucket: str | Bucket,
        *,
        codec: Codec[Any],
        initial: Any = _NOT_GIVEN,
        servers: str | Sequence[str] | None = None,
        connection: Client | None = None,
        history: int | None = None,
        ttl: Duration | None = None,
        replicas: int | None = None,
        storage: Literal["file", "memory"] | None = None,
        max_bytes: int | None = None,
        attempts: int = 32,
        timeout: Duration = 30.0,
    ) -> Opening[Any]:
        """Open a bucket, and create it if it is not there: ``await`` this, or ``async with`` it.

        ``codec`` turns values into bytes; ``initial`` is what a key without a value reads as (default None). It is
        kept encoded, so that each reader gets its own. Without ``servers`` (URL or list) and ``connection`` (an open
        nats-py client, left open) the environment's ``NATS_URL`` counts, then the local server.

        How the bucket is created, and what it must be if it exists (None: whatever it is, by default the first of
        these): ``history`` values of each key (1), values that live for ``ttl`` (for ever), ``replicas`` (1),
        ``storage`` ("file" or "memory"), at most ``max_bytes`` (no limit). A bucket that exists is never changed.

        ``attempts`` is how often an update is tried while others change the same key; ``timeout`` how long an
        operation may go without an answer. ``bucket`` may also be a `MemoryBucket`, for which none of the settings of
        a server count.

        Raises `ConfigurationError` for an argument that cannot work, such as an initial value that the codec does not
        give back as it was, `ConnectorError` if no server is there, and `StateError` for one older than 2.14 and for a
        bucket that has other settings, each of which is listed.
        """
        check_codec(codec, "ObjectStore.open")
        positive(attempts, "attempts")
        first = None if initial is _NOT_GIVEN else _encoded_initial(codec, initial)
        patience = seconds(timeout, "timeout")

        async def opened() -> ObjectStore[Any]:
            if not isinstance(bucket, str):
                return cls(bucket, codec, first, attempts=attempts, owned=False)
            from streamflow.state.jetstream import BucketSettings, open_bucket

            settings = BucketSettings(bucket, history, ttl, replicas, storage, max_bytes)
            found = await open_bucket(settings, servers=servers, connection=connection, timeout=patience)
            return cls(found, codec, first, attempts=attempts, owned=True)

        return Opening(opened)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket.name

    # Reading

    async def read(self, key: str) -> T:
        """The value of a key; without one, the initial value or None."""
        return self._value(key, value_data(await self._look(escape(key))))

    async def entry(self, key: str) -> Entry[T]:
        """The value of a key with its revision, which is 0 if there is none."""
        record = await self._look(escape(key))
        if record is None or record.operation != "put":
            return Entry(key, self._value(key, None), 0, 0.0, "absent")
        return self._entry(record)

    async def keys(self, pattern: str = ">") -> list[str]:
        """The keys that have a value and match a pattern, in order.

        In a pattern ``*`` stands for one token and ``>`` at its end for one or more: "orders.*", "orders.>".
        """
        feed = self._bucket.feed(escape_pattern(pattern), values=False)
        names: set[str] = set()
        try:
            while not feed.caught_up:
                for record in await feed.next() or ():
                    (names.add if record.operation == "put" else names.discard)(record.name)
        finally:
            await feed.close()
        return sorted(unescape(name) for name in names if name.partition(".")[0] != RESERVED)

    def watch(self, pattern: str = ">") -> Watch[T]:
        """Follow the keys that match a pattern: see `Watch`."""
        watch = Watch(self._bucket.feed(escape_pattern(pattern)), self._entry, self._watches.discard)
        self._watches.add(watch)
        return watch

    async def history(self, key: str) -> list[Entry[T]]:
        """What the bucket still has of a key, deletions included, oldest first."""
        feed = self._bucket.feed(escape(key), history=True)
        records: list[Record] = []
        try:
            while not feed.caught_up:
                records += await feed.next() or ()
        finally:
            await feed.close()
        return [self._entry(record) for record in records]

    # Writing

    async def update(self, key: str, function: Callable[[T], T], *, ttl: Duration | None = None) -> T:
        """Replace the value of a key by what a function makes of it, and return that.

        The function is called again if the key was changed by somebody else meanwhile, so it should do nothing but
        compute. What it raises is raised here and changes nothing. Updates of one key that wait at the same time are
        applied one after the other and written once. With ``ttl`` (1 s or more) the key loses its value after that
        time, unless it is written again; without, it keeps it.

        Raises `ConflictError` if others were faster in each of the store's attempts.
        """
        result: T = await self._lanes.update(
            escape(key), function, None if ttl is None else whole_seconds(ttl)
        )
        return result

    async def put(
        self, key: str, value: T, *, expected_revision: int | None = None, ttl: Duration | None = None
    ) -> int:
        """Store a value and return its revision.

        With ``expected_revision`` only if the key has that revision, 0 meaning that it has no value; else it raises a
        `ConflictError`. ``ttl`` is as for `update`.
        """
        name = escape(key)
        if expected_revision is not None:
            positive(expected_revision, "expected_revision", least=0)
        write = Write(name, self._encoded(key, name, value), ttl=whole_seconds(ttl))
        written: int = await self._lanes.run(name, lambda: self._write(key, write, expected_revision))
        return written

    async def delete(self, key: str, *, expected_revision: int | None = None) -> None:
        """Take a key's value away, if it has one; with ``expected_revision`` only if it has that revision."""
        name = escape(key)
        if expected_revision is not None:
            positive(expected_revision, "expected_revision")
        write = Write(name, operation="delete")
        await self._lanes.run(name, lambda: self._write(key, write, expected_revision))

    async def reset(self, key: str) -> T:
        """Put the initial value back, and return it; a store without one deletes the key."""
        value = self._value(key, None)
        if self._initial is None:
            await self.delete(key)
        else:
            await self.put(key, value)
        return value

    def transaction(self) -> Transaction[T]:
        """Change several keys together or not at all: see `Transaction`."""
        return Transaction(self)

    async def delete_bucket(self) -> None:
        """Delete the bucket with all that is in it, and close the store."""
        await self._lanes.close()
        await self._bucket.destroy()
        await self.close()

    async def close(self) -> None:
        """End the store: its watches, and its connection unless that was given to `open`.

        A write that somebody still waits for is given up, and may or may not have been applied.
        """
        await self._lanes.close()
        for watch in [*self._watches]:
            await watch.aclose()
        if self._owned:
            self._owned = False
            await self._bucket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Inside

    async def _look(self, name: str) -> Record | None:
        record = await self._bucket.get(name)
        self._cache.put(name, record or Record(name, b"", 0, 0.0, "absent"))
        return record

    async def _write(self, key: str, write: Write, expected: int | None) -> int:
        """A put or a delete, in the key's lane."""
        if expected is None:
            return self._wrote(await apply(self._bucket, write))
        record = self._cache.get(write.name)
        for _ in range(self._attempts):
            if record is None or _shown(record) != expected:
                record = await self._look(write.name)
            if _shown(record) != expected:
                break
            conditional = Write(write.name, write.data, write.operation, revision(record), record, write.ttl)
            try:
                return self._wrote(await apply(self._bucket, conditional))
            except Stale:
                record = await self._look(write.name)
        raise ConflictError(
            self.bucket, key, detail=f" (revision {_shown(record)} instead of the expected {expected})"
        )

    def _wrote(self, record: Record) -> int:
        self._cache.put(record.name, record)
        return record.revision

    async def _commit(self, writes: list[Write], reads: Mapping[str, Record | None]) -> None:
        """Apply a transaction."""
        written = {write.name for write in writes}
        guards = [(name, revision(record)) for name, record in reads.items() if name not in written]
        if not writes and len(guards) < 2:
            return  # one value is always as it was at some moment
        try:
            records = await self._bucket.commit(writes, guards)
        except Stale:
            raise await self._conflict(reads) from None
        for name in written:
            self._cache.drop(name)
        for record in records:
            self._cache.put(record.name, record)

    async def _conflict(self, reads: Mapping[str, Record | None]) -> ConflictError:
        """The error of a transaction, with the key at fault."""
        names = [*reads]
        for name, now in zip(names, await asyncio.gather(*map(self._look, names)), strict=True):
            before = revision(reads[name])
            if revision(now) != before:
                detail = f" (read at revision {before}, now at {revision(now)})"
                return ConflictError(self.bucket, unescape(name), detail=detail)
        return ConflictError(self.bucket, ", ".join(map(unescape, names)))

    def _entry(self, record: Record) -> Entry[T]:
        key = unescape(record.name)
        return Entry(key, self._value(key, value_data(record)), record.revision, record.at, record.operation)

    def _value(self, key: str, data: bytes | None) -> T:
        """What these bytes are as a value, and no bytes as the initial one."""
        if data is None:
            return self._codec.decode(self._initial) if self._initial is not None else None  # type: ignore[return-value]
        try:
            value: T = self._codec.decode(data)
            return value
        except CodecError as error:
            raise CodecError(f"bucket {self.bucket!r}, key {shorten(key)}: {error}") from error

    def _encoded(self, key: str, name: str, value: T) -> bytes:
        try:
            data = self._codec.encode(value)
        except CodecError as error:
            raise CodecError(f"bucket {self.bucket!r}, key {shorten(key)}: {error}") from error
        self._bucket.check(name, data)
        return data


def _shown(record: Record | None) -> int:
    """The revision as callers know it: 0 for a key without a value."""
    return record.revision if record is not None and record.operation == "put" else 0


def _encoded_initial(codec: Codec[Any], initial: Any) -> bytes:
    try:
        data = codec.encode(initial)
        again = codec.decode(data)
    except CodecError as error:
        raise ConfigurationError(
            f"initial={shorten(initial)} does not go through the codec: {error}"
        ) from error
    if again != initial:
        raise ConfigurationError(
            f"initial={shorten(initial)} comes back from the codec as {shorten(again)}: choose one with a type"
        )
    return data
