"""What travels through a pipeline: chunks of values, their receipts, and the control items between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from attrs import frozen

CHUNK_SIZE = 1024
"""The most values that a source puts into one chunk."""


class Outcome(Enum):
    """What became of the source messages under a receipt."""

    DONE = "done"  # delivered, or absorbed on the way: acknowledge
    UNUSED = "unused"  # every branch ended before it: hand it back
    REJECTED = "rejected"  # held by a step that was told to stop: it must come again


class Receipt:
    """Counts what still depends on some source messages, and tells the source when nothing does any more.

    It starts with one reference. Branches and steps that derive several chunks from one `retain` it. A reference goes
    by `release` (delivered, or dropped on purpose), `reject` (held by a step that must give back), `abandon` (the
    branch ended before it), or `pass_on` (what it became has references of its own, and speaks for it). When the last
    one goes, ``settle`` is called once: rejected counts most, then released, then abandoned; if all were passed on,
    nothing was left of the messages, and they are done.

    ``message`` is the source's own handle of what it covers, ``position`` its place in the source.
    """

    __slots__ = ("_abandoned", "_refs", "_rejected", "_settle", "_used", "message", "position")

    def __init__(
        self, settle: Callable[[Receipt, Outcome], None], message: Any = None, position: Any = None
    ) -> None:
        self._settle = settle
        self._refs = 1
        self._used = False
        self._rejected = False
        self._abandoned = False
        self.message = message
        self.position = position

    def retain(self) -> None:
        self._refs += 1

    def release(self) -> None:
        self._used = True
        self.pass_on()

    def abandon(self) -> None:
        self._abandoned = True
        self.pass_on()

    def reject(self) -> None:
        self._rejected = True
        self.pass_on()

    def pass_on(self) -> None:
        self._refs -= 1
        if self._refs == 0:
            if self._rejected:
                self._settle(self, Outcome.REJECTED)
            elif self._abandoned and not self._used:
                self._settle(self, Outcome.UNUSED)
            else:
                self._settle(self, Outcome.DONE)

    def give(self, outcome: Outcome) -> None:
        """Drop a reference with an outcome that is known only at run time."""
        if outcome is Outcome.DONE:
            self.release()
        elif outcome is Outcome.REJECTED:
            self.reject()
        else:
            self.abandon()


def join(receipts: Sequence[Receipt]) -> Receipt:
    """One receipt for a value that was made from several messages; takes over the references it is given.

    It cannot tell which message a part of the value came from, and must not lose one: if some parts were used and
    some left over, all the messages come again.
    """
    if len(receipts) == 1:
        return receipts[0]

    def settle(_: Receipt, outcome: Outcome) -> None:
        for receipt in receipts:
            receipt.give(outcome)

    return _Joined(settle)


class _Joined(Receipt):
    __slots__ = ()

    def pass_on(self) -> None:
        if self._refs == 1 and self._used and self._abandoned:
            self._rejected = True
        super().pass_on()


class Chunk:
    """Values that travel together, with columns beside them.

    ``origin`` names the source partition they come from. ``keys`` is a column of keys inside `Keyed`, else None.
    What acknowledges them is either ``receipt``, one for all, or ``lineage``, a column of one for each value (when a
    later step must know which message each value came from), or neither. ``port`` is the number of the input by which
    a step with several inputs got it.
    """

    __slots__ = ("keys", "lineage", "origin", "port", "receipt", "values")

    def __init__(
        self,
        values: list[Any],
        origin: str = "",
        *,
        keys: Sequence[Any] | None = None,
        receipt: Receipt | None = None,
        lineage: list[Receipt] | None = None,
    ) -> None:
        self.values = values
        self.origin = origin
        self.keys = keys
        self.receipt = receipt
        self.lineage = lineage
        self.port = 0

    def __len__(self) -> int:
        return len(self.values)

    def retain(self) -> None:
        if self.receipt is not None:
            self.receipt.retain()
        elif self.lineage is not None:
            for receipt in self.lineage:
                receipt.retain()

    def give(self, outcome: Outcome) -> None:
        """Drop this chunk's references, all with one outcome."""
        if self.receipt is not None:
            self.receipt.give(outcome)
        elif self.lineage is not None:
            for receipt in self.lineage:
                receipt.give(outcome)

    def release(self) -> None:
        self.give(Outcome.DONE)

    def pass_on(self) -> None:
        """Drop this chunk's references: the chunks that were made of it have theirs."""
        if self.receipt is not None:
            self.receipt.pass_on()
        elif self.lineage is not None:
            for receipt in self.lineage:
                receipt.pass_on()

    def pick(self, rows: Iterable[int], values: list[Any]) -> Chunk:
        """A chunk of new values that come from the given rows of this one. It has references of its own."""
        rows = rows if self.keys is None and self.lineage is None else list(rows)
        derived = Chunk(
            values,
            self.origin,
            keys=None if self.keys is None else [self.keys[row] for row in rows],
            receipt=self.receipt,
            lineage=None if self.lineage is None else [self.lineage[row] for row in rows],
        )
        derived.retain()
        return derived

    def split(self, size: int) -> tuple[Chunk, Chunk]:
        """The first elements and the others, in the place of this chunk."""
        first = self.pick(range(size), self.values[:size])
        rest = self.pick(range(size, len(self)), self.values[size:])
        self.pass_on()
        return first, rest


@frozen
class Barrier:
    """Cuts the stream at a checkpoint: what is before it belongs to checkpoint ``number``, what is behind does not."""

    number: int


@frozen
class Watermark:
    """A promise: ``origin`` sends nothing more with an event time below ``time``. Infinity: it has ended."""

    origin: str
    time: float


@frozen
class Quiet:
    """The origin is caught up: there is nothing more to read at this moment. ``over``: it is not any more, elements of
    it are held on the way. Elements that arrive say so by themselves."""

    origin: str
    over: bool = False


@frozen
class Progress:
    """Everything that ``origin`` made up to its chunk ``number`` has gone by. Sent only where several branches of one
    origin meet again before a step with event time: it tells how far each branch is, also one that carries little."""

    origin: str
    number: int


@frozen
class PortEnd:
    """Nothing more comes by this input of a step that has several."""

    port: int


@frozen
class Aside:
    """Elements that leave their stage by a side output, such as those that came too late."""

    output: str
    chunk: Chunk


@frozen
class Tick:
    """Time has come for some timer of the stage that gets it; it does not leave the stage."""


@frozen
class End:
    """Nothing follows. After a ``drain`` what steps hold is given back, otherwise it is emitted."""

    drain: bool = False


TICK = Tick()
Item = Chunk | Barrier | Watermark | Quiet | Progress | PortEnd | Aside | Tick | End
