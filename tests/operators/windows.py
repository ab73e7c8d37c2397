"""Models of the windows in plain Python, one element after the other, and how results are compared with them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from attrs import define, field
from hypothesis import strategies as st

from streamflow import Observer, Window
from streamflow.connectors import Collect
from streamflow.operators import Keyed
from streamflow.testing import VirtualClock
from tests.support import run, stamped, virtual

Event = tuple[int, float, int]
"""A key, an event time, and a number that tells one from another."""

Emitted = tuple[int, Window[Any]]
"""The key and a window of events."""

Spans = Callable[[float], Iterable[tuple[float, float]]]
"""Which windows an instant is in, by start."""


def numbered(pairs: Iterable[tuple[int, float]]) -> list[Event]:
    return [(key, time, number) for number, (key, time) in enumerate(pairs)]


events = st.lists(st.tuples(st.integers(0, 2), st.integers(-30, 90)), max_size=40).map(numbered)
"""Times in any order."""

modes = st.sampled_from(
    [("close", 0), ("close", 0), ("close", 4), ("close", 20), ("update", 0), ("update", 9)]
)
"""``emit`` and ``lateness``."""

gaps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.4, 1.3, 2.5, 6.1])), max_size=20)
"""A key, and the time since the element before: for windows by the clock."""


def by_the_clock(gaps: Sequence[tuple[int, float]]) -> list[Event]:
    times = [0.05 + sum(gap for _, gap in gaps[: n + 1]) for n in range(len(gaps))]
    return numbered((key, time) for (key, _), time in zip(gaps, times, strict=True))


def event_time(event: Event) -> float:
    return event[1]


def key_of(event: Event) -> int:
    return event[0]


class Counting(Observer):
    """Late elements and those too far ahead."""

    def __init__(self) -> None:
        self.late_count = self.ahead_count = 0

    def late(self, step: str, count: int) -> None:
        self.late_count += count

    def ahead(self, step: str, count: int) -> None:
        self.ahead_count += count


def spans(size: float, every: float, offset: float = 0) -> Spans:
    """Windows of ``size`` that begin every ``every``."""

    def of(time: float) -> Iterator[tuple[float, float]]:
        first = math.floor((time - size - offset) / every) + 1
        for number in range(first, math.floor((time - offset) / every) + 1):
            yield number * every + offset, number * every + offset + size

    return of


@define
class Model:
    """What all windows over time do. ``clock``: the time of an element is also the clock's."""

    lag: float = 0
    lateness: float = 0
    emit: str = "close"
    clock: bool = False
    out: list[Emitted] = field(factory=list)
    late: list[Event] = field(factory=list)
    watermark: float = -math.inf

    def run(self, events: Iterable[Event]) -> Model:
        for event in events:
            if self.clock:
                self._pass(event[1])
            self.add(event)
            if not self.clock:
                self._pass(event[1] - self.lag)
        self._pass(math.inf)
        return self

    def _pass(self, time: float) -> None:
        if time > self.watermark:
            self.watermark = time
            self.close()

    def add(self, event: Event) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


@define
class PaneModel(Model):
    """Tumbling and sliding windows."""

    spans: Spans = field(kw_only=True)
    windows: dict[tuple[float, float, int], list[Event]] = field(factory=dict)
    revisions: dict[tuple[float, float, int], int] = field(factory=dict)
    over: set[tuple[float, float, int]] = field(factory=set)

    def add(self, event: Event) -> None:
        open_spans = [span for span in self.spans(event[1]) if not span[1] + self.lateness <= self.watermark]
        if not open_spans:
            self.late.append(event)
        for start, end in open_spans:
            slot = (end, start, event[0])
            self.windows.setdefault(slot, []).append(event)
            if end <= self.watermark:
                self.over.add(slot)
            if self.emit == "update" or slot in self.over:
                self._emit(slot)

    def close(self) -> None:
        for slot in sorted(self.windows):
            if slot[0] <= self.watermark and slot not in self.over:
                self.over.add(slot)
                if self.emit == "close":
                    self._emit(slot)

    def _emit(self, slot: tuple[float, float, int]) -> None:
        revision = self.revisions.get(slot, 0)
        self.revisions[slot] = revision + 1
        end, start, key = slot
        self.out.append((key, Window(start, end, list(self.windows[slot]), revision)))


@define
class Session:
    key: int
    events: list[Event]
    revision: int = 0
    is_over: bool = False

    @property
    def start(self) -> float:
        return min(time for _, time, _ in self.events)

    @property
    def last(self) -> float:
        return max(time for _, time, _ in self.events)


@define
class SessionModel(Model):
    gap: float = field(kw_only=True)
    sessions: list[Session] = field(factory=list)
    """In the order of creation."""

    def add(self, event: Event) -> None:
        key, time, _ = event
        near = [
            s
            for s in self.sessions
            if s.key == key and s.start <= time + self.gap and time <= s.last + self.gap
        ]
        if not near and time + self.gap + self.lateness < self.watermark:
            self.late.append(event)
            return
        if not near:
            session = Session(key, [event])
            self.sessions.append(session)
        else:
            session = near[0]
            by_time = sorted(near, key=lambda s: s.start)
            session.revision = max(s.revision for s in near)
            session.events = [*by_time[0].events, event, *(e for s in by_time[1:] for e in s.events)]
            for other in near[1:]:
                self.sessions.remove(other)
        session.is_over = self._has_passed(session, 0)
        if self.emit == "update" or session.is_over:
            self._emit(session)

    def _has_passed(self, session: Session, lateness: float) -> bool:
        end = session.last + self.gap + lateness
        return end < self.watermark or (self.clock and end == self.watermark)

    def close(self) -> None:
        ended = [s for s in self.sessions if not s.is_over and self._has_passed(s, 0)]
        for session in sorted(ended, key=lambda s: (s.last, s.start)):
            session.is_over = True
            if self.emit == "close":
                self._emit(session)
        self.sessions = [s for s in self.sessions if not self._has_passed(s, self.lateness)]

    def _emit(self, session: Session) -> None:
        self.out.append(
            (
                session.key,
                Window(session.start, session.last + self.gap, list(session.events), session.revision),
            )
        )
        session.revision += 1


def results(stream: Any, window: Any, *observers: Observer, **options: Any) -> list[Emitted]:
    """What comes out of windows for each key, with the key."""
    keyed: Any = Keyed(key_of, window)
    return [(key, w) for key, w in run(stream.via(keyed).to(Collect()), observers=observers, **options)]


def seen_by(stream: Any, until: float) -> list[tuple[float, Any]]:
    """What comes out of a stream that never ends, and when, until it is stopped."""
    seen: list[tuple[float, Any]] = []

    async def work() -> None:
        async with stream.via(stamped(seen)).to(Collect()).start(clock=VirtualClock()) as running:
            await asyncio.sleep(until)
            await running.stop()

    virtual(work())
    return [(round(time, 3), window) for time, window in seen]


def plain(emitted: Iterable[Emitted]) -> list[Any]:
    """For comparison, whatever the order of the elements in a window."""
    return [(w.start, w.end, key, w.revision, sorted(w.value)) for key, w in emitted]


def check(got: Sequence[Emitted], expected: Sequence[Emitted]) -> None:
    """The same windows in the same order; only of windows that end together each key may be first."""
    assert sorted(plain(got)) == sorted(plain(expected))
    assert [(w.start, w.end) for _, w in got] == [(w.start, w.end) for _, w in expected]
