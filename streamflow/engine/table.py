"""State tables: what the steps of a pipeline remember, owned by the engine.

A table maps namespace → key → state. Most logics use the one namespace None; windows use one for each window, so that
a window is closed by dropping its namespace. With a checkpoint, a table notes which entries changed; `freeze` cuts
them off at a barrier, and processing goes on while they are encoded: an entry that is about to change again is
encoded first (see `StateTable.touch`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from copy import deepcopy
from operator import itemgetter
from typing import Any

from attrs import frozen

from streamflow.errors import StateError, shorten

Slot = tuple[Hashable, Hashable]

CHECK_EVERY = 256
"""Entries that are encoded between two looks at the clock."""

_CHECKED = 8

_PLAIN = (str, int, bytes, float, bool, type(None))
"""Types of keys that need no check that they come back as they were."""


@frozen
class StateCodec:
    """Encodes what a table holds as MessagePack. Keys decode to what they were; states to ``state_type``."""

    step: str
    state_type: Any

    def functions(self) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
        import msgspec

        encoder = msgspec.msgpack.Encoder()
        entry_type: Any = tuple[float | None, float | None, self.state_type]  # type: ignore[name-defined]
        decoder = msgspec.msgpack.Decoder(entry_type)

        def decode(data: bytes) -> Any:
            try:
                return decoder.decode(data)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise StateError(f"step {self.step!r}: saved state does not decode: {error}") from error

        return encoder.encode, decode


class StateTable:
    """What one step remembers. ``tracked`` (there is a checkpoint) makes it note what changes."""

    def __init__(self, step: str, state_type: Any = Any, *, tracked: bool = False) -> None:
        self.step = step
        self.tracked = tracked
        self.spaces: dict[Hashable, dict[Hashable, Any]] = {}
        self.meta: dict[str, Any] = {}
        """A few values of the step as a whole, such as watermarks; saved with every checkpoint."""
        self.timers = Timers()
        self._seen: dict[Hashable, float] = {}
        self._dirty: set[Slot] = set()
        self._frozen: Frozen | None = None
        self._codec = StateCodec(step, state_type)
        self._encode: Callable[[Any], bytes] | None = None
        self._decode: Callable[[bytes], Any] | None = None
        self._unchecked = _CHECKED

    def space(self, namespace: Hashable = None) -> dict[Hashable, Any]:
        """The states of one namespace by key. Call `touch` before you change one."""
        space = self.spaces.get(namespace)
        if space is None:
            space = self.spaces[namespace] = {}
        return space

    def touch(self, key: Hashable, namespace: Hashable = None) -> None:
        """Say that the state of a key is about to change, or its timer, or that it will be removed."""
        if self.tracked:
            slot = (namespace, key)
            if self._frozen is not None:
                self._frozen.encode_now(slot)
            self._dirty.add(slot)

    def rewrite(self, slots: Iterable[bytes], *, forget_gone: bool) -> None:
        """Have these saved again with the next freeze, as they are then: all, or (``forget_gone``) what is there."""
        import msgspec

        decode = msgspec.msgpack.Decoder().decode
        for slot in slots:
            namespace, key = hashable(decode(slot))
            if not forget_gone or key in self.spaces.get(namespace, ()):
                self._dirty.add((namespace, key))

    def drop(self, namespace: Hashable) -> dict[Hashable, Any]:
        """Remove a whole namespace and return its states."""
        if self.tracked:
            for key in self.spaces.get(namespace, ()):
                self.touch(key, namespace)
        return self.spaces.pop(namespace, {})

    def due(self, now: float) -> Iterator[Hashable]:
        """Take the timers that are due, one after the other."""
        while (when := self.timers.next()) is not None and when <= now:
            # What is frozen still has the timer.
            self.touch(self.timers.first())
            yield self.timers.pop()

    def see(self, key: Hashable, now: float) -> None:
        """The key is in use; see `idle`."""
        self.touch(key)
        self._seen.pop(key, None)
        self._seen[key] = now

    def idle(self, now: float, ttl: float) -> Iterator[Hashable]:
        """Take the keys that have not been seen for ``ttl``, those that have been idle longest first."""
        while self._seen:
            key = next(iter(self._seen))
            # As the timer is computed: with a difference, rounding could leave a key idle and not idle enough.
            if self._seen[key] + ttl > now:
                return
            self.touch(key)
            del self._seen[key]
            yield key

    def first_seen(self) -> float | None:
        """When the key that has been idle longest was last seen."""
        return next(iter(self._seen.values()), None)

    def freeze(self) -> Frozen:
        """Cut off everything that changed since the last freeze."""
        if self._frozen is not None:
            self._frozen.finish()
        self._frozen = Frozen(self, self._dirty, deepcopy(self.meta))
        self._dirty = set()
        return self._frozen

    def thaw(self, frozen: Frozen) -> None:
        """The frozen part has been encoded; changes need no care any more."""
        if self._frozen is frozen:
            self._frozen = None

    def encode_slot(self, slot: Slot) -> bytes | None:
        """The saved form of an entry, None if it is gone."""
        namespace, key = slot
        space = self.spaces.get(namespace)
        timer, seen = (self.timers.get(key), self._seen.get(key)) if namespace is None else (None, None)
        if space is None or key not in space:
            return None
        if self._encode is None or self._decode is None:
            self._encode, self._decode = self._codec.functions()
        entry = (timer, seen, space[key])
        try:
            data = self._encode(entry)
            if self._unchecked:
                self._unchecked -= 1
                self._check(entry, self._decode(data))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._unsavable(entry[2], str(error)) from error
        return data

    def _check(self, entry: Any, back: Any) -> None:
        """What is saved must come back as it was: found out with the first states rather than in a recovery."""
        # NaN is not equal to itself, and comes back all the same.
        if back != entry and repr(back) != repr(entry):
            raise self._unsavable(entry[2], f"it comes back as {shorten(back[2])}")

    def _unsavable(self, state: Any, reason: str) -> StateError:
        return StateError(
            f"step {self.step!r}: the state {shorten(state)} cannot be saved: {reason}; give the step its type, state="
        )

    def restore(self, entries: Mapping[bytes, bytes], meta: Mapping[str, Any]) -> None:
        """Fill an empty table with what was saved."""
        import msgspec

        _, decode = self._codec.functions()
        decode_slot = msgspec.msgpack.Decoder().decode
        last_seen: list[tuple[float, Hashable]] = []
        for slot_data, data in entries.items():
            namespace, key = hashable(decode_slot(slot_data))
            timer, seen, state = decode(data)
            self.space(namespace)[key] = state
            if timer is not None:
                self.timers.set(key, timer)
            if seen is not None:
                last_seen.append((seen, key))
        last_seen.sort(key=itemgetter(0))
        self._seen = {key: seen for seen, key in last_seen}
        self.meta.update(meta)


class Frozen:
    """The changed entries of a table at a barrier, encoded bit by bit while the table changes on."""

    def __init__(self, table: StateTable, slots: set[Slot], meta: dict[str, Any]) -> None:
        import msgspec

        self.table = table
        self.meta = meta
        self.entries: dict[bytes, bytes | None] = {}
        self._waiting = slots
        self._encode_slot = msgspec.msgpack.Encoder().encode
        self._decode_slot = msgspec.msgpack.Decoder().decode

    def encode_now(self, slot: Slot) -> None:
        """Encode an entry before it changes, unless that has been done."""
        if slot in self._waiting:
            self._waiting.discard(slot)
            self.entries[self._slot_name(slot)] = self.table.encode_slot(slot)

    def encode(self, limit: int) -> bool:
        """Encode up to ``limit`` entries; True when nothing is left."""
        waiting = self._waiting
        for _ in range(min(limit, len(waiting))):
            slot = waiting.pop()
            self.entries[self._slot_name(slot)] = self.table.encode_slot(slot)
        if waiting:
            return False
        self.table.thaw(self)
        return True

    def finish(self) -> None:
        while not self.encode(CHECK_EVERY):
            pass

    def _slot_name(self, slot: Slot) -> bytes:
        try:
            name = self._encode_slot(slot)
            back = slot if slot[1].__class__ in _PLAIN else hashable(self._decode_slot(name))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._unsavable(slot[1], str(error)) from error
        if back != slot:
            # msgspec writes a UUID or an Enum as the text or number that it stands for.
            raise self._unsavable(slot[1], f"it comes back as {shorten(back[1])}")
        return name

    def _unsavable(self, key: Hashable, reason: str) -> StateError:
        return StateError(
            f"step {self.table.step!r}: the key {shorten(key)} cannot be saved: {reason}; "
            "keys are str, bytes, numbers, bool, None and tuples of those"
        )


def hashable(value: Any) -> Any:
    """MessagePack arrays in the place of a key were tuples."""
    return tuple(hashable(part) for part in value) if isinstance(value, list) else value


class Timers:
    """One timer for each key, in the order in which they are due."""

    def __init__(self) -> None:
        self._when: dict[Hashable, float] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._count = 0

    def get(self, key: Hashable) -> float | None:
        return self._when.get(key)

    def set(self, key: Hashable, when: float) -> None:
        """Set or move the timer of a key."""
        if len(self._heap) > 2 * len(self._when) + 64:
            # Timers that were cleared or moved stay in the heap until they come up: not too many of them.
            self._heap = [entry for entry in self._heap if self._when.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        self._when[key] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, key))

    def clear(self, key: Hashable) -> None:
        self._when.pop(key, None)

    def next(self) -> float | None:
        """When the first timer is due."""
        heap = self._heap
        while heap and self._when.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def first(self) -> Hashable:
        """The key of the timer that is due first, when there is one (see `next`)."""
        return self._heap[0][2]

    def pop(self) -> Hashable:
        """Take it."""
        key = heapq.heappop(self._heap)[2]
        del self._when[key]
        return key
