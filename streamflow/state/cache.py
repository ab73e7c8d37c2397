"""The records that a store has seen last, as far as they fit."""

from __future__ import annotations

from collections import OrderedDict

from streamflow.state.bucket import Record

_MOST = 16_384
_MOST_BYTES = 64 * 1024 * 1024


class Cache:
    """Records by name; the ones not used for longest go first. A wrong one costs a round trip, never a wrong result."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> Record | None:
        record = self._records.get(name)
        if record is not None:
            self._records.move_to_end(name)
        return record

    def put(self, name: str, record: Record) -> None:
        """Keep what is stored now."""
        self.drop(name)
        self._records[name] = record
        self._bytes += len(record.data)
        while len(self._records) > _MOST or self._bytes > _MOST_BYTES:
            self._bytes -= len(self._records.popitem(last=False)[1].data)

    def drop(self, name: str) -> None:
        """Forget what is stored."""
        old = self._records.pop(name, None)
        if old is not None:
            self._bytes -= len(old.data)
