"""The boundary below `ObjectStore`: a bucket of bytes with revisions, in JetStream or in memory.

Names are escaped keys (`streamflow.state.keys`). What is behind this boundary decides whether a write was applied:
it returns, or raises `Stale`, or a `StateError` if that cannot be found out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from streamflow.errors import ConfigurationError
from streamflow.policies import seconds
from streamflow.state.entry import Operation

BATCH = 1000
"""Writes, guards and messages that one commit may have, unless the server is told otherwise."""

MARKER_SECONDS = 3600
"""How long a deletion can be seen, in a bucket that keeps no history. Then the key is as if it had never been."""


# Records and writes are tuples: many are made, and a tuple is made in a third of the time of a frozen attrs object.
class Record(NamedTuple):
    """What is stored last under a name, a value or the mark of its deletion.

    ``writers`` says who wrote it and who wrote before, so that a write without an answer can be found.
    ``ttl`` is how long it lives, in seconds, as far as the bucket tells.
    """

    name: str
    data: bytes
    revision: int
    at: float
    operation: Operation = "put"
    writers: str = ""
    ttl: str = ""

    def expired(self) -> Record:
        """The record of its end."""
        return self._replace(data=b"", operation="expire", ttl="")


def revision(record: Record | None) -> int:
    """The revision to expect where this is stored."""
    return record.revision if record is not None else 0


def value_data(record: Record | None) -> bytes | None:
    """The bytes of the value, None if there is none."""
    return record.data if record is not None and record.operation == "put" else None


class Write(NamedTuple):
    """A value to store, or a deletion.

    ``expected`` is the revision of the last record under the name, 0 for none, None for whatever there is.
    ``after`` is that record, as far as it is known. ``ttl`` is in whole seconds.
    """

    name: str
    data: bytes = b""
    operation: Literal["put", "delete"] = "put"
    expected: int | None = None
    after: Record | None = None
    ttl: int | None = None


class Message(NamedTuple):
    """A message beside the records, in the bucket's stream: other streams can take it from there."""

    subject: bytes
    header: bytes
    data: bytes


class Stale(Exception):
    """Another revision than the expected one is stored. Nothing of the write, or of the commit, was applied."""


Done = Callable[[Record | Exception], None]
"""Told of a write: the record that is stored now, `Stale`, or a `StateError`. It must not raise."""


class Feed(Protocol):
    """The records that match a pattern: what there is, then what comes."""

    @property
    def caught_up(self) -> bool:
        """Whether all records that there were at the beginning have been returned."""
        ...

    async def next(self) -> list[Record] | None:
        """The next records; none when it has just caught up. None once it is closed. Cancelling it loses nothing."""
        ...

    async def close(self) -> None:
        """Leave nothing behind. Whoever waits in `next` gets None."""
        ...


class Bucket(Protocol):
    """Named bytes with revisions."""

    name: str

    @property
    def max_value(self) -> int:
        """The size of the largest value in bytes."""
        ...

    async def get(self, name: str) -> Record | None:
        """The last record under a name, never older than a write that has been answered."""
        ...

    def begin(self, write: Write, done: Done) -> None:
        """Apply one write and call ``done`` later. No two at a time may be for the same name."""
        ...

    async def commit(
        self,
        writes: Sequence[Write],
        guards: Sequence[tuple[str, int]],
        messages: Sequence[Message] = (),
    ) -> list[Record]:
        """Apply all writes or none, and only if each of the guards' names has the revision beside it.

        The ``messages`` are stored behind the records, under ``$TX.<bucket>.`` and their subjects.

        Returns the new records, an empty list if they were applied and their revisions are not known.
        """
        ...

    def check(self, name: str, data: bytes) -> None:
        """Raise a `StateError` if the bucket cannot hold a value for its size."""
        ...

    def feed(self, pattern: str, *, history: bool = False, values: bool = True) -> Feed:
        """Follow what matches an escaped pattern: of what there is, the last records or (``history``) all of them.

        Without ``values`` the records' data is empty.
        """
        ...

    async def close(self) -> None: ...

    async def destroy(self) -> None:
        """Delete the bucket and all that is in it."""
        ...


async def apply(bucket: Bucket, write: Write) -> Record:
    """Apply one write and wait for it."""
    future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()

    def done(outcome: Record | Exception) -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    bucket.begin(write, done)
    return await future


def whole_seconds(ttl: object, what: str = "ttl") -> int | None:
    """Check a time to live. The server counts it in whole seconds; it is rounded up."""
    if ttl is None:
        return None
    amount = seconds(ttl, what)  # type: ignore[arg-type]
    if amount < 1:
        raise ConfigurationError(f"{what} must be 1 second or more, not {ttl!r}")
    return -int(-amount // 1)
