"""The logic of sessions: per key a list of them, joined by elements, closed as the watermark passes their ends."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Hashable, Iterable, Iterator
from operator import attrgetter, itemgetter
from typing import Any, Generic, TypeVar

from attrs import define

from streamflow.engine.table import Timers
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
    """In the order of creation, over all keys."""
    revision: int = 0
    """How often it has been emitted."""
    is_over: bool = False
    """Whether it has been closed and is kept because late elements may still join it."""


Due = tuple[float, float, int, Hashable, Session[Any]]
"""The end, start and number of a session, by which closed ones are ordered; its key; the session."""


class SessionWindows(Logic[Any, Any]):
    """The table has for each key its sessions by start, usually one; ``meta["created"]`` counts them.

    A key's timer is never later than what has to happen next to one of its sessions: it is not moved with every
    element, but set again when it is due.
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
        self._due = math.inf
        """Nothing has to be closed before the watermark is past this."""
        self._closing: Iterator[Due] = iter(())
        """Closed and to be emitted; where a result failed, it goes on behind it."""
        self._starts = Timers()
        """Number of each session in the table → its start, for the earliest of them."""

    # Elements

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[Out]:
        table, gap, add, revises = scope.table, self.gap, self.into.add, self._revises
        space: dict[Any, list[Session[Any]]] = table.space()
        touch = table.touch if table.tracked else None
        now = scope.now
        extract = self._extract or (lambda _: now)
        # Each element is judged by the watermark before it and then advances it, so that the cut into chunks makes no
        # difference: what the watermark has passed is closed before the next element could join it.
        if self._extract is None:
            top, bound, closed, lag, ahead = math.inf, 0.0, _after(now), 0.0, 0.0
        else:
            view = scope.watermark.view(scope.origin, now)
            top, bound, closed, lag, ahead = view.top, view.bound, view.closed, view.lag, view.ahead
        try:
            if closed > self._due:
                yield from self._close(scope, closed)
            for key, value in rows:
                time: Any = extract(value)
                if time.__class__ is not float:
                    time = epoch(time)
                sessions = space.get(key)
                session = sessions[-1] if sessions else None
                if session is not None and session.start <= time <= session.last + gap:
                    # No earlier session is within the gap.
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
                    yield from self._revised(scope, key, session, closed)
                if time > top:
                    if time > ahead:
                        scope.ahead += 1
                        continue
                    top = time
                    if top - lag > closed and bound > closed:
                        closed = min(bound, top - lag)
                        if closed > self._due:
                            yield from self._close(scope, closed)
        finally:
            if self._extract is not None:
                scope.watermark.saw(scope.origin, top)

    def _joined(
        self, scope: Scope, key: Hashable, time: float, value: Any, closed: float
    ) -> Session[Any] | None:
        """The session that an element is in now: of those that it is near to it makes one. None: it is late."""
        sessions: list[Session[Any]] = scope.table.space().get(key, [])
        gap = self.gap
        near = [session for session in sessions if session.start <= time + gap and time <= session.last + gap]
        if not near:
            if time + gap + self.lateness < closed:
                return None
            return self._created(scope, key, time, value)
        scope.table.touch(key)
        first = near[0]
        acc = self.into.add(first.acc, value)
        for other in near[1:]:
            acc = self.into.merge(acc, other.acc)
        for session in near:
            self._gone(session)
        first.start, first.last, first.acc = min(time, first.start), max(time, near[-1].last), acc
        first.number = min(session.number for session in near)
        first.revision = max(session.revision for session in near)
        first.is_over = any(session.is_over for session in near)
        for other in near[1:]:
            sessions.remove(other)
        self._starts.set(first.number, first.start)
        return first

    def _created(self, scope: Scope, key: Hashable, time: float, value: Any) -> Session[Any]:
        acc = self.into.add(self.into.initial(), value)
        table = scope.table
        table.touch(key)
        number = table.meta["created"] = table.meta.get("created", 0) + 1
        session = Session(time, time, acc, number)
        insort(table.space().setdefault(key, []), session, key=attrgetter("start"))
        self._starts.set(number, time)
        self._wake(scope, key, time + self.gap)
        return session

    def _gone(self, session: Session[Any]) -> None:
        self._starts.clear(session.number)

    def _revised(self, scope: Scope, key: Hashable, session: Session[Any], closed: float) -> Iterator[Out]:
        """A session has changed: emit it if it is over already, or if each change is emitted."""
        was_over = session.is_over
        session.is_over = session.last + self.gap < closed
        if was_over and not session.is_over:
            self._wake(scope, key, session.last + self.gap)
        if self._updates or session.is_over:
            yield key, self._window(session)

    def _window(self, session: Session[Any]) -> Window[Any]:
        revision = session.revision
        session.revision += 1
        return Window(session.start, session.last + self.gap, self.into.result(session.acc), revision)

    def _wake(self, scope: Scope, key: Hashable, time: float) -> None:
        """See that the key is looked at when the watermark has passed ``time``."""
        timer = scope.table.timers.get(key)
        if timer is None or time < timer:
            scope.table.timers.set(key, time)
            self._due = min(self._due, time)

    # Closing

    def _close(self, scope: Scope, until: float) -> Iterator[Out]:
        """Emit the sessions that end before ``until``, in order, and forget those that nothing can join any more."""
        # Should a result fail, what is left of this is to be done before the next element.
        self._due = -math.inf
        for _, _, _, key, session in self._closing:
            yield key, self._window(session)
        self._closing = iter(sorted(self._ended(scope, until), key=itemgetter(0, 1, 2)))
        for _, _, _, key, session in self._closing:
            yield key, self._window(session)
        self._due = _or_never(scope.table.timers.next())

    def _ended(self, scope: Scope, until: float) -> Iterator[Due]:
        """Take the sessions that are to be emitted, in any order."""
        table, timers = scope.table, scope.table.timers
        space: dict[Any, list[Session[Any]]] = table.space()
        while _or_never(timers.next()) < until:
            key = timers.first()
            table.touch(key)
            timers.pop()
            kept: list[Session[Any]] = []
            for session in space.pop(key):
                end = session.last + self.gap
                if end < until and not session.is_over:
                    session.is_over = True
                    if not self._updates:
                        yield end, session.start, session.number, key, session
                if end + self.lateness < until:
                    self._gone(session)
                else:
                    kept.append(session)
            if kept:
                space[key] = kept
                timers.set(key, min(map(self._next_change, kept)))

    def _next_change(self, session: Session[Any]) -> float:
        return session.last + self.gap + (self.lateness if session.is_over else 0.0)

    def on_watermark(self, scope: Scope, time: float) -> Iterable[Out]:
        return self._close(scope, _after(time) if self._extract is None else time)

    def on_end(self, scope: Scope) -> Iterable[Out]:
        return self._close(scope, math.inf)

    def on_start(self, scope: Scope) -> None:
        for sessions in scope.table.space().values():
            for session in sessions:
                self._starts.set(session.number, session.start)
        self._due = _or_never(scope.table.timers.next())

    def promise(self, scope: Scope, watermark: float) -> float:
        """The earliest start of a session that may still be emitted."""
        return min(_or_never(self._starts.next()), watermark - self.gap - self.lateness)


def _after(now: float) -> float:
    """By the clock a session is over at its end, not after it: nothing more can come at that time."""
    return math.nextafter(now, math.inf)


def _or_never(time: float | None) -> float:
    return math.inf if time is None else time
