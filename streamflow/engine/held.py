"""The receipts of what a step holds: which of them each of its outputs takes along."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any

from streamflow.engine.chunk import Outcome, Receipt, join
from streamflow.engine.transform import Takes

Pair = tuple[Hashable, Any]


class HeldReceipts:
    """Receipts of a step with a lineage column: which of them each output takes along.

    A step that holds elements keeps their receipts by key (or by input, where it has several) until it emits for that
    key: then the output takes ``"all"`` of them, the ``"oldest"``, or the oldest of ``"each"`` input. Any other step
    has only the receipt of the element in hand, which every output takes a reference of.
    """

    def __init__(self, *, holding: bool, takes: Takes) -> None:
        self.active = False
        self._holding = holding
        self._takes = takes
        self._held: dict[Hashable, deque[Receipt]] = {}
        self._current: Receipt | None = None

    def attach(self, rows: Iterator[Pair], lineage: list[Receipt]) -> Iterator[Pair]:
        """Pass the rows on and note the receipt of each as it is taken."""
        self.active = True
        return _Attached(self, rows, lineage)

    def hold(self, key: Hashable, receipt: Receipt) -> None:
        """An element is taken."""
        self.settle()
        if self._holding:
            try:
                self._held.setdefault(key, deque()).append(receipt)
                return
            except TypeError:
                self._current = receipt  # an unhashable key: the element fails, and nothing holds it
                raise
        self._current = receipt

    def take(self, key: Hashable) -> Receipt:
        """The receipt for an output of this key."""
        if not self._holding:
            return self.current()
        if self._takes == "each":
            return join([self._oldest(each) for each in list(self._held)])
        if self._takes == "oldest":
            return self._oldest(key)
        held = self._held.pop(key, None)
        return join(list(held)) if held else _nothing()

    def current(self) -> Receipt:
        """A reference of the receipt of the element in hand."""
        if self._current is None:
            return _nothing()
        self._current.retain()
        return self._current

    def drop(self, key: Hashable) -> None:
        """The oldest element that is held for the key is given up: it counts as done."""
        if self._holding and self.active:
            self._oldest(key).release()

    def _oldest(self, key: Hashable) -> Receipt:
        held = self._held.get(key)
        if not held:
            return _nothing()
        receipt = held.popleft()
        if not held:
            del self._held[key]
        return receipt

    def settle(self, *, unused: bool = False) -> None:
        """Let go of the element in hand: what it became speaks for it, unless it was not used."""
        if self._current is not None:
            self._current.give(Outcome.UNUSED) if unused else self._current.pass_on()
            self._current = None

    def give(self, outcome: Outcome) -> None:
        """Let go of everything held: absorbed at the end of the stream, rejected by a drain, unused by a `Take`."""
        self.settle()
        for held in self._held.values():
            for receipt in held:
                receipt.give(outcome)
        self._held.clear()


class _Attached(Iterator[Pair]):
    """Rows with their receipts. No generator: an error on the way must not be the end of it."""

    def __init__(self, receipts: HeldReceipts, rows: Iterator[Pair], lineage: list[Receipt]) -> None:
        self._hold = receipts.hold
        self._rows = zip(rows, lineage, strict=False)

    def __next__(self) -> Pair:
        pair, receipt = next(self._rows)
        self._hold(pair[0], receipt)
        return pair


def _nothing() -> Receipt:
    """A receipt for an output that no message stands behind."""
    return Receipt(lambda receipt, outcome: None)
