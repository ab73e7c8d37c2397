"""Checkpoints: one coordinator sends barriers through all sources and commits what the steps froze behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from attrs import field, frozen

from streamflow.clock import Clock
from streamflow.engine.channel import Channel, Signal
from streamflow.engine.chunk import Barrier
from streamflow.engine.observer import Observer
from streamflow.engine.outbox import Outbox, Output
from streamflow.engine.points import reached
from streamflow.engine.table import CHECK_EVERY, Frozen, StateTable
from streamflow.errors import StateError

if TYPE_CHECKING:
    from streamflow.engine.connector import RunContext


@frozen
class TableSnapshot:
    """The saved entries of one step. In a commit only those that changed, with None for those that are gone."""

    entries: Mapping[bytes, bytes | None] = field(factory=dict)
    meta: Mapping[str, Any] = field(factory=dict)


@frozen
class Snapshot:
    """A checkpoint: where each source goes on, and what each step remembers.

    ``outputs`` are those of transactional sinks that become real with this commit; what is loaded has none.
    ``shapes`` says what the saved state of each step is like; see `Logic.shape`. ``finished``: all sources had ended.
    """

    number: int
    positions: Mapping[str, Any] = field(factory=dict)
    tables: Mapping[str, TableSnapshot] = field(factory=dict)
    finished: bool = False
    shapes: Mapping[str, str] = field(factory=dict)
    outputs: Mapping[str, Sequence[Output]] = field(factory=dict)


@frozen
class Rewrite:
    """Entries that a log wants to have saved again, by step, so that it can drop where they are saved now.

    ``forget_gone``: nothing older has an entry that is gone, so that need not be said again.
    """

    tables: Mapping[str, Iterable[bytes]]
    forget_gone: bool


class CheckpointLog(Protocol):
    """The checkpoints of one pipeline, open for the one run that may write them."""

    @property
    def last(self) -> Snapshot | None:
        """The last committed checkpoint before this run, whole."""
        ...

    @property
    def place(self) -> Any:
        """Where outputs go that are committed; a transactional sink has to know it. None if there is no such place."""
        ...

    async def stale(self, live: int) -> Rewrite | None:
        """What is to be saved again with the next commit, of so many entries that there are."""
        ...

    async def commit(self, change: Snapshot) -> None:
        """Save what changed since the last commit: all of it is loaded later, or nothing.

        Raises `FencedError` if another run has become the owner.
        """
        ...

    async def close(self) -> None:
        """Let other runs have it."""
        ...


class CheckpointStore(Protocol):
    """Keeps the checkpoints of pipelines: what `Checkpoint` takes as ``store=``."""

    async def open(self, context: RunContext) -> CheckpointLog:
        """Wait until no other run has this pipeline's checkpoints."""
        ...


@contextmanager
def of_pipeline(pipeline: str) -> Iterator[None]:
    """Say in errors of saved state whose it is."""
    try:
        yield
    except StateError as error:
        if str(error).startswith("pipeline "):
            raise
        raise type(error)(f"pipeline {pipeline!r}: {error}") from error.__cause__


class Participant(Protocol):
    """A stage, as the coordinator sees it."""

    @property
    def name(self) -> str: ...

    @property
    def tables(self) -> Mapping[str, StateTable]: ...

    @property
    def outboxes(self) -> Sequence[Outbox]: ...

    def wake(self) -> None: ...


_PATIENCE_SECONDS = 10.0


class Coordinator:
    """Injects barriers, collects the frozen parts, encodes them in slices and commits them.

    Only one checkpoint is under way at a time. A stage that has ended counts as arrived: its tables do not change.
    """

    def __init__(
        self,
        pipeline: str,
        log: CheckpointLog,
        shapes: Mapping[str, str],
        every: float,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._pipeline = pipeline
        self._log = log
        self._shapes = shapes
        self._every = every
        self._clock = clock
        self._observer = observer
        self._number = 0
        self._participants: dict[Participant, bool] = {}
        self._inject: Callable[[Barrier], dict[str, Any]] = lambda barrier: {}
        self._channels: list[Channel] = []
        self._missing: set[Participant] = set()
        self._parts: dict[str, Frozen] = {}
        self._outputs: dict[str, list[Output]] = {}
        self._due = Signal()
        self._progress = Signal()
        self._one_at_a_time = asyncio.Lock()

    def join(
        self,
        participants: list[Participant],
        channels: list[Channel],
        inject: Callable[[Barrier], dict[str, Any]],
        number: int,
    ) -> None:
        """Name the stages, the channels between them, how to put a barrier into every source (it returns their
        positions), and the number of the last checkpoint."""
        self._participants = dict.fromkeys(participants, True)
        self._channels = channels
        self._inject = inject
        self._number = number

    def waits_for(self, participant: Participant) -> bool:
        """Whether a barrier is on its way to this stage: it must then read on even if it would rather pause."""
        return participant in self._missing

    def arrived(self, participant: Participant) -> None:
        """The barrier has passed a stage: freeze what its steps remember."""
        if participant in self._missing:
            self._missing.discard(participant)
            self._freeze(participant)
            self._progress.set()

    def ended(self, participant: Participant | None = None) -> None:
        """A task of the run has ended. No barrier passes it any more: those behind it get theirs from here."""
        if participant is not None:
            self._participants[participant] = False
            self.arrived(participant)
        if self._missing:
            self._inject_behind_finished()

    def _inject_behind_finished(self) -> None:
        for channel in self._channels:
            channel.inject(Barrier(self._number))

    def outbox(self, sink: str) -> Outbox:
        """What a transactional sink of this run puts its outputs into."""
        return Outbox(sink, self._log.place, self._due.set)

    async def run(self) -> None:
        """Take a checkpoint every so often, and when outputs fill one."""
        while True:
            timer = self._clock.call_later(self._every, self._due.set)
            try:
                await self._due.wait()
            finally:
                timer.cancel()
            await self.checkpoint()

    async def checkpoint(self, *, finished: bool = False) -> None:
        """Take one now."""
        async with self._one_at_a_time:
            started = perf_counter()
            await self._rewrite()
            self._number += 1
            self._parts = {}
            self._outputs = {}
            self._missing = {stage for stage, alive in self._participants.items() if alive}
            positions = self._inject(Barrier(self._number))
            self._inject_behind_finished()
            reached("barrier sent")
            for stage, alive in self._participants.items():
                if alive:
                    stage.wake()
                else:
                    self._freeze(stage)
            await self._all_arrived()
            tables = {step: await _encoded(frozen) for step, frozen in self._parts.items()}
            reached("before commit")
            with of_pipeline(self._pipeline):
                await self._log.commit(
                    Snapshot(self._number, positions, tables, finished, self._shapes, self._outputs)
                )
            reached("after commit")
            for stage in self._participants:
                for outbox in stage.outboxes:
                    outbox.release()
            entries = sum(len(table.entries) for table in tables.values())
            self._observer.checkpointed(self._number, entries, perf_counter() - started)

    async def _rewrite(self) -> None:
        """Mark what the log wants to have once more."""
        tables = {step: table for stage in self._participants for step, table in stage.tables.items()}
        live = sum(len(space) for table in tables.values() for space in table.spaces.values())
        with of_pipeline(self._pipeline):
            rewrite = await self._log.stale(live)
        if rewrite is not None:
            for step, slots in rewrite.tables.items():
                if step in tables:
                    tables[step].rewrite(slots, forget_gone=rewrite.forget_gone)

    async def _all_arrived(self) -> None:
        """Wait for the barrier to pass every stage, and say so when it does not for a while."""
        late = False

        def is_late() -> None:
            nonlocal late
            late = True
            self._progress.set()

        while self._missing:
            timer = self._clock.call_later(_PATIENCE_SECONDS, is_late)
            try:
                while self._missing and not late:
                    await self._progress.wait()
            finally:
                timer.cancel()
            if late and self._missing:
                names = sorted(stage.name for stage in self._missing)
                self._observer.event("checkpoint does not get through", number=self._number, steps=names)
            late = False

    def _freeze(self, participant: Participant) -> None:
        for step, table in participant.tables.items():
            self._parts[step] = table.freeze()
        for outbox in participant.outboxes:
            self._outputs[outbox.sink] = outbox.freeze()


async def _encoded(frozen: Frozen) -> TableSnapshot:
    while not frozen.encode(CHECK_EVERY):  # noqa: ASYNC110 - works in slices, waits for nothing
        await asyncio.sleep(0)
    return TableSnapshot(frozen.entries, frozen.meta)
