"""Crashes at named points of a run, to see that a pipeline of yours survives them.

A run comes by the same points whatever the pipeline is (`POINTS`): a chunk was read, is written, a barrier was sent,
what steps remember is frozen, the checkpoint is committed. `crash_everywhere` crashes a pipeline at each of them,
runs it again, and compares with a run that did not crash::

    async def run(bucket: MemoryBucket) -> None:
        pipeline = Source(range(100)).via(Fold(0, add, state=int)).to(CommittedSink(), name="sums")
        await pipeline.run(checkpoint=Checkpoint(bucket, every=0.01), delivery="exactly_once")

    await crash_everywhere(MemoryBucket, run, CommittedSink.values)

A process that is killed, its server too, is more than that: `crash_point` is for a script of yours that a test starts
and that dies by SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from attrs import define, frozen

from streamflow.engine import points
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.engine.outbox import Outbox, Output
from streamflow.engine.points import POINTS as POINTS
from streamflow.engine.points import Point
from streamflow.errors import ConfigurationError
from streamflow.graph import Sink
from streamflow.state import MemoryBucket

W = TypeVar("W")
T = TypeVar("T")

_RESTARTS = 10


class Crash(BaseException):
    """The run ends here, as far as it is concerned."""


@define
class Armed:
    """A crash that is to come. ``happened`` says whether it came."""

    point: Point
    number: int
    happened: bool = False


@contextmanager
def crash_at(point: Point, number: int = 1) -> Iterator[Armed]:
    """Let the run in this block crash when it comes to a point for the ``number``-th time, by a `Crash`.

    The run fails, or is over with another error that it made of the `Crash`; it commits nothing any more. One at a
    time in a process.
    """
    armed = Armed(_known(point), number)
    left = number

    def reached(at: Point) -> None:
        nonlocal left
        if at == point and not armed.happened:
            left -= 1
            if not left:
                armed.happened = True
                raise Crash(f"{point}, {number}")

    before, points.hook = points.hook, reached
    try:
        yield armed
    finally:
        points.hook = before


def crash_point(variable: str = "STREAMFLOW_CRASH") -> None:
    """Let this process die by SIGKILL at the point that an environment variable names: ``"before commit:3"``.

    Call it at the beginning of a script. Does nothing if the variable is not set.
    """
    text = os.environ.get(variable)
    if not text:
        return
    name, _, number = text.partition(":")
    point = _known(name)
    left = int(number or 1)

    def reached(at: Point) -> None:
        nonlocal left
        if at == point:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    points.hook = reached


async def crash_everywhere(
    world: Callable[[], W],
    run: Callable[[W], Awaitable[object]],
    outcome: Callable[[W], T],
    *,
    points: Sequence[Point] = POINTS,
    times: int = 3,
) -> int:
    """Crash at each of ``points``, the first ``times`` times that a run comes by it; returns how often it crashed.

    ``world`` makes what a run changes, e.g. a `MemoryBucket`. ``run`` runs the pipeline in it, to its end; after the
    crash it is called again. ``outcome`` is what is compared. Raises `AssertionError` with the point if the outcome is
    not that of a run that did not crash.
    """
    whole = world()
    await run(whole)
    expected = outcome(whole)
    crashes = 0
    for point in points:
        for number in range(1, times + 1):
            fresh = world()
            with crash_at(point, number) as armed:
                try:
                    await run(fresh)
                except BaseException:
                    if not armed.happened:
                        raise
            if not armed.happened:
                break  # a run does not come by it so often
            crashes += 1
            await run(fresh)
            found = outcome(fresh)
            assert found == expected, f"after a crash at {point!r}, {number}: {found} instead of {expected}"
    return crashes


def _known(point: str) -> Point:
    for each in POINTS:
        if each == point:
            return each
    raise ConfigurationError(f"{point!r} is not a point of a run; there are {', '.join(POINTS)}")


@frozen
class CommittedSink(Sink[Any, int]):
    """A sink in memory for ``delivery="exactly_once"`` with a `MemoryBucket`: see `values`."""

    transactional = True

    async def open(self, context: SinkContext) -> Writer[int]:
        assert context.outbox is not None, "CommittedSink is for delivery='exactly_once'"
        return _Committing(context.outbox)

    @staticmethod
    def values(bucket: MemoryBucket) -> list[Any]:
        """All values that have been committed in a bucket, in order, as MessagePack has them."""
        import msgspec

        return [msgspec.msgpack.decode(message.data) for message in bucket.messages]


class _Committing(Writer[int]):
    def __init__(self, outbox: Outbox) -> None:
        import msgspec

        self._outbox = outbox
        self._encode = msgspec.msgpack.Encoder().encode
        self._count = 0

    async def write(self, chunk: Chunk) -> None:
        outputs = [Output(b"value", b"", self._encode(value)) for value in chunk.values]
        self._count += len(outputs)
        chunk.release()
        await self._outbox.put(outputs)

    def result(self) -> int:
        return self._count
