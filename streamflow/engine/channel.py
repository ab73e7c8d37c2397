"""The channel between two stages: bounded, with several inputs where streams merge.

A channel is where time passes between synchronous stages. `put` appends at once and then waits for room, so an item
is never in a producer's hand where a barrier could overtake it: the bound is exceeded by one item for each producer.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain

from attrs import evolve

from streamflow.engine.chunk import (
    CHUNK_SIZE,
    TICK,
    Barrier,
    Chunk,
    End,
    Item,
    Outcome,
    PortEnd,
    Progress,
    Quiet,
    Watermark,
)

CAPACITY = 8192
"""Elements that a channel holds before it makes the producer wait."""

_ITEMS = 64


class Signal:
    """Lets one task wait until it is set; setting it before the wait is remembered."""

    __slots__ = ("_set", "_waiter")

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._set = False

    def set(self) -> None:
        self._set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        while not self._set:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._set = False


class Channel:
    """A bounded queue from one or more producers (its ports) to one stage.

    Barriers align here: a port that has delivered barrier *n* is not read until every other port has delivered it
    or has ended; then the barrier is handed out once. The consumer may `detach`, after which whatever is put is
    abandoned and producers learn of it from `detached`.

    ``origins`` has for each port of several the origins that come by it, and what they are called behind: branches of
    one origin that meet here are told apart, since one may be far behind the other. A port that ends, ends its
    origins; with ``tells_ends`` the consumer hears of it, too.
    """

    keeps = False
    """Whether what the consumer does not work on at once should stay in the channel."""

    def __init__(
        self,
        ports: int = 1,
        capacity: int = CAPACITY,
        origins: Sequence[Mapping[str, str]] = (),
        *,
        tells_ends: bool = False,
    ) -> None:
        self.capacity = capacity
        self.detached = False
        self.shut: Collection[int] = ()
        """Ports that the consumer does not want to read at the moment."""
        self.feed: Callable[[], Item | None] | None = None
        """Gives an item when nothing is queued: a source that never waits."""
        self.on_detach: list[Callable[[], None]] = []
        self._queues: list[deque[tuple[int, Item]]] = [deque() for _ in range(ports)]
        self._sizes = [0] * ports
        self._room = [Signal() for _ in range(ports)]
        self._ready = Signal()
        self._wanted = 0
        self._ticked = False
        self._count = 0
        self._aligned: set[int] = set()
        self._ended: set[int] = set()
        self._finished: set[int] = set()
        self._last_barrier = 0
        self._pending: deque[Item] = deque()
        self._end = End()
        self._origins = origins
        self._tells_ends = tells_ends

    # The producer's side

    def append(self, item: Item, port: int = 0) -> None:
        """Add an item without waiting for room."""
        if self.detached:
            if isinstance(item, Chunk):
                item.give(Outcome.UNUSED)
            return
        if isinstance(item, Barrier):
            self._last_barrier = item.number
        self._count += 1
        self._queues[port].append((self._count, item))
        self._sizes[port] += len(item) if isinstance(item, Chunk) else 0
        self._ready.set()

    def finish(self, port: int = 0) -> None:
        """The producer of this port puts nothing more."""
        self._finished.add(port)

    def inject(self, barrier: Barrier) -> None:
        """Bring a barrier to a consumer that is still at work when all its producers have finished."""
        if len(self._finished) == len(self._queues) and self._last_barrier < barrier.number:
            self.append(barrier)

    async def put(self, item: Item, port: int = 0) -> None:
        """Add an item, then wait until there is room for the next."""
        self.append(item, port)
        if self.is_full(port):
            await self.wait_for_room(port)

    async def wait_for_room(self, port: int = 0) -> None:
        while self.is_full(port) and not self.detached:
            await self._room[port].wait()

    def is_full(self, port: int = 0) -> bool:
        return self._sizes[port] >= self.capacity or len(self._queues[port]) >= _ITEMS

    @property
    def ports(self) -> int:
        """The number of producers."""
        return len(self._queues)

    @property
    def size(self) -> int:
        """Elements that wait in the channel."""
        return sum(self._sizes)

    @property
    def has_input(self) -> bool:
        """Whether elements or the end wait in the channel, or a source that never waits is in front of it."""
        items = chain(self._pending, (item for queue in self._queues for _, item in queue))
        return self.feed is not None or any(isinstance(item, Chunk | End) for item in items)

    # The consumer's side

    async def get(self, limit: int | None = None) -> Item:
        """The next item, or a `Tick` after `wake`. Of a chunk no more than ``limit`` elements."""
        while (item := self.poll(limit)) is None:
            self._wanted = limit or CHUNK_SIZE
            try:
                await self._ready.wait()
            finally:
                self._wanted = 0
        return item

    async def get_tick(self) -> Item:
        """Wait for `wake` only, and leave what is in the channel."""
        while not self._ticked:
            await self._ready.wait()
        self._ticked = False
        # The signal stood for items too: whoever calls `get` next has to look.
        self._ready.set()
        return TICK

    def wake(self) -> None:
        """Make the consumer's `get` return a `Tick`, also while it waits for input."""
        self._ticked = True
        self._ready.set()

    def detach(self) -> None:
        """The consumer takes nothing more."""
        self.detached = True
        for queue, room in zip(self._queues, self._room, strict=True):
            for _, item in queue:
                if isinstance(item, Chunk):
                    item.give(Outcome.UNUSED)
            queue.clear()
            room.set()
        for item in self._pending:
            if isinstance(item, Chunk):
                item.give(Outcome.UNUSED)
        self._pending.clear()
        for callback in self.on_detach:
            callback()

    def poll(self, limit: int | None = None) -> Item | None:
        """The next item if there is one at this moment. Of a chunk no more than ``limit`` elements."""
        was_handed_over = bool(self._pending)
        item = self._poll()
        if limit is not None and isinstance(item, Chunk) and len(item) > limit:
            item, rest = item.split(limit)
            if was_handed_over:
                self._pending.appendleft(rest)
            else:
                self._sizes[0] += len(rest)
                self._queues[0].appendleft((0, rest))
        return item

    def _poll(self) -> Item | None:
        if self._ticked:
            self._ticked = False
            return TICK
        if self._pending:
            return self._pending.popleft()
        while (port := self._next_port()) is not None:
            _, item = self._queues[port].popleft()
            if isinstance(item, Chunk):
                self._sizes[port] -= len(item)
            if not self.is_full(port):
                self._room[port].set()
            passed = self._align(item, port)
            if passed is not None:
                return passed
        return self.feed() if self.feed is not None else None

    def _next_port(self) -> int | None:
        """The port whose oldest item came first, among those that are wanted and do not wait for a barrier."""
        if len(self._queues) == 1:
            return 0 if self._queues[0] else None
        best: int | None = None
        for port, queue in enumerate(self._queues):
            if (
                queue
                and port not in self._aligned
                and port not in self.shut
                and (best is None or queue[0][0] < self._queues[best][0][0])
            ):
                best = port
        return best

    def _align(self, item: Item, port: int) -> Item | None:
        ports = len(self._queues)
        if ports == 1:
            return item
        if not isinstance(item, Barrier | End):
            return self._tagged(item, port)
        if isinstance(item, Barrier):
            self._aligned.add(port)
        else:
            self._end_port(port, item)
        if self._aligned and len(self._aligned | self._ended) == ports:
            self._aligned.clear()
            self._pending.appendleft(Barrier(self._last_barrier))
        return self._pending.popleft() if self._pending else None

    def _end_port(self, port: int, end: End) -> None:
        self._ended.add(port)
        if end.drain:
            self._end = end
        else:
            names = self._origins[port].values() if self._origins else ()
            self._pending += (Watermark(name, math.inf) for name in names)
            if self._tells_ends:
                self._pending.append(PortEnd(port))
        if len(self._ended) == len(self._queues):
            self._pending.append(self._end)

    def _tagged(self, item: Item, port: int) -> Item:
        """An item as the consumer sees it: with its port, and with the name that its origin has here."""
        if isinstance(item, Chunk):
            item.port = port
            if self._origins:
                item.origin = self._origins[port].get(item.origin, item.origin)
        elif isinstance(item, Watermark | Quiet | Progress) and self._origins:
            name = self._origins[port].get(item.origin, item.origin)
            return item if name == item.origin else evolve(item, origin=name)
        return item
