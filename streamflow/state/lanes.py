"""One line of work for each key: calls for a key run in the order in which they came, keys run side by side.

Updates that wait in a lane together are applied together: one write for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define

from streamflow.errors import StateError

MOST = 1000
"""How many updates of one key are applied at once at most, so that the event loop gets its turn."""


@define(eq=False)
class Update:
    """A change that is computed from the value before it."""

    function: Callable[[Any], Any]
    ttl: int | None
    future: asyncio.Future[Any]


@define(eq=False)
class Job:
    """Anything else that writes a key."""

    run: Callable[[], Awaitable[Any]]
    future: asyncio.Future[Any]


class Lanes:
    """The lanes of one store. ``apply(name, updates)`` settles the updates' futures itself."""

    def __init__(self, apply: Callable[[str, list[Update]], Awaitable[None]], closed: str) -> None:
        self._apply = apply
        self._closed_message = closed
        self._lanes: dict[str, deque[Update | Job]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    async def update(self, name: str, function: Callable[[Any], Any], ttl: int | None) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._join(name, Update(function, ttl, future))
        return await future

    async def run(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._join(name, Job(work, future))
        return await future

    async def close(self) -> None:
        """End all work. Whoever waits for it gets a `StateError`."""
        self._closed = True
        workers = [*self._workers.values()]
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)

    def _join(self, name: str, call: Update | Job) -> None:
        if self._closed:
            raise StateError(self._closed_message)
        lane = self._lanes.get(name)
        if lane is not None:
            lane.append(call)
            return
        self._lanes[name] = deque([call])
        worker = self._work(name, self._lanes[name])
        self._workers[name] = asyncio.get_running_loop().create_task(worker, name=f"streamflow-state-{name}")

    async def _work(self, name: str, lane: deque[Update | Job]) -> None:
        taken: list[Update | Job] = []
        try:
            while lane:
                taken = _next(lane)
                await self._serve(name, taken)
        except asyncio.CancelledError:
            for call in [*taken, *lane]:
                _fail(call, StateError(f"{self._closed_message}: it may or may not have been written"))
            if not self._closed:
                raise
        finally:
            del self._lanes[name], self._workers[name]

    async def _serve(self, name: str, calls: list[Update | Job]) -> None:
        # A caller that was cancelled while it waited wants nothing any more.
        calls = [call for call in calls if not call.future.done()]
        updates = [call for call in calls if isinstance(call, Update)]
        try:
            if updates:
                await self._apply(name, updates)
            for call in calls:
                if isinstance(call, Job):
                    settle(call.future, await call.run())
        except Exception as error:
            for call in calls:
                _fail(call, error)


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Give a caller its result, unless it was cancelled."""
    if not future.done():
        future.set_result(result)


def _fail(call: Update | Job, error: Exception) -> None:
    if not call.future.done():
        call.future.set_exception(error)


def _next(lane: deque[Update | Job]) -> list[Update | Job]:
    """The first job, or the first updates in a row."""
    taken = [lane.popleft()]
    if isinstance(taken[0], Update):
        while lane and isinstance(lane[0], Update) and len(taken) < MOST:
            taken.append(lane.popleft())
    return taken
