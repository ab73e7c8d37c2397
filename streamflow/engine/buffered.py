"""The channel that a user asks for with `Buffer`: of a given size, and with a say in what happens when it is full."""

from __future__ import annotations

from streamflow.engine.channel import Channel
from streamflow.engine.chunk import Barrier, Chunk, Item
from streamflow.engine.guard import Guard
from streamflow.engine.transform import Overflow


class Buffered(Channel):
    """Holds ``size`` elements. What comes while the consumer waits for it is the consumer's, and fills nothing."""

    def __init__(self, name: str, size: int, overflow: Overflow, guard: Guard) -> None:
        super().__init__(capacity=size)
        self._name = name
        self._overflow = overflow
        self._guard = guard

    def is_full(self, port: int = 0) -> bool:
        return self._overflow == "backpressure" and super().is_full(port)

    def append(self, item: Item, port: int = 0) -> None:
        if self.detached or not isinstance(item, Chunk):
            super().append(item, port)
            return
        self._guard.observer.processed(self._name, len(item), len(item))
        if self._overflow == "backpressure":
            super().append(item, port)
            return
        left = self.hand_over(item)
        if left is not None and (kept := self._kept(left)) is not None:
            super().append(kept, port)
            self._drop_oldest()

    def _kept(self, chunk: Chunk) -> Chunk | None:
        """The part of a chunk that goes into the buffer."""
        room = max(0, self.capacity - self.size)
        if len(chunk) <= room:
            return chunk
        if self._overflow == "drop_oldest":
            return self._split(chunk, max(0, len(chunk) - self.capacity))
        if self._overflow == "fail":
            full = BufferError(f"the buffer of {self.capacity} elements is full")
            self._guard.decide(full, self._name, chunk.values[room])
        if room == 0:
            self._let_go(chunk)
            return None
        kept, rest = chunk.split(room)
        self._let_go(rest)
        return kept

    def _split(self, chunk: Chunk, excess: int) -> Chunk:
        """Let go of the first elements."""
        if excess == 0:
            return chunk
        first, kept = chunk.split(excess)
        self._let_go(first)
        return kept

    def _drop_oldest(self) -> None:
        """Make the buffer as small as it should be. What is no element stays, the last of each kind."""
        (queue,) = self._queues
        passed: dict[object, tuple[int, Item]] = {}
        while (excess := self.size - self.capacity) > 0:
            entry = queue.popleft()
            item = entry[1]
            if not isinstance(item, Chunk):
                kind = item if isinstance(item, Barrier) else (type(item), getattr(item, "origin", None))
                passed.pop(kind, None)
                passed[kind] = entry
                continue
            self._sizes[0] -= len(item)
            if len(item) <= excess:
                self._let_go(item)
            else:
                kept = self._split(item, excess)
                self._sizes[0] += len(kept)
                queue.appendleft((entry[0], kept))
        queue.extendleft(reversed(passed.values()))

    def _let_go(self, chunk: Chunk) -> None:
        self._guard.observer.dropped(self._name, len(chunk))
        chunk.release()
