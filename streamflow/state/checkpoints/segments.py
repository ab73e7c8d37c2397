"""Saved entries, packed into segments and cut into parts that fit into messages.

A commit with many entries makes several segments, so that each can be dropped and saved again for itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from attrs import frozen

from streamflow.engine.outbox import Output
from streamflow.errors import StateError
from streamflow.v1.checkpoint_pb2 import OutboxSegment, StateSegment

SEGMENT_BYTES = 512 * 1024
"""From this size on a segment is full."""

_BLOCK = 256
"""Entries that are added to a segment before its size is looked at."""

Entries = Mapping[bytes, bytes | None]
"""What is saved of a step: slot → state, None if the entry is gone."""


@frozen
class Segment:
    """A stored segment. ``name`` is the number in its keys."""

    name: int
    parts: int
    size: int
    checksum: int
    entries: int

    @classmethod
    def of(cls, name: int, data: bytes, entries: int, largest: int) -> Segment:
        return cls(name, max(1, -(-len(data) // largest)), len(data), zlib.crc32(data), entries)

    def joined(self, parts: Sequence[bytes | None]) -> bytes:
        """The whole of what was cut. Raises `StateError` if it is not what was stored."""
        missing = [str(number) for number, part in enumerate(parts) if part is None]
        if missing:
            raise StateError(f"part {', '.join(missing)} of {self.parts} is missing")
        data = b"".join(part for part in parts if part is not None)
        if len(data) != self.size:
            raise StateError(f"it has {len(data)} bytes instead of {self.size}")
        if zlib.crc32(data) != self.checksum:
            raise StateError("its checksum is wrong")
        return data


def cut(data: bytes, largest: int) -> Iterator[bytes]:
    """The parts of a segment, one at least."""
    for start in range(0, max(1, len(data)), largest):
        yield data[start : start + largest]


def pack(tables: Mapping[str, Entries]) -> Iterator[tuple[bytes, int]]:
    """Segments of some `SEGMENT_BYTES`, and how many entries each has."""
    segment, entries, size = StateSegment(), 0, 0
    for step, table in tables.items():
        items = iter(table.items())
        while block := list(islice(items, _BLOCK)):
            if not segment.tables or segment.tables[-1].step != step:
                segment.tables.add(step=step)
            last = segment.tables[-1]
            slots = [slot for slot, _ in block]
            states = [state or b"" for _, state in block]
            last.slots.extend(slots)
            last.states.extend(states)
            entries += len(block)
            size += sum(map(len, slots)) + sum(map(len, states))
            if size >= SEGMENT_BYTES:
                yield segment.SerializeToString(), entries
                segment, entries, size = StateSegment(), 0, 0
    if entries:
        yield segment.SerializeToString(), entries


def unpack(data: bytes) -> dict[str, dict[bytes, bytes | None]]:
    """What was packed. Raises `StateError` for anything else."""
    from google.protobuf.message import DecodeError

    try:
        segment = StateSegment.FromString(data)
    except DecodeError as error:
        raise StateError(f"it is no StateSegment: {error}") from error
    tables: dict[str, dict[bytes, bytes | None]] = {}
    for table in segment.tables:
        if len(table.slots) != len(table.states):
            raise StateError(
                f"step {table.step!r} has {len(table.slots)} slots and {len(table.states)} states"
            )
        entries = ((slot, state or None) for slot, state in zip(table.slots, table.states, strict=True))
        tables.setdefault(table.step, {}).update(entries)
    return tables


def pack_outputs(outputs: Sequence[tuple[str, Output]]) -> bytes:
    """Outputs of sinks, in order."""
    segment = OutboxSegment()
    segment.sinks.extend([sink for sink, _ in outputs])
    segment.subjects.extend([output.subject for _, output in outputs])
    segment.headers.extend([output.header for _, output in outputs])
    segment.data.extend([output.data for _, output in outputs])
    return segment.SerializeToString()


def unpack_outputs(data: bytes) -> list[tuple[str, Output]]:
    """What was packed. Raises `StateError` for anything else."""
    from google.protobuf.message import DecodeError

    try:
        segment = OutboxSegment.FromString(data)
        columns = zip(segment.sinks, segment.subjects, segment.headers, segment.data, strict=True)
        return [(sink, Output(subject, header, data)) for sink, subject, header, data in columns]
    except (DecodeError, ValueError) as error:
        raise StateError(f"it is no OutboxSegment: {error}") from error
