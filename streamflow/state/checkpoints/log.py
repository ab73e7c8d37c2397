"""The checkpoints of one pipeline in a bucket.

Each commit adds what changed as new segments and says in one record, ``position``, which segments count. To keep their
number and the share of what is out of date small, some segments are dropped with a commit that saves again what was
still valid in them: the newest once there are many small ones, the oldest while more than half of all is out of date.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count, takewhile
from typing import Any

from streamflow.engine.checkpoint import Rewrite, Snapshot, TableSnapshot
from streamflow.engine.outbox import Output
from streamflow.engine.points import reached
from streamflow.errors import FencedError, FullError, StateError
from streamflow.state.bucket import BATCH, Bucket, Message, Record, Stale, Write, revision, value_data
from streamflow.state.checkpoints.lease import Lease
from streamflow.state.checkpoints.place import Place
from streamflow.state.checkpoints.segments import (
    SEGMENT_BYTES,
    Segment,
    cut,
    pack,
    pack_outputs,
    unpack,
    unpack_outputs,
)
from streamflow.v1 import checkpoint_pb2 as pb

SinkOutput = tuple[str, Output]

VERSION = 1
"""Of the format. A reader refuses one that it does not know."""

_SMALL_BYTES = SEGMENT_BYTES // 2
_MOST_SMALL = 16
_OUT_OF_DATE = 10_000
"""Entries that may be out of date, however few there are."""
_FULL_SECONDS = 0.5
_PACKED = 64
"""Messages of a batch that are kept for outputs that do not fit into it one by one: 64 MB with the usual limits."""
_SPARE = 8
"""Keys of dropped segments that are kept to be written again: a deletion leaves a mark for a while."""


class BucketLog:
    """Made by `streamflow.state.checkpoints.open_log`, which holds the lease."""

    def __init__(self, bucket: Bucket, prefix: str, owner: str, lease: Lease, place: Place) -> None:
        self.last: Snapshot | None = None
        self._bucket = bucket
        self._prefix = prefix
        self._owner = owner
        self._lease = lease
        self.place = place
        self._position: Record | None = None
        self._checkpoint = pb.Checkpoint(version=VERSION)
        self._meta: dict[str, bytes] = {}
        self._segments: list[Segment] = []
        self._dropped: list[Segment] = []
        self._spare: dict[int, int] = {}
        """Names of segments that do not count any more, and of how many parts there is something."""
        self._written = 0

    # Beginning

    async def begin(self) -> None:
        """Keep earlier owners out, and load what they have committed."""
        name = f"{self._prefix}.position"
        while True:
            found = await self._bucket.get(name)
            data = value_data(found)
            checkpoint = _checkpoint(data, self._where("position")) if data is not None else None
            if checkpoint is not None:
                self._checkpoint = checkpoint
            self._checkpoint.owner = self._owner
            try:
                await self._write([self._position_write(self._checkpoint, found)])
            except Stale:
                continue  # the owner before was still at work
            break
        if checkpoint is not None and checkpoint.number:
            self.last = await self._load(checkpoint)
            await self._move(await self._left())

    async def look(self) -> Snapshot | None:
        """The last commit of whoever owns the checkpoints, without becoming the owner."""
        while True:
            found = await self._bucket.get(f"{self._prefix}.position")
            data = value_data(found)
            if data is None:
                return None
            try:
                return await self._load(_checkpoint(data, self._where("position")))
            except StateError:
                if await self._bucket.get(f"{self._prefix}.position") == found:
                    raise  # else a commit came in between

    async def _load(self, checkpoint: pb.Checkpoint) -> Snapshot:
        stored = await self._stored()
        self._segments = [*map(_segment, checkpoint.segments)]
        tables: dict[str, dict[bytes, bytes | None]] = {step: {} for step in checkpoint.meta}
        for segment in self._segments:
            parts = [stored.pop((segment.name, part), None) for part in range(segment.parts)]
            for step, entries in self._unpacked(segment, parts).items():
                tables.setdefault(step, {}).update(entries)
            await asyncio.sleep(0)
        for name, part in stored:
            self._spare[name] = max(self._spare.get(name, 0), part + 1)
        self._meta = dict(checkpoint.meta)
        snapshots = {
            step: TableSnapshot(
                {slot: state for slot, state in entries.items() if state is not None},
                _decoded(checkpoint.meta[step]) if step in checkpoint.meta else {},
            )
            for step, entries in sorted(tables.items())
        }
        positions = {step: _decoded(position) for step, position in sorted(checkpoint.positions.items())}
        return Snapshot(checkpoint.number, positions, snapshots, checkpoint.finished, dict(checkpoint.shapes))

    async def _left(self) -> list[SinkOutput]:
        """The outputs that the owner before had committed and not brought to their place."""
        left: list[SinkOutput] = []
        for each in self._checkpoint.outbox:
            segment = _segment(each)
            name = f"outbox.{segment.name}"
            parts = [
                value_data(await self._bucket.get(f"{self._prefix}.{name}.{part}"))
                for part in range(segment.parts)
            ]
            try:
                left += unpack_outputs(segment.joined(parts))
            except StateError as error:
                raise StateError(f"{self._where(name)} cannot be read: {error}") from error
        return left[self._checkpoint.moved :]

    async def _stored(self) -> dict[tuple[int, int], bytes]:
        """All parts of segments that there are."""
        prefix = f"{self._prefix}.segment."
        found: dict[tuple[int, int], bytes] = {}
        feed = self._bucket.feed(f"{prefix}>")
        try:
            while not feed.caught_up:
                for record in await feed.next() or ():
                    if record.operation == "put":
                        name, part = record.name.removeprefix(prefix).split(".")
                        found[int(name), int(part)] = record.data
        finally:
            await feed.close()
        return found

    def _unpacked(
        self, segment: Segment, parts: Sequence[bytes | None]
    ) -> dict[str, dict[bytes, bytes | None]]:
        try:
            return unpack(segment.joined(parts))
        except StateError as error:
            raise StateError(f"{self._where(f'segment.{segment.name}')} cannot be read: {error}") from error

    # Going on

    async def stale(self, live: int) -> Rewrite | None:
        small = [*takewhile(lambda segment: segment.size < _SMALL_BYTES, reversed(self._segments))][::-1]
        if len(small) > _MOST_SMALL:
            chosen = small
        elif sum(segment.entries for segment in self._segments) > 2 * live + _OUT_OF_DATE:
            chosen = self._oldest()
        else:
            return None
        tables: dict[str, list[bytes]] = {}
        parts = [self._part_name(s.name, part) for s in chosen for part in range(s.parts)]
        records = iter(await asyncio.gather(*map(self._bucket.get, parts)))
        oldest = chosen[0] is self._segments[0]
        for segment in chosen:
            found = [value_data(next(records)) for _ in range(segment.parts)]
            for step, entries in self._unpacked(segment, found).items():
                tables.setdefault(step, []).extend(entries)
        self._dropped = chosen
        return Rewrite(tables, forget_gone=oldest)

    def _oldest(self) -> list[Segment]:
        """As much as the last commit wrote, so that the log gets shorter as fast as it grows."""
        chosen: list[Segment] = []
        for segment in self._segments:
            chosen.append(segment)
            if sum(each.entries for each in chosen) >= self._written:
                break
        return chosen

    async def commit(self, change: Snapshot) -> None:
        kept = [segment for segment in self._segments if segment not in self._dropped]
        spare = self._spare | {segment.name: segment.parts for segment in self._dropped}
        taken = {segment.name for segment in kept}
        names = (name for name in count() if name not in taken)
        added: list[Segment] = []
        writes: list[Write] = []
        largest = self._bucket.max_value
        for data, entries in pack({step: table.entries for step, table in change.tables.items()}):
            segment = Segment.of(next(names), data, entries, largest)
            added.append(segment)
            writes += [
                Write(self._part_name(segment.name, part), piece)
                for part, piece in enumerate(cut(data, largest))
            ]
            # More parts of an earlier segment of this name may stay: they are not read.
            spare.pop(segment.name, None)
            await asyncio.sleep(0)
        for name in sorted(spare)[_SPARE:]:
            writes += [
                Write(self._part_name(name, part), operation="delete") for part in range(spare.pop(name))
            ]
        outputs = [(sink, output) for sink, each in change.outputs.items() for output in each]
        now, later, outbox = self._split(outputs, writes)
        self._meta |= {step: _encoded(table.meta) for step, table in change.tables.items()}
        number = self._checkpoint.outputs
        self._checkpoint = pb.Checkpoint(
            version=VERSION,
            owner=self._owner,
            number=change.number,
            positions={step: _encoded(position) for step, position in change.positions.items()},
            meta=self._meta,
            shapes=change.shapes,
            segments=[*map(_listed, kept), *map(_listed, added)],
            finished=change.finished,
            outputs=number,
            outbox=[*map(_listed, outbox)],
        )
        await self._write_on(writes, now)
        self._segments = [*kept, *added]
        self._dropped = []
        self._spare = spare
        self._written = sum(segment.entries for segment in added)
        await self._move(later)

    def _split(
        self, outputs: list[SinkOutput], writes: list[Write]
    ) -> tuple[list[SinkOutput], list[SinkOutput], list[Segment]]:
        """The outputs that fit into the batch, and those that do not: these are added to the writes, packed."""
        room = BATCH - len(writes) - 1
        if len(outputs) <= room:
            return outputs, [], []
        room = max(0, room - _PACKED)
        later = outputs[room:]
        data = pack_outputs(later)
        segment = Segment.of(0, data, len(later), self._bucket.max_value)
        writes += [
            Write(f"{self._prefix}.outbox.0.{part}", piece)
            for part, piece in enumerate(cut(data, self._bucket.max_value))
        ]
        return outputs[:room], later, [segment]

    async def _move(self, outputs: list[SinkOutput]) -> None:
        """Bring packed outputs to their place, in as many batches as it takes. They belong to what is committed."""
        while outputs:
            some, outputs = outputs[: BATCH - 1], outputs[BATCH - 1 :]
            if outputs:
                self._checkpoint.moved += len(some)
            else:
                self._checkpoint.moved = 0
                del self._checkpoint.outbox[:]
            await self._write_on([], some)
            reached("outputs moved")

    async def close(self) -> None:
        await self._lease.give_back()

    # The bucket

    def _position_write(self, checkpoint: pb.Checkpoint, before: Record | None) -> Write:
        name = f"{self._prefix}.position"
        return Write(name, checkpoint.SerializeToString(), expected=revision(before), after=before)

    async def _write_on(self, writes: list[Write], outputs: list[SinkOutput]) -> None:
        """Write the position as it is now, and these with it."""
        messages = self.place.messages(outputs, self._checkpoint.outputs)
        self._checkpoint.outputs += len(messages)
        try:
            await self._write([*writes, self._position_write(self._checkpoint, self._position)], messages)
        except Stale as error:
            raise FencedError(
                f"{self._where('position')}: another run has become the owner: checkpoint {self._checkpoint.number} of "
                "this one was not saved"
            ) from error
        if outputs:
            self.place.stored({sink for sink, _ in outputs}, revision(self._position) + len(messages))

    async def _write(self, writes: list[Write], messages: Sequence[Message] = ()) -> None:
        """Write all or nothing; the position is the last record."""
        for write in writes:
            self._bucket.check(write.name, write.data)
        records = await self._commit(writes, messages)
        # Without an answer it was found out that it was applied, and not with which revisions.
        last = records[-1] if records else await self._bucket.get(writes[-1].name)
        if last is None or last.data != writes[-1].data:
            raise Stale
        self._position = last

    async def _commit(self, writes: list[Write], messages: Sequence[Message]) -> list[Record]:
        """Commit, and wait while the bucket is full: the pipeline can go on as soon as outputs have been taken."""
        while True:
            try:
                return await self._bucket.commit(writes, (), messages)
            except FullError as error:
                self.place.told("bucket is full", error)
                await asyncio.sleep(_FULL_SECONDS)

    def _part_name(self, name: int, part: int) -> str:
        return f"{self._prefix}.segment.{name}.{part}"

    def _where(self, what: str) -> str:
        return f"bucket {self._bucket.name!r}, key {f'{self._prefix}.{what}'!r}"


def _checkpoint(data: bytes, where: str) -> pb.Checkpoint:
    from google.protobuf.message import DecodeError

    checkpoint = pb.Checkpoint()
    try:
        checkpoint.ParseFromString(data)
    except DecodeError as error:
        raise StateError(f"{where}: it is no checkpoint: {error}") from error
    if checkpoint.version != VERSION:
        raise StateError(
            f"{where}: it is a checkpoint of version {checkpoint.version}, and this release reads {VERSION}; it was "
            "written by a newer release, or is not a checkpoint at all"
        )
    return checkpoint


def _listed(segment: Segment) -> pb.Segment:
    return pb.Segment(
        name=segment.name,
        parts=segment.parts,
        bytes=segment.size,
        checksum=segment.checksum,
        entries=segment.entries,
    )


def _segment(listed: pb.Segment) -> Segment:
    return Segment(listed.name, listed.parts, listed.bytes, listed.checksum, listed.entries)


def _encoded(value: Any) -> bytes:
    import msgspec

    data: bytes = msgspec.msgpack.encode(value)
    return data


def _decoded(data: bytes) -> Any:
    import msgspec

    return msgspec.msgpack.decode(data)
