"""Runs a `Logic`: feeds it rows, keeps its table, timers and watermark, and carries receipts past what it holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from itertools import islice, repeat
from operator import length_hint
from typing import Any

from streamflow.clock import Clock
from streamflow.engine.chunk import (
    Chunk,
    End,
    Item,
    Outcome,
    Quiet,
    Receipt,
    Tick,
    Watermark,
    join,
)
from streamflow.engine.guard import Guard
from streamflow.engine.step import Slicer, SyncStep
from streamflow.engine.table import StateTable
from streamflow.engine.transform import Logic, Scope
from streamflow.engine.watermark import Meeting, WatermarkTracker
from streamflow.policies import ProcessingTime

Pair = tuple[Hashable, Any]

_PART = 128
"""Outputs of a timer, a watermark or the end that are computed between two looks at the clock."""


class StatefulStep(SyncStep):
    """One logic at run time. ``origins`` are the source partitions, or earlier event-time steps, that feed it."""

    def __init__(
        self,
        name: str,
        logic: Logic[Any, Any],
        guard: Guard,
        clock: Clock,
        table: StateTable,
        *,
        keyed: bool,
        origins: Iterable[str],
        mixes: bool = False,
    ) -> None:
        super().__init__(name, guard)
        self.table = table
        self._logic = logic
        self._clock = clock
        self._keyed = keyed
        self._scope = Scope(table, keyed)
        if logic.event_time is not None:
            self._scope.tracker = WatermarkTracker(logic.event_time, origins, table.meta)
        self._time = self._scope.tracker
        self._mixed = Meeting(origins) if mixes else None
        # What it emits later comes from its only origin, or from itself.
        single = name if mixes or self._time is not None else next(iter(origins), "")
        self._origin = single if logic.holds > 0 else None
        self._by_clock = isinstance(logic.time, ProcessingTime)
        self._receipts = _Receipts(holding=logic.keeps_receipts, one_by_one=logic.one_by_one)
        self._withheld: dict[tuple[type[Item], str], Item] = {}
        self._slicer = Slicer()
        self._done = False
        self._end: End | None = None

    # Elements

    def process(self, chunk: Chunk) -> Iterator[Item | None]:
        self._enter(chunk.origin)
        self._withheld.pop((Quiet, chunk.origin), None)
        if self._done:
            chunk.give(Outcome.UNUSED)
            return
        if self._mixed is not None:
            self._mixed.active(chunk.origin)
        source = iter(chunk.values)
        if chunk.lineage is None:
            yield from self.owned(chunk, self._outputs(chunk, source))
        else:
            yield from self._traced(chunk, chunk.lineage, source)
        if self.table_holds():
            # Elements are on their way: a later step must not take their origin for idle meanwhile.
            yield Quiet(chunk.origin if self._mixed is None else self.name, over=True)
        yield from self._after()

    def _traced(self, chunk: Chunk, lineage: list[Receipt], source: Iterator[Any]) -> Iterator[Item | None]:
        """The same with receipts for each element: each goes its own way, the rest stays unused."""
        try:
            yield from self._outputs(chunk, source)
        except GeneratorExit:
            if not self.ended:
                raise
        self._receipts.settle()
        for receipt in lineage[len(lineage) - length_hint(source) :]:
            receipt.abandon()

    def _outputs(self, chunk: Chunk, source: Iterator[Any]) -> Iterator[Item | None]:
        keys: Iterable[Hashable] = repeat(None) if chunk.keys is None else chunk.keys
        rows: Iterator[Pair] = zip(keys, source)  # noqa: B905 - strict= costs a look at both ends for each pair
        traced = chunk.lineage is not None
        if chunk.lineage is not None:
            rows = self._receipts.attach(rows, chunk.lineage)
        pairs: list[Pair] = []
        lineage: list[Receipt] = []
        slicer = self._slicer
        slicer.start()
        while left := length_hint(source):
            part = islice(rows, slicer.size) if left > slicer.size else rows
            outputs = self._logic.process(self._scope, part)
            try:
                if traced:
                    for pair in outputs:
                        pairs.append(pair)
                        lineage.append(self._receipts.take(pair[0]))
                else:
                    pairs.extend(outputs)
            except BaseException as error:
                failed = chunk.values[len(chunk.values) - length_hint(source) - 1]
                failure = self.guard.failure(error, self.name, failed)
                if not self.guard.absorbs(failure):
                    yield from self._emit(pairs, lineage, chunk)
                    raise failure from failure.cause
            if not self._keyed and self._logic.is_done(self._scope):
                break
            if slicer.lap():
                yield from self._emit(pairs, lineage, chunk)
                yield None
                pairs, lineage = [], []
                slicer.start()
        yield from self._emit(pairs, lineage, chunk)

    def _enter(self, origin: str) -> None:
        self._scope.now = self._clock.now()
        self._scope.origin = origin

    def _after(self) -> Iterator[Item | None]:
        """What follows from the elements just taken: closed windows, late counts, watermarks, the end of a `Take`."""
        scope = self._scope
        if self._time is not None:
            advanced = self._time.advance(scope.now)
            if advanced is not None:
                yield from self._emit_pairs(partial(self._logic.on_watermark, scope, advanced))
                self.guard.observer.watermark(self.name, advanced)
                yield Watermark(self.name, advanced)
        if self._by_clock and (closes := self._logic.next_close(scope)) is not None and closes <= scope.now:
            yield from self._emit_pairs(partial(self._logic.on_watermark, scope, scope.now))
        if scope.late:
            self.guard.observer.late(self.name, scope.late)
            scope.late = 0
        if self._withheld and not self.table_holds():
            yield from self._withheld.values()
            self._withheld.clear()
        if not self._done and not self._keyed and self._logic.is_done(scope):
            self._done = True
            yield End()

    def start(self) -> Iterator[Item | None]:
        """Items that follow before any input: a `Take(0)` is over at once, a restored timer may be due."""
        self._enter("")
        yield from self._after()

    # Control items

    def control(self, item: Item) -> Iterator[Item | None]:
        self._enter("")
        if self._mixed is not None and isinstance(item, Watermark | Quiet):
            mixed = self._mix(item, self._mixed)
            if mixed is None:
                return
            item = mixed
        match item:
            case Tick():
                yield from self._run_timers()
                yield from self._after()
                yield item
            case Watermark() | Quiet() if self._time is not None:
                if isinstance(item, Watermark):
                    self._time.promise(item.origin, item.time)
                elif item.over:
                    self._time.active(item.origin)
                else:
                    self._time.quiet(item.origin, self._scope.now)
                yield from self._after()
            case Quiet(over=True):
                yield item
            case Watermark() | Quiet() if self.table_holds():
                self._withheld[type(item), item.origin] = item
            case End() if item.drain or (self.draining and self.backlog):
                yield self._given_back()
            case End() if self.backlog:
                self._end = item
            case End():
                yield from self._finish(item)
            case _:
                yield item

    def _mix(self, item: Watermark | Quiet, mixed: Meeting) -> Item | None:
        """What an origin says is true of the mixture when it is true of all."""
        if isinstance(item, Quiet) and item.over:
            mixed.active(item.origin)
            return Quiet(self.name, over=True)
        if isinstance(item, Quiet):
            return Quiet(self.name) if mixed.quiet(item.origin) else None
        least = mixed.promise(item.origin, item.time)
        return None if least is None else Watermark(self.name, least)

    def _given_back(self) -> End:
        self._receipts.give(Outcome.REJECTED)
        return End(drain=True)

    def _finish(self, end: End) -> Iterator[Item | None]:
        yield from self._emit_pairs(partial(self._logic.on_end, self._scope))
        yield from self._withheld.values()
        self._receipts.give(Outcome.DONE)
        yield end

    def abandon(self) -> None:
        self._receipts.give(Outcome.UNUSED)

    def table_holds(self) -> bool:
        """Whether elements are held back that a watermark must not overtake."""
        return self._logic.holds > 0 and self._time is None and self._logic.is_holding(self._scope)

    def _run_timers(self) -> Iterator[Item | None]:
        assert self.table is not None
        for key in self.table.due(self._scope.now):
            yield from self._emit_pairs(partial(self._logic.on_timer, self._scope, key))
        if self._end is not None and self.draining:
            yield self._given_back()
        elif self._end is not None and not self.backlog:
            end, self._end = self._end, None
            yield from self._finish(end)

    def next_wake(self) -> float | None:
        assert self.table is not None
        times = [self.table.timers.next()]
        if self._by_clock:
            times.append(self._logic.next_close(self._scope))
        if self._time is not None:
            closes = self._logic.next_close(self._scope)
            times.append(self._time.next_idle(self._clock.now()))
            times.append(self._time.due(closes) if closes is not None else None)
        return min((time for time in times if time is not None), default=None)

    @property
    def backlog(self) -> int:
        return self._logic.backlog(self._scope)

    # What comes out

    def _emit_pairs(self, produce: Callable[[], Iterable[Pair]]) -> Iterator[Chunk | None]:
        """Emit what no element of a chunk caused directly: it carries the receipts of what was held for its key.

        After a failure that the policy absorbs, the logic is asked again and goes on with what is left.
        """
        outputs = iter(produce())
        origin = self._scope.origin if self._origin is None else self._origin
        while True:
            part: list[Pair] = []
            try:
                part.extend(islice(outputs, _PART))
            except BaseException as error:
                self.guard.decide(error, self.name, None)
                outputs = iter(produce())
            else:
                if not part:
                    return
            if part:
                lineage = [self._receipts.take(key) for key, _ in part] if self._receipts.active else []
                yield self._chunk(part, lineage, origin)
                yield None

    def _emit(self, pairs: list[Pair], lineage: list[Receipt], chunk: Chunk) -> Iterator[Chunk]:
        if not pairs:
            return
        out = self._chunk(pairs, lineage, chunk.origin if self._origin is None else self._origin)
        if chunk.receipt is not None:
            out.receipt = chunk.receipt
            out.receipt.retain()
        yield out

    def _chunk(self, pairs: list[Pair], lineage: list[Receipt], origin: str) -> Chunk:
        return Chunk(
            [value for _, value in pairs],
            origin,
            keys=[key for key, _ in pairs] if self._keyed else None,
            lineage=lineage or None,
        )


class _Receipts:
    """Receipts of a step with a lineage column: which of them each output takes along.

    A step that holds elements keeps their receipts by key until it emits for that key: then the output takes all of
    them, or the oldest (``one_by_one``). Any other step has only the receipt of the element in hand, which every
    output takes a reference of.
    """

    def __init__(self, *, holding: bool, one_by_one: bool) -> None:
        self.active = False
        self._holding = holding
        self._one_by_one = one_by_one
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
        if self._holding:
            held = self._held.get(key)
            if not held:
                return _nothing()
            if self._one_by_one and len(held) > 1:
                return held.popleft()
            return join(list(self._held.pop(key)))
        if self._current is None:
            return _nothing()
        self._current.retain()
        return self._current

    def settle(self) -> None:
        """Let go of the element in hand: what it became speaks for it."""
        if self._current is not None:
            self._current.pass_on()
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

    def __init__(self, receipts: _Receipts, rows: Iterator[Pair], lineage: list[Receipt]) -> None:
        self._hold = receipts.hold
        self._rows = zip(rows, lineage, strict=False)

    def __next__(self) -> Pair:
        pair, receipt = next(self._rows)
        self._hold(pair[0], receipt)
        return pair


def _nothing() -> Receipt:
    """A receipt for an output that no message stands behind."""
    return Receipt(lambda receipt, outcome: None)
