"""The logic of sessions: per key a list of them, joined by elements, closed as the watermark passes their ends."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from operator import attrgetter, itemgetter
from typing import Any, Generic, TypeVar

from attrs import define

from streamflow.engine.transform import UNBOUNDED, Logic, Scope
from streamflow.message import Window
from streamflow.operators._grid import finite
from streamflow.operators._time import epoch
from streamflow.operators._windows import Out, WindowOptions
from streamflow.policies import EventTime

A = TypeVar("A")


@define
class Session(Generic[A]):
    """The times of its first and last element, and what they have become."""

    start: float
    last: float
    acc: A
    number: int
    """In the order of creation, over all keys, from 1 on. 0: it is gone, or has become part of another."""
    revision: int = 0
    """How often it has been emitted."""
    is_over: bool = False
    """Whether it has been closed and is kept because late elements may still join it."""


Due = tuple[float, float, int, Hashable, Session[Any]]
"""The end, start and number of a session, by which closed ones are ordered; its key; the session."""

_ORDER = itemgetter(0, 1, 2)
_START = attrgetter("start")


class SessionWindows(Logic[Any, Any]):
    """The table has for each key its sessions by start, usually one; ``meta["created"]`` counts them.

    Sessions are emitted by their ends, and after the watermark has passed one no element joins it. So it makes no
    difference whether they are emitted at once, or together behind the chunk, which is cheaper. Only where late
    elements are emitted as well, those come in between.
    """

    holds = UNBOUNDED

    def __init__(self, gap: float, options: WindowOptions) -> None:
        self.gap = gap
        self.into = options.into
        self.time = options.time
        self.late = options.late
        self.lateness = options.lateness
        self.state_type = list[Session[options.into.state]]  # type: ignore[name-defined]
        self._extract: Callable[[Any], Any] | None = (
            options.time.extract if isinstance(options.time, EventTime) else None
        )
        self._revises = options.revises
        self._updates = options.emit == "update"
        self._closes_at_once = options.lateness > 0 and not self._updates
        self._closing: Iterator[Due] = iter(())
        """Closed and to be emitted; where a result failed, it goes on behind it."""
        self._serial = count()
        self._due: list[tuple[float, int, Hashable, Session[Any]]] = []
        """A heap of all sessions and some that are gone, by a time that is not after their next change: it is not moved
        with every element, but when it is reached."""
        self._starts: list[tuple[float, int, Session[Any]]] = []
        """The same by their starts. Both derive from the table and are not saved."""

    # Elements

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[Out]:
        table, gap, add = scope.table, self.gap, self.into.add
        revises, at_once = self._revises, self._closes_at_once
        space: dict[Any, list[Session[Any]]] = table.space()
        touch = table.touch if table.tracked else None
        now = scope.now
        extract = self._extract or (lambda _: now)
        view = scope.view()
        top, bound, closed, lag, ahead = view.top, view.bound, view.closed, view.lag, view.ahead
        if self._extract is None:
            closed = _after(now)
        try:
            if at_once:
                yield from self._close(scope, closed)
            for key, value in rows:
                time: Any = extract(value)
                if time.__class__ is not float:
                    time = epoch(time)
                sessions = space.get(key)
                session = sessions[-1] if sessions else None
                if (
                    session is not None
                    and session.start <= time <= (end := session.last + gap)
                    and closed <= end
                ):
                    # It is open, and no earlier one is within the gap.
                    if touch is not None:
                        touch(key)
                    session.acc = add(session.acc, value)
                    if time > session.last:
                        session.last = time
                else:
                    session = self._joined(scope, key, finite(time), value, closed)
                    if session is None:
                        scope.late(value)
                        continue
                if revises:
                    yield from self._revised(key, session, closed)
                if time > top:
                    if time > ahead:
                        scope.ahead += 1
                        continue
                    top = time
                    if top - lag > closed and bound > closed:
                        closed = min(bound, top - lag)
                        if at_once and self._due[0][0] < closed:
                            yield from self._close(scope, closed)
        finally:
            scope.saw(top)

    def _joined(
        self, scope: Scope, key: Hashable, time: float, value: Any, closed: float
    ) -> Session[Any] | None:
        """The session that an element is in now: of those that it is near to it makes one. None: it is late."""
        sessions: list[Session[Any]] = scope.table.space().get(key, [])
        gap, lateness = self.gap, self.lateness
        near = [
            session
            for session in sessions
            if session.start <= time + gap
            and time <= (end := session.last + gap)
            and end + lateness >= closed
        ]
        if not near:
            return None if time + gap + lateness < closed else self._created(scope, key, time, value)
        scope.table.touch(key)
        acc = self.into.add(near[0].acc, value)
        for other in near[1:]:
            acc = self.into.merge(acc, other.acc)
        session = Session(
            min(time, near[0].start),
            max(time, near[-1].last),
            acc,
            min(session.number for session in near),
            max(session.revision for session in near),
        )
        for other in near:
            other.number = 0
            sessions.remove(other)
        insort(sessions, session, key=_START)
        self._watch(key, session)
        return session

    def _created(self, scope: Scope, key: Hashable, time: float, value: Any) -> Session[Any]:
        acc = self.into.add(self.into.initial(), value)
        table = scope.table
        table.touch(key)
        number = table.meta["created"] = table.meta.get("created", 0) + 1
        session = Session(time, time, acc, number)
        insort(table.space().setdefault(key, []), session, key=_START)
        self._watch(key, session)
        return session

    def _watch(self, key: Hashable, session: Session[Any]) -> None:
        serial = next(self._serial)
        heappush(self._due, (self._next_change(session), serial, key, session))
        if len(self._starts) > 2 * len(self._due) + 64:
            # Below one that stays long there may be many that are gone.
            self._starts = [entry for entry in self._starts if entry[2].number]
            heapify(self._starts)
        heappush(self._starts, (session.start, serial, session))

    def _revised(self, key: Hashable, session: Session[Any], closed: float) -> Iterator[Out]:
        """A session has changed: emit it if it is over already, or if each change is emitted."""
        session.is_over = session.last + self.gap < closed
        if self._updates or session.is_over:
            yield key, self._window(session)

    def _window(self, session: Session[Any]) -> Window[Any]:
        revision = session.revision
        session.revision += 1
        return Window(session.start, session.last + self.gap, self.into.result(session.acc), revision)

    # Closing

    def _close(self, scope: Scope, until: float) -> Iterator[Out]:
        """Emit the sessions that end before ``until``, in order, and forget those that nothing can join any more."""
        scope.closing = True
        for _, _, _, key, session in self._closing:
            yield key, self._window(session)
        self._closing = iter(sorted(self._ended(scope, until), key=_ORDER))
        for _, _, _, key, session in self._closing:
            yield key, self._window(session)
        scope.closing = False

    def _ended(self, scope: Scope, until: float) -> list[Due]:
        """Take the sessions that are to be emitted, in any order."""
        gap, due = self.gap, self._due
        space: dict[Any, list[Session[Any]]] = scope.table.space()
        ended: list[Due] = []
        while due and due[0][0] < until:
            _, serial, key, session = due[0]
            if not session.number:
                heappop(due)
                continue
            end = session.last + gap
            if end < until:
                scope.table.touch(key)
                if not session.is_over and not self._updates:
                    ended.append((end, session.start, session.number, key, session))
                session.is_over = True
            change = self._next_change(session)
            if change >= until:
                heapreplace(due, (change, serial, key, session))
                continue
            heappop(due)
            session.number = 0
            sessions = space[key]
            if len(sessions) > 1:
                sessions.remove(session)
            else:
                del space[key]
        return ended

    def _next_change(self, session: Session[Any]) -> float:
        """When the session closes, or is forgotten if it is over."""
        end = session.last + self.gap
        return end + self.lateness if session.is_over else end

    def on_watermark(self, scope: Scope, time: float) -> Iterable[Out]:
        return self._close(scope, _after(time) if self._extract is None else time)

    def on_end(self, scope: Scope) -> Iterable[Out]:
        return self._close(scope, math.inf)

    def next_close(self, scope: Scope) -> float | None:
        return self._due[0][0] if self._due else None

    def on_start(self, scope: Scope) -> None:
        for key, sessions in scope.table.space().items():
            for session in sessions:
                self._watch(key, session)

    def promise(self, scope: Scope, watermark: float) -> float:
        """The earliest start of a session that may still be emitted."""
        starts = self._starts
        while starts and not starts[0][2].number:
            heappop(starts)
        own = watermark - self.gap - self.lateness
        return min(starts[0][0], own) if starts else own


def _after(now: float) -> float:
    """By the clock a session is over at its end, not after it: nothing more can come at that time."""
    return math.nextafter(now, math.inf)
