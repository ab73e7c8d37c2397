"""Runs a `Logic`: feeds it rows, keeps its table, timers and watermark, and carries receipts past what it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, islice, repeat
from operator import length_hint
from typing import Any

from streamflow.clock import Clock
from streamflow.engine.chunk import (
    Aside,
    Chunk,
    End,
    Item,
    Outcome,
    PortEnd,
    Progress,
    Quiet,
    Receipt,
    Tick,
    Watermark,
)
from streamflow.engine.guard import Guard
from streamflow.engine.held import HeldReceipts, Pair
from streamflow.engine.step import Slicer, SyncStep
from streamflow.engine.table import StateTable
from streamflow.engine.transform import Logic, Scope
from streamflow.engine.watermark import Meeting, WatermarkTracker
from streamflow.policies import ProcessingTime

_PART = 128
"""Outputs of a timer, a watermark or the end that are computed between two looks at the clock."""


class StatefulStep(SyncStep):
    """One logic at run time.

    ``origins`` are the source partitions, or earlier event-time steps, that feed it, by input; ``ways`` those of them
    that are branches of one origin, by that origin. ``mixes``: what comes out is of no single origin. ``marks``: it
    reports its progress, since its branches meet again. ``ttl``: seconds after which an idle key is forgotten.
    ``tied``: see `Scope.tied`.
    """

    def __init__(
        self,
        name: str,
        logic: Logic[Any, Any],
        guard: Guard,
        clock: Clock,
        table: StateTable,
        *,
        keyed: bool,
        origins: Sequence[Iterable[str]],
        ways: Mapping[str, str],
        mixes: bool = False,
        marks: bool = False,
        ttl: float | None = None,
        tied: tuple[frozenset[int], ...] = (),
    ) -> None:
        super().__init__(name, guard)
        self.table = table
        self.holds_back = type(logic).backlog is not Logic.backlog
        self._logic = logic
        self._clock = clock
        self._keyed = keyed
        self._scope = Scope(table, self._take_late, self._drop_held, keyed, tied=tied)
        all_origins = [origin for port in origins for origin in port]
        self._time = self._scope.tracker = _tracker(logic, origins, ways, table)
        self._mixed = Meeting(all_origins) if mixes else None
        self._ports = {origin: port for port, names in enumerate(origins) for origin in names}
        self._made = count(1) if marks else None
        # What it emits later comes from its only origin, or from itself.
        single = name if mixes or self._time is not None else next(iter(all_origins), "")
        self._origin = single if logic.holds > 0 or mixes or self._time is not None else None
        self._by_clock = isinstance(logic.time, ProcessingTime)
        self._receipts = HeldReceipts(holding=logic.keeps_receipts, takes=logic.takes)
        self._late: list[tuple[Any, Receipt]] = []
        self._late_count = 0
        self._told = -math.inf
        self._ttl = ttl
        self._withheld: dict[tuple[type[Item], str], Item] = {}
        self._slicer = Slicer()
        self._done = False
        self._end: End | None = None

    # Elements

    def process(self, chunk: Chunk) -> Iterator[Item | None]:
        self._enter(chunk.origin, chunk.port)
        # True no more: elements of later chunks will have gone by as well when these are let go.
        self._withheld.pop((Quiet, chunk.origin), None)
        self._withheld.pop((Progress, chunk.origin), None)
        if self._done:
            chunk.give(Outcome.UNUSED)
            return
        if self._mixed is not None:
            self._mixed.active(chunk.origin)
        if self._ttl is not None and chunk.keys is not None:
            self._forget_idle(chunk.keys)
        source = iter(chunk.values)
        if chunk.lineage is None:
            yield from self.owned(chunk, self._outputs(chunk, source))
        else:
            yield from self._traced(chunk, chunk.lineage, source)
        if self.table_holds():
            # Elements are on their way: a later step must not take their origin for idle meanwhile.
            yield Quiet(chunk.origin if self._mixed is None else self.name, over=True)
            if self._mixed is not None and self._logic.inputs > 1 and self._mixed.is_quiet(self._awaits):
                yield Quiet(self.name)  # what it awaits has been silent before
        if self._time is not None:
            believed = self._scope.ahead < len(chunk)
            # Who sends only what cannot be believed holds nothing back: that is as good as silence.
            self._time.active(chunk.origin) if believed else self._time.quiet(chunk.origin, self._scope.now)
        yield from self._after()
        if self._made is not None:
            yield Progress(self.name, next(self._made))

    def _traced(self, chunk: Chunk, lineage: list[Receipt], source: Iterator[Any]) -> Iterator[Item | None]:
        """The same with receipts for each element: each goes its own way, the rest stays unused."""
        try:
            yield from self._outputs(chunk, source)
        except GeneratorExit:
            if not self.ended:
                raise
        self._receipts.settle(unused=self._scope.unused)
        self._abandon_late()
        for receipt in lineage[len(lineage) - length_hint(source) :]:
            receipt.abandon()

    def _outputs(self, chunk: Chunk, source: Iterator[Any]) -> Iterator[Item | None]:
        if chunk.keys is not None:
            keys: Iterable[Hashable] = chunk.keys
        else:
            keys = repeat(None if self._logic.inputs == 1 else chunk.port)
        rows: Iterator[Pair] = zip(keys, source)  # noqa: B905 - strict= costs a look at both ends for each pair
        # What one source's element completes may be made of another's that has receipts.
        traced = chunk.lineage is not None or (self._receipts.active and self._logic.keeps_receipts)
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
                failed = None
                if not self._scope.closing:
                    failed = chunk.values[len(chunk.values) - length_hint(source) - 1]
                self._scope.closing = False
                if self._keyed and isinstance(error, TypeError) and "unhashable" in str(error):
                    error.add_note("keys must be hashable: the key function of Keyed gave one that is not")
                failure = self.guard.failure(error, self.name, failed)
                if not self.guard.absorbs(failure):
                    yield from self._emit(pairs, lineage, chunk)
                    raise failure from failure.cause
                self._logic.on_absorbed(self._scope)
            if not self._keyed and self._logic.is_done(self._scope):
                break
            if slicer.lap():
                yield from self._emit(pairs, lineage, chunk)
                yield None
                pairs, lineage = [], []
                slicer.start()
        yield from self._emit(pairs, lineage, chunk)

    def _enter(self, origin: str, port: int = 0) -> None:
        scope = self._scope
        scope.now = self._clock.now()
        scope.origin = origin
        scope.port = port

    def _after(self) -> Iterator[Item | None]:
        """What follows from the elements just taken: closed windows, late counts, watermarks, the end of a `Take`."""
        scope = self._scope
        yield from self._sent_aside()
        if self._time is not None:
            advanced = self._time.advance(scope.now)
            if advanced is not None:
                yield from self._emit_pairs(partial(self._logic.on_watermark, scope, advanced))
                self.guard.observer.watermark(self.name, advanced)
                promise = self._logic.promise(scope, advanced)
                if promise > self._told:
                    self._told = promise
                    yield Watermark(self.name, promise)
        if self._by_clock and (closes := self._logic.next_close(scope)) is not None and closes <= scope.now:
            yield from self._emit_pairs(partial(self._logic.on_watermark, scope, scope.now))
        if scope.ahead:
            self.guard.observer.ahead(self.name, scope.ahead)
            scope.ahead = 0
        if self._withheld and not self.table_holds():
            yield from self._withheld.values()
            self._withheld.clear()
        if not self._done and not self._keyed and self._logic.is_done(scope):
            self._done = True
            yield End()

    def start(self) -> Iterator[Item | None]:
        """Items that follow before any input: a `Take(0)` is over at once, a restored timer may be due."""
        self._enter("")
        self._logic.on_start(self._scope)
        yield from self._after()

    # What leaves by the side

    def _take_late(self, value: Any) -> None:
        self._late_count += 1
        if self._logic.late is not None:
            self._late.append((value, self._receipts.current()))

    def _drop_held(self, key: Hashable) -> None:
        self._receipts.drop(key)

    def _sent_aside(self, chunk: Chunk | None = None) -> Iterator[Item]:
        """Tell of elements that came too late, and send them to their sink if there is one."""
        if self._late_count:
            self.guard.observer.late(self.name, self._late_count)
            self._late_count = 0
        if self._late:
            late, self._late = self._late, []
            aside = Chunk([value for value, _ in late], self._scope.origin)
            if chunk is not None and chunk.receipt is not None:
                aside.receipt = chunk.receipt
                aside.receipt.retain()
            else:
                aside.lineage = [receipt for _, receipt in late]
            yield Aside(f"{self.name}/late", aside)

    # Idle keys

    def _forget_idle(self, keys: Iterable[Hashable] = ()) -> None:
        """Forget the keys that have been idle for too long; those given are not any more."""
        assert self._ttl is not None
        table, now = self.table, self._scope.now
        assert table is not None
        for key in table.idle(now, self._ttl):
            self._logic.forget(self._scope, key)
        for key in _distinct(keys):
            table.see(key, now)

    # Control items

    def control(self, item: Item) -> Iterator[Item | None]:
        self._enter("")
        if self._mixed is not None and isinstance(item, Watermark | Quiet | Progress):
            mixed = self._mix(item, self._mixed)
            if mixed is None:
                return
            item = mixed
        match item:
            case Tick():
                yield from self._on_tick()
                yield from self._after()
                yield item
            case Watermark() | Quiet() | Progress() if self._time is not None:
                self._hear(item, self._time)
                yield from self._after()
            case Quiet(over=True):
                yield item
            case PortEnd():
                yield from self._emit_pairs(partial(self._logic.on_port_end, self._scope, item.port))
                yield from self._after()
            case Quiet() if self._logic.inputs > 1:
                yield item
            case Watermark() | Quiet() | Progress() if self.table_holds():
                self._withheld[type(item), item.origin] = item
            case End() if item.drain or (self.draining and self._pending):
                yield self._given_back()
            case End() if self._pending:
                self._end = item
            case End():
                yield from self._finish(item)
            case _:
                yield item

    def _hear(self, item: Watermark | Quiet | Progress, time: WatermarkTracker) -> None:
        """What an origin says, to the watermark."""
        match item:
            case Watermark():
                time.promise(item.origin, item.time)
            case Progress():
                time.progress(item.origin, item.number)
            case Quiet(over=True):
                time.active(item.origin)
            case Quiet():
                time.quiet(item.origin, self._scope.now)

    def _mix(self, item: Watermark | Quiet | Progress, mixed: Meeting) -> Item | None:
        """What an origin says is true of the mixture when it is true of all."""
        if isinstance(item, Progress):
            return None  # the mixture has its own
        if isinstance(item, Quiet) and item.over:
            mixed.active(item.origin)
            return Quiet(self.name, over=True)
        if isinstance(item, Quiet):
            mixed.quiet(item.origin)
            return Quiet(self.name) if mixed.is_quiet(self._awaits) else None
        least = mixed.promise(item.origin, item.time)
        return None if least is None else Watermark(self.name, least)

    def _awaits(self, origin: Hashable) -> bool:
        return self._logic.awaits(self._scope, self._ports[str(origin)])

    def _given_back(self) -> End:
        self._receipts.give(Outcome.REJECTED)
        assert self.table is not None
        remembered = sum(map(len, self.table.spaces.values()))
        if remembered and self._logic.memory and not self.table.tracked:
            self.guard.observer.event(
                "what a step remembers is lost", step=self.name, entries=remembered, reason="drained"
            )
        return End(drain=True)

    def _finish(self, end: End) -> Iterator[Item | None]:
        yield from self._emit_pairs(partial(self._logic.on_end, self._scope))
        yield from self._withheld.values()
        self._receipts.give(Outcome.DONE)
        yield end

    def abandon(self) -> None:
        self._receipts.give(Outcome.UNUSED)
        self._abandon_late()

    def _abandon_late(self) -> None:
        for _, receipt in self._late:
            receipt.abandon()
        self._late = []

    def wants(self, port: int) -> bool:
        return self._logic.wants(self._scope, port)

    def held(self, port: int) -> int:
        return self._logic.held(self._scope, port)

    def table_holds(self) -> bool:
        """Whether elements are held back that a watermark must not overtake."""
        return self._logic.holds > 0 and self._time is None and self._logic.is_holding(self._scope)

    def _run_timers(self) -> Iterator[Item | None]:
        assert self.table is not None
        for key in self.table.due(self._scope.now):
            yield from self._emit_pairs(partial(self._logic.on_timer, self._scope, key))

    def _on_tick(self) -> Iterator[Item | None]:
        if self._logic.time is None:
            yield from self._run_timers()
        if self._ttl is not None:
            self._forget_idle()
        if self._end is not None and self.draining:
            yield self._given_back()
        elif self._end is not None and not self._pending:
            end, self._end = self._end, None
            yield from self._finish(end)

    def next_wake(self) -> float | None:
        assert self.table is not None
        closes = self._logic.next_close(self._scope)
        times: list[float | None] = [closes if self._by_clock else None]
        if self._logic.time is None:
            times.append(self.table.timers.next())
        if self._time is not None:
            times.append(self._time.next_idle(self._clock.now()))
            times.append(self._time.due(closes) if closes is not None else None)
        if self._ttl is not None and (first := self.table.first_seen()) is not None:
            times.append(first + self._ttl)
        return min((time for time in times if time is not None), default=None)

    @property
    def backlog(self) -> int:
        return self._logic.backlog(self._scope)

    @property
    def _pending(self) -> int:
        return self._logic.pending(self._scope)

    def watch_input(self, has_unread: Callable[[], bool]) -> None:
        self._scope.has_unread = has_unread

    # What comes out

    def _emit_pairs(self, produce: Callable[[], Iterable[Pair]]) -> Iterator[Chunk | None]:
        """Emit what no element of a chunk caused directly: it carries the receipts of what was held for its key.

        After a failure that the policy absorbs, the logic is asked again and goes on with what is left.
        """
        outputs: Iterator[Pair] | None = None
        origin = self._scope.origin if self._origin is None else self._origin
        while True:
            part: list[Pair] = []
            try:
                outputs = iter(produce()) if outputs is None else outputs
                part.extend(islice(outputs, _PART))
            except BaseException as error:
                self.guard.decide(error, self.name, None)
                self._logic.on_absorbed(self._scope)
                outputs = None
            else:
                if not part:
                    return
            if part:
                lineage = [self._receipts.take(key) for key, _ in part] if self._receipts.active else []
                yield self._chunk(part, lineage, origin)
                yield None

    def _emit(self, pairs: list[Pair], lineage: list[Receipt], chunk: Chunk) -> Iterator[Item]:
        yield from self._sent_aside(chunk)
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


def _distinct(keys: Iterable[Hashable]) -> Iterable[Hashable]:
    try:
        return dict.fromkeys(keys)
    except TypeError:  # one that is unhashable: its element will fail
        return dict.fromkeys(key for key in keys if _is_hashable(key))


def _is_hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _tracker(
    logic: Logic[Any, Any], origins: Sequence[Iterable[str]], ways: Mapping[str, str], table: StateTable
) -> WatermarkTracker | None:
    """The watermark of a logic with event time: each input has its own, or all have the same."""
    times = logic.event_times
    if not times:
        return None
    by_origin = {
        origin: times[port if len(times) > 1 else 0] for port, names in enumerate(origins) for origin in names
    }
    return WatermarkTracker(by_origin, table.meta, ways)
