"""A checkpoint store in memory."""

from __future__ import annotations

from typing import Any

from streamflow.engine.checkpoint import CheckpointLog, Rewrite, Snapshot, TableSnapshot
from streamflow.engine.connector import RunContext


class MemoryStore:
    """Keeps the checkpoints of pipelines as the durable store does, for as long as the object lives.

    Hand the same store to a second run to see a restart: ``pipeline.run(checkpoint=Checkpoint(store=store))``.
    ``history`` has every commit as it was at that time, oldest first, so that a test can restart from any of them:
    ``MemoryStore.at(snapshot)``.
    """

    def __init__(self) -> None:
        self.history: list[Snapshot] = []
        self.outputs: list[Any] = []
        """What transactional sinks have delivered, in order."""
        self._snapshots: dict[str, Snapshot] = {}

    @classmethod
    def at(cls, snapshot: Snapshot, pipeline: str = "pipeline") -> MemoryStore:
        """A store whose last commit is this one."""
        store = cls()
        store._snapshots[pipeline] = snapshot
        return store

    async def open(self, context: RunContext) -> CheckpointLog:
        return _Log(self, context.pipeline)

    async def commit(self, pipeline: str, change: Snapshot) -> None:
        """Add what changed to what was committed before."""
        before = self._snapshots.get(pipeline)
        tables = dict(before.tables) if before is not None else {}
        for step, table in change.tables.items():
            entries = dict(tables[step].entries) if step in tables else {}
            for slot, data in table.entries.items():
                if data is None:
                    entries.pop(slot, None)
                else:
                    entries[slot] = data
            tables[step] = TableSnapshot(entries, table.meta)
        snapshot = Snapshot(change.number, dict(change.positions), tables, change.finished, change.shapes)
        self._snapshots[pipeline] = snapshot
        self.history.append(snapshot)
        for outputs in change.outputs.values():
            self.outputs += outputs


class _Log:
    """The checkpoints of one pipeline. Nobody else can have the store, so there is no owner to wait for."""

    def __init__(self, store: MemoryStore, pipeline: str) -> None:
        self.last = store._snapshots.get(pipeline)
        self.place = store
        self._store = store
        self._pipeline = pipeline

    async def stale(self, live: int) -> Rewrite | None:
        return None

    async def commit(self, change: Snapshot) -> None:
        await self._store.commit(self._pipeline, change)

    async def close(self) -> None:
        """Nothing to let go of."""
