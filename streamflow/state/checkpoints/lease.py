"""The lease of the run that owns the checkpoints of a pipeline: others wait for it to end.

It only keeps runs from disturbing each other. What makes a late one harmless is the condition on each commit.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from streamflow.engine.observer import Observer
from streamflow.errors import FencedError, StateError
from streamflow.state.bucket import Bucket, Record, Stale, Write, apply, revision, value_data

_RENEWALS = 3
"""Times that it is renewed while it lasts."""


class Lease:
    """An entry that ends by itself unless it is renewed."""

    def __init__(self, bucket: Bucket, name: str, owner: str, seconds: int, observer: Observer) -> None:
        self._bucket = bucket
        self._name = name
        self._owner = owner
        self._seconds = seconds
        self._observer = observer
        self._record: Record | None = None

    async def take(self) -> None:
        """Wait until nobody has it, and take it."""
        while True:
            held = await self._bucket.get(self._name)
            if value_data(held) is None:
                try:
                    self._record = await self._put(held)
                except Stale:
                    continue
                return
            assert held is not None
            self._observer.event("waits for the owner", bucket=self._bucket.name, owner=held.data.decode())
            await self._end_of(held)

    async def keep(self) -> None:
        """Renew it again and again. Runs beside the pipeline, and ends with a failure when it is lost."""
        while True:
            await asyncio.sleep(self._seconds / _RENEWALS)
            try:
                self._record = await self._put(self._record)
            except Stale:
                self._record = await self._taken_again()
            except StateError as error:
                # Others may take it now. It may also be that nobody can: the next commit will tell.
                self._observer.event("lease not renewed", bucket=self._bucket.name, error=str(error))

    async def give_back(self) -> None:
        """Let others have it at once."""
        record, self._record = self._record, None
        if record is not None:
            with suppress(Stale, StateError):  # somebody else's, or it ends by itself
                deletion = Write(self._name, operation="delete", expected=record.revision, after=record)
                await apply(self._bucket, deletion)

    async def _put(self, before: Record | None) -> Record:
        write = Write(
            self._name,
            self._owner.encode(),
            expected=revision(before),
            after=before,
            ttl=self._seconds,
        )
        return await apply(self._bucket, write)

    async def _taken_again(self) -> Record:
        """After a pause that was longer than the lease."""
        held = await self._bucket.get(self._name)
        if value_data(held) in (None, self._owner.encode()):
            try:
                return await self._put(held)
            except Stale:
                pass
        raise FencedError(
            f"bucket {self._bucket.name!r}: another run has become the owner of the checkpoints"
        )

    async def _end_of(self, held: Record) -> None:
        feed = self._bucket.feed(self._name)
        last = held
        try:
            while not (feed.caught_up and last.operation != "put"):
                records = await feed.next()
                if records is None:
                    raise StateError(f"bucket {self._bucket.name!r} was closed")
                if not records and last is held:
                    return  # it had ended before
                last = records[-1] if records else last
        finally:
            await feed.close()
