"""A stage: the task that runs a linear part of the graph, one step after the other on each item."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any, Protocol

from streamflow.clock import Clock, Handle
from streamflow.engine.channel import CAPACITY, Channel
from streamflow.engine.checkpoint import Coordinator
from streamflow.engine.chunk import TICK, Barrier, Chunk, End, Item
from streamflow.engine.connector import Writer
from streamflow.engine.guard import reraise
from streamflow.engine.observer import Observer
from streamflow.engine.outbox import Outbox
from streamflow.engine.output import Output
from streamflow.engine.points import reached
from streamflow.engine.step import SLICE, SyncStep
from streamflow.engine.table import StateTable

_MOST = 16 * CAPACITY
"""Elements that are read and held so that a barrier comes through. If there are more before it, it may never come: an
endless `FlatMapAsync` is in front of it."""


class Feeder(Protocol):
    """A pump, as a stage sees it."""

    @property
    def is_held_up(self) -> bool:
        """Whether it has more to read and has to wait."""
        ...


class SinkOutput:
    """Hands the items of the last stage to a writer."""

    def __init__(self, name: str, pipeline: str, writer: Writer[Any], observer: Observer) -> None:
        self._name = name
        self._pipeline = pipeline
        self._writer = writer
        self._observer = observer
        self.detached = False

    async def put(self, item: Item) -> None:
        try:
            if isinstance(item, Chunk):
                count = len(item)
                reached("before write")
                await self._writer.write(item)
                reached("after write")
                self._observer.processed(self._name, count, count)
            elif isinstance(item, Barrier | End):
                await self._writer.flush()
        except BaseException as error:
            reraise(error, self._pipeline, self._name)

    def finish(self) -> None:
        """The writer is closed with the run."""

    def on_detach(self, callback: Callable[[], None]) -> None:
        """A sink takes everything."""


class Stage:
    """Takes items from a channel, through its steps one after the other, to its output."""

    def __init__(
        self,
        source: Channel,
        steps: list[SyncStep],
        output: Output,
        clock: Clock,
        coordinator: Coordinator | None,
    ) -> None:
        self.source = source
        self.tables: dict[str, StateTable] = {
            step.name: step.table for step in steps if step.table is not None
        }
        self._steps = steps
        self._timed = [step for step in steps if step.table is not None]
        self._output = output
        self._clock = clock
        self._coordinator = coordinator
        self.on_relief: list[Callable[[], None]] = []
        self.pumps: list[Feeder] = []
        """Those that what comes here comes from."""
        self.outboxes: list[Outbox] = []
        """What the sinks behind this stage put their outputs into, if they are transactional."""
        self.overfull: frozenset[int] = frozenset()
        """The inputs by which the steps hold more than a channel would: barriers push what is before them into steps
        that would rather not read."""
        self._all_ports = frozenset(range(source.ports))
        # A buffer keeps what a step would only hold back.
        self._limit = 1 if source.keeps and any(step.holds_back for step in steps) else None
        self._draining = False
        self._timer: Handle | None = None
        self._wake_at: float | None = None
        self._turn = perf_counter()
        output.on_detach(self.wake)
        for step in steps:
            step.watch_input(self._has_unread)

    @property
    def name(self) -> str:
        """What checkpoints call it that wait for it."""
        return " → ".join(step.name for step in self._steps) or "merge"

    def wake(self) -> None:
        self.source.wake()

    def drain(self) -> None:
        """Wait no longer for the time that lets held elements go: they are given back."""
        for step in self._steps:
            step.draining = True
        self._draining = True
        self.wake()

    async def run(self) -> None:
        """Work until the end of the stream, or until nobody wants more."""
        try:
            ended = await self._send(self._started())
            while not ended and not self._output.detached:
                if self._timed:
                    self._set_timer()
                    self._look_at_held()
                    if self._paused():
                        ended = await self._send(self._through(await self.source.get_tick(), 0))
                        continue
                item = self.source.poll(self._limit)
                if item is None:
                    item = await self.source.get(self._limit)
                    self._turn = perf_counter()
                ended = await self._send(self._through(item, 0))
                await self._give_turn()
            self._set_overfull(frozenset())
            for step in self._steps:
                step.abandon()
            # Not when it failed or was stopped: then the source takes back whatever was not settled.
            self.source.detach()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _send(self, items: Generator[Item | None, None, None]) -> bool:
        """Put out what the steps make, giving the loop a turn now and then; True after the end."""
        for item in items:
            if item is not None and item is not TICK:
                if isinstance(item, Barrier) and self._coordinator is not None:
                    # A sink has everything delivered before its stage counts as arrived.
                    await self._output.put(item)
                    reached("before snapshot")
                    self._coordinator.arrived(self)
                    reached("after snapshot")
                else:
                    await self._output.put(item)
                if isinstance(item, End) or self._output.detached:
                    for step in self._steps:
                        step.ended = True
                    items.close()
                    return isinstance(item, End)
            await self._give_turn()
        return False

    async def _give_turn(self) -> None:
        """Let the event loop do something else, unless it just has."""
        if perf_counter() - self._turn > SLICE:
            await asyncio.sleep(0)
            self._turn = perf_counter()

    def _through(self, item: Item, position: int) -> Generator[Item | None, None, None]:
        """Everything that one item becomes behind the steps from ``position`` on."""
        if position == len(self._steps):
            yield item
            return
        outputs = self._steps[position].handle(item)
        if position + 1 == len(self._steps):
            yield from outputs
            return
        for out in outputs:
            if out is None:
                yield None
            else:
                yield from self._through(out, position + 1)

    def _started(self) -> Generator[Item | None, None, None]:
        for position, step in enumerate(self._steps):
            for out in step.start():
                if out is not None:
                    yield from self._through(out, position + 1)

    def _paused(self) -> bool:
        """Whether a step holds elements for a while, and no barrier is waiting behind what it does not read."""
        backlog = sum(step.backlog for step in self._timed)
        reads_on = self._draining or (self._barrier_waits and backlog < _MOST)
        return not reads_on and backlog > 0

    def _has_unread(self) -> bool:
        return self._paused() or self.source.has_input or any(pump.is_held_up for pump in self.pumps)

    @property
    def _barrier_waits(self) -> bool:
        return self._coordinator is not None and self._coordinator.waits_for(self)

    def _look_at_held(self) -> None:
        """Which inputs to read, and whether sources have to wait."""
        first = self._steps[0]
        if len(self._all_ports) > 1:
            waits = self._barrier_waits
            self.source.shut = frozenset(
                port
                for port in self._all_ports
                if not (self._draining or (waits and first.held(port) < _MOST) or first.wants(port))
            )
            overfull = frozenset(port for port in self._all_ports if first.held(port) >= CAPACITY)
        else:
            overfull = frozenset[int]()
        if sum(step.backlog for step in self._timed) >= CAPACITY:
            overfull = self._all_ports
        self._set_overfull(overfull)

    def _set_overfull(self, overfull: frozenset[int]) -> None:
        relieved = bool(self.overfull - overfull)
        self.overfull = overfull
        if relieved:
            for callback in self.on_relief:
                callback()

    def _set_timer(self) -> None:
        wakes = [wake for step in self._timed if (wake := step.next_wake()) is not None]
        wake_at = min(wakes, default=None)
        if wake_at == self._wake_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake_at = wake_at
        if wake_at is not None:
            self._timer = self._clock.call_later(wake_at - self._clock.now(), self._on_timer)

    def _on_timer(self) -> None:
        self._wake_at = None
        self.wake()
