"""Where a stage puts what it makes: the channels behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from streamflow.engine.channel import Channel
from streamflow.engine.chunk import Aside, Barrier, Chunk, End, Item
from streamflow.engine.guard import Guard

Port = tuple[Channel, int]


class Output(Protocol):
    """Takes the items of one stage."""

    async def put(self, item: Item) -> None: ...

    def finish(self) -> None:
        """Nothing more will be put."""
        ...

    def on_detach(self, callback: Callable[[], None]) -> None:
        """Be told when `detached` may have become true."""
        ...

    @property
    def detached(self) -> bool:
        """Whether nobody takes anything more."""
        ...


class ToChannel:
    """One channel behind."""

    def __init__(self, port: Port) -> None:
        self._channel, self._port = port

    async def put(self, item: Item) -> None:
        await self._channel.put(item, self._port)

    def append(self, item: Item) -> None:
        self._channel.append(item, self._port)

    @property
    def is_full(self) -> bool:
        return self._channel.is_full(self._port)

    async def wait_for_room(self) -> None:
        await self._channel.wait_for_room(self._port)

    def wake(self) -> None:
        """Let the stage behind look again whether there is something to do."""
        self._channel.wake()

    def finish(self) -> None:
        self._channel.finish(self._port)

    def on_detach(self, callback: Callable[[], None]) -> None:
        self._channel.on_detach.append(callback)

    @property
    def detached(self) -> bool:
        return self._channel.detached


class WithSides:
    """An output, and side outputs beside it: those get their own elements, and the barriers and the end as well."""

    def __init__(self, main: Output, sides: dict[str, ToChannel]) -> None:
        self._main = main
        self._sides = sides
        self._ended = False

    async def put(self, item: Item) -> None:
        if isinstance(item, Aside):
            await self._sides[item.output].put(item.chunk)
            return
        if isinstance(item, Barrier | End):
            self._ended = self._ended or isinstance(item, End)
            for side in self._sides.values():
                await side.put(item)
        await self._main.put(item)

    def finish(self) -> None:
        for side in self._sides.values():
            if not self._ended:
                side.append(End())  # the main branch ended early
            side.finish()
        self._main.finish()

    def on_detach(self, callback: Callable[[], None]) -> None:
        self._main.on_detach(callback)

    @property
    def detached(self) -> bool:
        return self._main.detached


class ToBranches:
    """Several channels behind: each gets a copy of every chunk, or those elements that ``choose`` gives it.

    A branch that is slower than its siblings holds them back as far as its channel is full, and no further.
    """

    def __init__(
        self, name: str, ports: list[Port], choose: Callable[[Any], int] | None, guard: Guard
    ) -> None:
        self._name = name
        self._ports = ports
        self._choose = choose
        self._guard = guard

    async def put(self, item: Item) -> None:
        if not isinstance(item, Chunk):
            for channel, port in self._ports:
                await channel.put(item, port)
            return
        self._guard.observer.processed(self._name, len(item), len(item))
        shares = list(self._copies(item) if self._choose is None else self._selected(item, self._choose))
        item.pass_on()
        # Append to all before waiting for any, so that a cancelled wait cannot tear a chunk apart.
        for (channel, port), share in shares:
            channel.append(share, port)
        for (channel, port), _ in shares:
            await channel.wait_for_room(port)

    def _copies(self, chunk: Chunk) -> Iterator[tuple[Port, Chunk]]:
        for port in self._ports:
            if port[0].detached:
                continue
            # Steps never change a chunk's list in place, so the branches can share it.
            yield port, chunk.pick(range(len(chunk)), chunk.values)

    def _selected(self, chunk: Chunk, choose: Callable[[Any], int]) -> Iterator[tuple[Port, Chunk]]:
        rows: list[list[int]] = [[] for _ in self._ports]
        for row, value in enumerate(chunk.values):
            try:
                rows[choose(value)].append(row)
            except BaseException as error:
                self._guard.decide(error, self._name, value)
        for port, chosen in zip(self._ports, rows, strict=True):
            if chosen:
                yield port, chunk.pick(chosen, [chunk.values[row] for row in chosen])

    def finish(self) -> None:
        for channel, port in self._ports:
            channel.finish(port)

    def on_detach(self, callback: Callable[[], None]) -> None:
        for channel, _ in self._ports:
            channel.on_detach.append(callback)

    @property
    def detached(self) -> bool:
        return all(channel.detached for channel, _ in self._ports)
