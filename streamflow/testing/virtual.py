"""Virtual time: an event loop on which waiting takes no time.

When nothing can run and some timer is pending, the loop sets its clock to that timer instead of waiting. Everything
that asyncio times, in the pipeline and in the test, then happens in the right order and at once. The idea is trio's
``MockClock`` with ``autojump``.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from streamflow.clock import Handle

T = TypeVar("T")


_INSTANT = 1e-9


class VirtualClock:
    """The pipeline's clock on a virtual loop: ``run_virtual(pipeline.run(clock=VirtualClock()))``.

    It shows ``start`` (epoch seconds; default 0) when it is first read, and goes with the loop's time from then on.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._start = start
        self._offset: float | None = None

    def now(self) -> float:
        time = asyncio.get_running_loop().time()
        if self._offset is None:
            self._offset = self._start - time
        return self._offset + time

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        loop = asyncio.get_running_loop()
        wanted = self.now() + delay
        at = loop.time() + max(0.0, delay)
        # Rounding must not let it fire when the clock shows an instant less: it would be set again, for ever.
        while self._offset is not None and self._offset + at < wanted:
            at = math.nextafter(at, math.inf)
        return loop.call_at(at, callback)


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine like `asyncio.run`, in virtual time.

    Threads and sockets still take real time: while something runs in an executor, virtual time may jump ahead of it,
    so do not time such work virtually. A loop on which nothing can ever happen raises instead of hanging.

    >>> import asyncio
    >>> async def a_day() -> float:
    ...     await asyncio.sleep(86_400)
    ...     return asyncio.get_running_loop().time()
    >>> run_virtual(a_day())
    86400.0
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class VirtualLoop(asyncio.SelectorEventLoop):
    """The event loop of `run_virtual`."""

    def __init__(self) -> None:
        self._now = 0.0
        self._outside = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """Go on so far: to the next timer exactly, whatever rounding makes of the sum."""
        self._now += seconds
        scheduled: list[asyncio.TimerHandle] = getattr(self, "_scheduled", [])
        if scheduled and abs(scheduled[0].when() - self._now) < _INSTANT:
            self._now = scheduled[0].when()

    @property
    def waits_outside(self) -> bool:
        """Whether a thread is at work that may wake the loop."""
        return self._outside > 0

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = super().run_in_executor(executor, func, *args)
        self._outside += 1
        future.add_done_callback(self._returned)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self._outside += 1  # it waits for a thread of its own
        try:
            await super().shutdown_default_executor()
        finally:
            self._outside -= 1

    def _returned(self, _: object) -> None:
        self._outside -= 1


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for a timer it moves the loop's clock there."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self._loop.waits_outside:
            return super().select(timeout if timeout is None else min(timeout, 1.0))
        if timeout is None:
            # No timer either: only a signal could wake the loop, and a test would hang for ever.
            raise RuntimeError("nothing can happen any more: every task waits, and no timer is set")
        self._loop.jump(timeout)
        return ready
