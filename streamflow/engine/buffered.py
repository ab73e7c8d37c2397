"""The channel that a user asks for with `Buffer`: of a given size, and with a say in what happens when it is full."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from streamflow.engine.channel import Channel
from streamflow.engine.chunk import Barrier, Chunk, End, Item, Outcome
from streamflow.engine.guard import Guard
from streamflow.engine.transform import Overflow


class Buffered(Channel):
    """Holds ``size`` elements. What comes while the consumer waits for it is the consumer's, and fills nothing.

    It has one producer, a stage. Items that are no elements keep their place among them; of those that follow each
    other only the last of each kind stays, so that they do not pile up.
    """

    keeps = True

    def __init__(self, name: str, size: int, overflow: Overflow, guard: Guard) -> None:
        super().__init__(capacity=size)
        self._name = name
        self._overflow = overflow
        self._guard = guard

    def is_full(self, port: int = 0) -> bool:
        return self._overflow == "backpressure" and self.size >= self.capacity

    # The producer's side

    async def put(self, item: Item, port: int = 0) -> None:
        if self._overflow != "backpressure" or not isinstance(item, Chunk):
            self.append(item)
            return
        # Nothing overtakes what is in hand here: barriers come from the same producer.
        rest: Chunk | None = item
        self._guard.observer.processed(self._name, len(item), 0)
        while rest is not None and not self.detached:
            rest = self._hand_over(rest)
            if rest is not None and (room := self.capacity - self.size) > 0:
                part, rest = _cut(rest, room)
                super().append(part)
            await self.wait_for_room()
        if rest is not None:
            rest.give(Outcome.UNUSED)

    def append(self, item: Item, port: int = 0) -> None:
        if self.detached:
            super().append(item)
        elif isinstance(item, Chunk):
            self._guard.observer.processed(self._name, len(item), 0)
            if (left := self._hand_over(item)) is not None:
                self._add(left)
        else:
            if not self._wanted:
                _join_controls(self._queues[0], item)
            super().append(item)
            if self._wanted:
                # Behind what was handed over, and not to be overtaken by what will be.
                self._pending.append(self._queues[0].pop()[1])

    def _hand_over(self, chunk: Chunk) -> Chunk | None:
        """Give elements to a consumer that waits for them; what it does not want is left."""
        if not self._wanted:
            return chunk
        given, left = _cut(chunk, self._wanted)
        self._wanted -= len(given)
        self._pending.append(given)
        self._ready.set()
        return left

    def _add(self, chunk: Chunk) -> None:
        """Put a chunk into the buffer, as far as there is room, and drop what is to be dropped."""
        if self._overflow == "drop_oldest":
            super().append(chunk)
            self._drop_oldest()
            return
        room = self.capacity - self.size
        kept, rest = _cut(chunk, room) if room else (None, chunk)
        if kept is not None:
            super().append(kept)
        if rest is not None and self._overflow == "fail":
            self._refuse(rest)
        elif rest is not None:
            self._drop(rest)

    def _refuse(self, chunk: Chunk) -> None:
        """Ask the error policy about each element."""
        for value in chunk.values:
            full = BufferError(f"the buffer of {self.capacity} elements is full")
            self._guard.decide(full, self._name, value)
        chunk.release()

    def _drop_oldest(self) -> None:
        """Make the buffer as small as it should be."""
        (queue,) = self._queues
        passed: deque[tuple[int, Item]] = deque()
        while (excess := self.size - self.capacity) > 0:
            number, item = queue.popleft()
            if not isinstance(item, Chunk):
                _join_controls(passed, item)
                passed.append((number, item))
                continue
            dropped, kept = _cut(item, excess)
            self._sizes[0] -= len(dropped)
            self._drop(dropped)
            if kept is not None:
                queue.appendleft((number, kept))
        queue.extendleft(reversed(passed))

    def _drop(self, chunk: Chunk) -> None:
        self._guard.observer.dropped(self._name, len(chunk))
        chunk.release()

    # The consumer's side

    def poll(self, limit: int | None = None) -> Item | None:
        item = super().poll(limit)
        if isinstance(item, Chunk):
            self._guard.observer.processed(self._name, 0, len(item))
        return item


def _cut(chunk: Chunk, size: int) -> tuple[Chunk, Chunk | None]:
    """The first elements, and the others if there are more."""
    return (chunk, None) if len(chunk) <= size else chunk.split(size)


def _join_controls(queue: deque[tuple[int, Item]], item: Item) -> None:
    """Make room at the end of a queue for an item that is no chunk: one of its kind that it supersedes goes.

    What a barrier has in front of it stays there.
    """
    if isinstance(item, Barrier | End):
        return
    for index in range(len(queue) - 1, -1, -1):
        other = queue[index][1]
        if isinstance(other, Chunk | Barrier | End):
            return
        if _kind(other) == _kind(item):
            del queue[index]
            return


def _kind(item: Item) -> tuple[type[Item], Hashable]:
    return type(item), getattr(item, "origin", None)
