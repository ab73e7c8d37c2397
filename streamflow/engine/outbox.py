"""Outputs that become real with a checkpoint: a transactional sink hands them over, the commit carries them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from streamflow.engine.channel import Signal

_BATCH = 900
"""Outputs that fill a commit: then a checkpoint is due."""
_MOST = 8192
"""Outputs that may wait while a commit is under way; after that the sink takes no more."""


class Output(NamedTuple):
    """One output, as the log that commits it understands it: where it goes, and what it is."""

    subject: bytes
    header: bytes
    data: bytes


class Outbox:
    """The outputs of one sink since the last barrier.

    ``place`` is where the log brings them (`CheckpointLog.place`). ``hurry`` asks for a checkpoint.
    """

    def __init__(self, sink: str, place: Any, hurry: Callable[[], None]) -> None:
        self.sink = sink
        self.place = place
        self._hurry = hurry
        self._outputs: list[Output] = []
        self._committing = False
        self._released = Signal()

    async def put(self, outputs: Sequence[Output]) -> None:
        """Add outputs. Waits only while an earlier commit is under way: the next barrier has to come through."""
        self._outputs.extend(outputs)
        if len(self._outputs) >= _BATCH:
            self._hurry()
        while self._committing and len(self._outputs) >= _MOST:
            await self._released.wait()

    def freeze(self) -> list[Output]:
        """Take what was put before the barrier that is just passing."""
        frozen, self._outputs = self._outputs, []
        self._committing = True
        return frozen

    def release(self) -> None:
        """The commit is done."""
        self._committing = False
        self._released.set()
