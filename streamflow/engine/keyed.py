"""The two ends of a `Keyed` run: one adds the column of keys, the other makes `KeyedValue`s of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from itertools import islice
from operator import length_hint
from typing import Any

from streamflow.engine.chunk import Chunk, Item
from streamflow.engine.guard import Guard
from streamflow.engine.step import Slicer, SyncStep
from streamflow.message import KeyedValue


class KeyStep(SyncStep):
    """Adds the key of each element as a column; an element whose key fails goes to the error policy."""

    def __init__(self, name: str, key: Callable[[Any], Hashable], guard: Guard) -> None:
        super().__init__(name, guard)
        self._key = key
        self._slicer = Slicer()

    def process(self, chunk: Chunk) -> Iterator[Chunk | None]:
        values, key = chunk.values, self._key
        source = iter(values)
        keys: list[Hashable] = []
        failed: list[int] = []
        slicer = self._slicer
        slicer.start()
        while left := length_hint(source):
            try:
                keys.extend(_keys(key, islice(source, slicer.size) if left > slicer.size else source))
            except BaseException as error:
                row = len(values) - length_hint(source) - 1
                failure = self.guard.failure(error, self.name, values[row])
                if not self.guard.absorbs(failure):
                    if keys:
                        yield _kept(chunk, row, failed, keys)
                    raise failure from failure.cause
                failed.append(row)
            if slicer.lap():
                yield None
                slicer.start()
        if failed:
            kept = _kept(chunk, len(values), failed, keys)
            chunk.pass_on()
            chunk = kept
        chunk.keys = keys
        if keys:
            yield chunk
        else:
            chunk.release()


def _kept(chunk: Chunk, end: int, failed: list[int], keys: list[Hashable]) -> Chunk:
    """The rows before ``end`` without those that failed, and their keys."""
    missing = set(failed)
    rows = [row for row in range(end) if row not in missing]
    kept = chunk.pick(rows, [chunk.values[row] for row in rows])
    kept.keys = keys
    return kept


def _keys(key: Callable[[Any], Hashable], values: Iterator[Any]) -> Iterator[Hashable]:
    # A generator, not map(): a StopIteration of the user's function must not end it silently.
    for value in values:
        yield key(value)


_keyed_value = partial(tuple.__new__, KeyedValue)
"""`KeyedValue._make` without a call into Python for each element."""


class UnkeyStep(SyncStep):
    """Joins keys and values into `KeyedValue`s."""

    def handle(self, item: Item) -> Iterator[Item | None]:
        # Not counted: to observers it is one step with the beginning of the run.
        return self.process(item) if isinstance(item, Chunk) else self.control(item)

    def process(self, chunk: Chunk) -> Iterator[Chunk | None]:
        assert chunk.keys is not None, "between the two ends of a keyed run every chunk has keys"
        pairs = zip(chunk.keys, chunk.values, strict=True)
        values: list[Any] = list(map(_keyed_value, pairs))
        yield Chunk(values, chunk.origin, receipt=chunk.receipt, lineage=chunk.lineage)
