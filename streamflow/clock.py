"""The clock that a pipeline reads: real time by default, virtual time in tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Handle(Protocol):
    """A scheduled call that can still be called off."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What the engine needs of time. Replace it with ``run(clock=…)``."""

    def now(self) -> float:
        """Epoch seconds."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        """Call back after ``delay`` seconds, on the event loop."""
        ...


class SystemClock:
    """The wall clock, which does not step backwards while the process lives.

    It reads the wall clock once and goes on with the monotonic one, so that an adjusted system clock cannot make
    processing-time windows run twice or never.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Handle:
        return asyncio.get_running_loop().call_later(max(0.0, delay), callback)
