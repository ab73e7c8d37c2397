"""A checkpoint store in memory."""

from __future__ import annotations

from streamflow.engine.checkpoint import Snapshot, TableSnapshot


class MemoryStore:
    """Keeps the checkpoints of pipelines as the durable store does, for as long as the object lives.

    Hand the same store to a second run to see a restart: ``pipeline.run(checkpoint=Checkpoint(store=store))``.
    ``history`` has every commit as it was at that time, oldest first, so that a test can restart from any of them:
    ``MemoryStore.at(snapshot)``.
    """

    def __init__(self) -> None:
        self.history: list[Snapshot] = []
        self._snapshots: dict[str, Snapshot] = {}

    @classmethod
    def at(cls, snapshot: Snapshot, pipeline: str = "pipeline") -> MemoryStore:
        """A store whose last commit is this one."""
        store = cls()
        store._snapshots[pipeline] = snapshot
        return store

    async def load(self, pipeline: str) -> Snapshot | None:
        return self._snapshots.get(pipeline)

    async def commit(self, pipeline: str, change: Snapshot) -> None:
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
        snapshot = Snapshot(change.number, dict(change.positions), tables, change.finished)
        self._snapshots[pipeline] = snapshot
        self.history.append(snapshot)
