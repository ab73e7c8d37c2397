"""A synchronous step at run time: takes items, yields items, and yields None where the event loop may have a turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

from streamflow.engine.chunk import CHUNK_SIZE, Chunk, Item, Outcome
from streamflow.engine.guard import Guard
from streamflow.engine.table import StateTable

SLICE = 0.010
"""Seconds that a synchronous step works before the event loop gets a turn."""


class SyncStep:
    """The base of the steps that a stage runs one after the other on each item."""

    table: StateTable | None = None
    """What the step remembers, if it does."""

    holds_back = False
    """Whether it may have a `backlog`."""

    def __init__(self, name: str, guard: Guard) -> None:
        self.name = name
        self.guard = guard
        self.ended = False
        """Set when a later step of the stage has ended the branch."""
        self.draining = False
        """Set when the pipeline drains: what is held and only time would release is given back."""

    def handle(self, item: Item) -> Iterator[Item | None]:
        """What follows from one item, in order."""
        received, emitted = (len(item), 0) if isinstance(item, Chunk) else (0, 0)
        try:
            for out in self.process(item) if isinstance(item, Chunk) else self.control(item):
                if isinstance(out, Chunk):
                    emitted += len(out)
                yield out
        finally:
            if received or emitted:
                self.guard.observer.processed(self.name, received, emitted)

    def process(self, chunk: Chunk) -> Iterator[Item | None]:
        """Take over a chunk, receipts included."""
        raise NotImplementedError

    def owned(self, chunk: Chunk, outputs: Iterator[Item | None]) -> Iterator[Item | None]:
        """Pass on what the step makes of a chunk, then drop the chunk's own references: the outputs have theirs.

        When a later step ends the branch in the middle, what its messages became so far decides about each; a receipt
        for the whole chunk cannot tell, so it comes again. After a failure, or when the run is stopped, nothing is
        settled here: the source takes back what it has heard nothing of.
        """
        try:
            yield from outputs
        except GeneratorExit:
            if self.ended:
                chunk.give(Outcome.REJECTED if chunk.lineage is None else Outcome.UNUSED)
            raise
        chunk.pass_on()

    def control(self, item: Item) -> Iterator[Item | None]:
        """React to an item that is no chunk and pass it on."""
        yield item

    def start(self) -> Iterator[Item | None]:
        """What follows before any input."""
        return iter(())

    def abandon(self) -> None:
        """Nobody wants what the step would still emit: let go of the receipts of what it holds."""

    def watch_input(self, has_unread: Callable[[], bool]) -> None:
        """Be given the means to ask whether there is input that the stage has not read."""

    def next_wake(self) -> float | None:
        """The clock time at which the step wants a `Tick`."""
        return None

    @property
    def backlog(self) -> int:
        """Elements that only time will release; while there are any, the stage reads no further input."""
        return 0

    def wants(self, port: int) -> bool:
        """Whether it wants to read this one of several inputs at the moment."""
        return True

    def held(self, port: int) -> int:
        """Elements of this input that it keeps and did not want."""
        return 0


class Slicer:
    """Finds how many elements make a time slice, so that the clock is not read for each of them."""

    __slots__ = ("size", "_since", "_started")

    def __init__(self) -> None:
        self.size = 32
        self._since = self._started = 0.0

    def start(self) -> None:
        self._since = self._started = perf_counter()

    @property
    def is_over(self) -> bool:
        """Whether the event loop should have a turn."""
        return perf_counter() - self._started > SLICE

    def lap(self) -> bool:
        """After a slice: adapt the next one; True when the event loop should have a turn."""
        now = perf_counter()
        spent, self._since = now - self._since, now
        if spent < SLICE / 4:
            self.size = min(self.size * 2, CHUNK_SIZE)
        elif spent > SLICE:
            self.size = max(self.size // 2, 1)
        return now - self._started > SLICE
