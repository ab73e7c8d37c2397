"""One line of work for each key: calls for a key run in the order in which they came, keys run side by side.

Updates that wait in a lane together are applied together: one write for all of them. A lane has no task of its own as
long as its first attempts succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import define

from streamflow.errors import StateError

MOST = 1000
"""How many updates of a key are written together at most, so that the event loop gets its turn."""


_TOGETHER = 250
"""How many lanes begin in one turn: the server is at work on their writes while those of the next turn are computed."""


# Thousands of updates may be under way at a time. What they are made of is kept small in number: Python's garbage
# collector looks at each of these objects again and again.
class Update:
    """A change that is computed from the value before it. ``result`` and ``error`` are those of the last attempt."""

    __slots__ = ("error", "function", "future", "result", "ttl")

    def __init__(self, function: Callable[[Any], Any], ttl: int | None, future: asyncio.Future[Any]) -> None:
        self.function = function
        self.ttl = ttl
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


@define(eq=False)
class Job:
    """Anything else that writes a key."""

    run: Callable[[], Awaitable[Any]]
    future: asyncio.Future[Any]


Done = Callable[[bool], None]
"""Called with whether all updates were settled; if not, nothing was applied."""


class Work(Protocol):
    """What is done in the lanes."""

    def begin(self, name: str, updates: list[Update], done: Done) -> bool:
        """Try to apply updates without a task, and call ``done`` later; False if that cannot be tried."""
        ...

    async def apply(self, name: str, updates: list[Update]) -> None:
        """Apply updates and settle their futures, or raise for all of them."""
        ...


class Lanes:
    """The lanes of one store."""

    def __init__(self, work: Work, closed: str) -> None:
        self._work = work
        self._closed_message = closed
        self._lanes: dict[str, list[Update | Job]] = {}
        self._present: dict[str, list[Update] | Job] = {}
        self._new: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def update(self, name: str, function: Callable[[Any], Any], ttl: int | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._join(name, Update(function, ttl, future))
        return future

    def run(self, name: str, work: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._join(name, Job(work, future))
        return future

    async def close(self) -> None:
        """End all work. Whoever waits for it gets a `StateError`."""
        self._closed = True
        calls = [call for present in self._present.values() for call in _each(present)]
        calls += [call for lane in self._lanes.values() for call in lane]
        for call in calls:
            _fail(call, StateError(f"{self._closed_message}: this may or may not have been written"))
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _join(self, name: str, call: Update | Job) -> None:
        if self._closed:
            raise StateError(self._closed_message)
        lane = self._lanes.get(name)
        if lane is not None:
            lane.append(call)
            return
        self._lanes[name] = [call]
        if not self._new:
            asyncio.get_running_loop().call_soon(self._start)
        self._new.append(name)

    def _start(self) -> None:
        """Begin with lanes that are new, once all who are about to call in this turn have called."""
        names, self._new = self._new[:_TOGETHER], self._new[_TOGETHER:]
        if self._new:
            asyncio.get_running_loop().call_soon(self._start)
        for name in names:
            self._advance(name)

    def _advance(self, name: str) -> None:
        """Go on with a lane, or end it."""
        lane = self._lanes[name]
        if self._closed or not lane:
            del self._lanes[name]
            self._present.pop(name, None)
            return
        calls = self._present[name] = _next(lane)
        if isinstance(calls, Job) or not self._work.begin(name, _wanted(calls), partial(self._done, name)):
            self._spawn(name, calls)

    def _done(self, name: str, settled: bool) -> None:
        if settled or self._closed:
            self._advance(name)
        else:
            self._spawn(name, self._present[name])

    def _spawn(self, name: str, calls: list[Update] | Job) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(name, calls))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, name: str, calls: list[Update] | Job) -> None:
        """Run a job, or apply updates, and go on with the lane."""
        try:
            if isinstance(calls, Job):
                if not calls.future.done():
                    settle(calls.future, await calls.run())
            elif wanted := _wanted(calls):
                await self._work.apply(name, wanted)
        except Exception as error:
            for call in _each(calls):
                _fail(call, error)
        finally:
            for call in _each(calls):  # of a task that was cancelled, not by us
                _fail(call, StateError(f"{self._closed_message}: this may or may not have been written"))
            self._advance(name)


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Give a caller its result, unless it was cancelled."""
    if not future.done():
        future.set_result(result)


def _fail(call: Update | Job, error: Exception) -> None:
    if not call.future.done():
        call.future.set_exception(error)


def _wanted(updates: list[Update]) -> list[Update]:
    """Without those whose callers were cancelled while they waited."""
    for update in updates:
        if update.future.done():
            return [update for update in updates if not update.future.done()]
    return updates


def _next(lane: list[Update | Job]) -> list[Update] | Job:
    """Take the first job, or the first updates in a row."""
    taken: list[Update] = []
    for call in lane[:MOST]:
        if isinstance(call, Update):
            taken.append(call)
        elif not taken:
            del lane[0]
            return call
        else:
            break
    del lane[: len(taken)]
    return taken


def _each(calls: list[Update] | Job) -> Sequence[Update | Job]:
    return [calls] if isinstance(calls, Job) else calls
