"""`Deduplicate`: each key once."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Sink
from streamflow.operators import _check
from streamflow.operators._grid import finite
from streamflow.operators._time import epoch
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime, seconds

T = TypeVar("T")


@frozen
class Deduplicate(Flow[T, T]):
    """Drop an element whose ``key`` was passed on less than ``within`` ago.

    ::

        ──a1──b1──a2───────a3──▶
         Deduplicate(letter, within=5 s)
        ──a1──b1───────────a3──▶

    ``within`` counts from the element that was passed on; duplicates do not extend it. Without it a key is remembered
    for ever. Time is the pipeline's clock, or with ``time=EventTime(…)`` what the elements tell: then an element is a
    duplicate if one with its key and a time less than ``within`` before or after its own was passed on. An element
    that comes later than the watermark allows cannot be judged any more, as its key may be forgotten: it is not passed
    on, but counted as late, and goes to the sink ``late=`` if there is one. Inside `Keyed` each key of that has its
    own memory. Keys must be hashable; to be saved in checkpoints they are str, bytes, numbers, bool, None or tuples.

    Emits the first of each key at once. Completes with its input. Remembers each key for ``within``: then, or when the
    watermark has passed that time, it is forgotten.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> first = Source(["apple", "ant", "bee"]).via(Deduplicate(lambda word: word[0]))
    >>> asyncio.run(first.to(Collect()).run())
    ['apple', 'bee']

    Raises `ConfigurationError` for a duration that is not positive, and for event time without ``within``.
    Source of the idea: Flink's deduplication with a time to live of its state.
    """

    key: Callable[[T], Hashable]
    within: timedelta | float | None = None
    time: EventTime[T] | ProcessingTime = field(factory=ProcessingTime, kw_only=True)
    late: Sink[T, Any] | None = field(default=None, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.key, "Deduplicate's key")
        if self.within is not None:
            seconds(self.within, "Deduplicate's within")
        if not isinstance(self.time, EventTime | ProcessingTime):
            raise ConfigurationError(
                f"Deduplicate's time must be EventTime(…) or ProcessingTime(), not {self.time!r}"
            )
        by_event_time = isinstance(self.time, EventTime)
        if by_event_time and self.within is None:
            raise ConfigurationError(
                "Deduplicate with event time needs within=: without it a key is remembered for ever, whatever the time"
            )
        _check.late(self.late, by_event_time, "Deduplicate")
        _check.policy(self.on_error, "Deduplicate")

    def sides(self) -> Mapping[str, Sink[Any, Any]]:
        return _check.late_sides(self.late)

    def transform(self) -> Transform:
        if self.within is None:
            return _Memory(self.key, math.inf)
        within = seconds(self.within, "Deduplicate's within")
        if isinstance(self.time, EventTime):
            return _EventMemory(self.key, within, self.time, self.late)
        return _ClockMemory(self.key, within)


class _Memory(Logic[Any, Any]):
    """The times of what was passed on, by its key: in one namespace, or inside `Keyed` in one for each outer key.

    There the namespace None has the outer keys that remember something, so that those that are idle can be forgotten.
    """

    def __init__(self, key: Callable[[Any], Hashable], within: float) -> None:
        self._key = key
        self._within = within
        self._numbers = count()
        self._expiring: list[tuple[float, int, Hashable, Hashable]] = []
        """When what is remembered can be forgotten, next first. Not saved: it follows from the state."""

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        now = scope.now
        for row in rows:
            key = self._key(row[1])
            passed = self._space(scope, row[0]).get(key)
            if passed is None or passed + self._within <= now:
                self._remember(scope, row[0], key, now, now)
                yield row

    def forget(self, scope: Scope, key: Hashable) -> None:
        scope.table.drop(_namespace(scope, key))
        self._forget_outer(scope, key)

    def _space(self, scope: Scope, outer: Hashable) -> Mapping[Hashable, Any]:
        return scope.table.spaces.get(_namespace(scope, outer), {})

    def _remember(self, scope: Scope, outer: Hashable, key: Hashable, state: Any, time: float) -> None:
        table, namespace = scope.table, _namespace(scope, outer)
        table.touch(key, namespace)
        table.space(namespace)[key] = state
        if scope.keyed and outer not in table.space():
            table.touch(outer)
            table.space()[outer] = True
        self._expire_later(time, outer, key)

    def _expire_later(self, time: float, outer: Hashable, key: Hashable) -> None:
        """Without a bound nothing is ever forgotten."""

    def _delete(self, scope: Scope, outer: Hashable, key: Hashable) -> None:
        namespace = _namespace(scope, outer)
        space = scope.table.space(namespace)
        scope.table.touch(key, namespace)
        del space[key]
        if not space:
            scope.table.drop(namespace)
            self._forget_outer(scope, outer)

    def _forget_outer(self, scope: Scope, outer: Hashable) -> None:
        if scope.keyed and outer in scope.table.space():
            scope.table.touch(outer)
            del scope.table.space()[outer]


class _ClockMemory(_Memory):
    """The state of a key is the time at which it was passed on."""

    time = ProcessingTime()

    def on_start(self, scope: Scope) -> None:
        for outer, key, times in _remembered(scope):
            self._expire_later(times, outer, key)

    def next_close(self, scope: Scope) -> float | None:
        return self._expiring[0][0] if self._expiring else None

    def on_watermark(self, scope: Scope, time: float) -> Iterable[tuple[Any, Any]]:
        while self._expiring and self._expiring[0][0] <= time:
            _, _, outer, key = heappop(self._expiring)
            self._expire(scope, outer, key, time)
        return ()

    def _expire_later(self, time: float, outer: Hashable, key: Hashable) -> None:
        heappush(self._expiring, (time + self._within, next(self._numbers), outer, key))

    def _expire(self, scope: Scope, outer: Hashable, key: Hashable, now: float) -> None:
        passed = self._space(scope, outer).get(key)
        # It may have been forgotten with its outer key, or passed on again just as its time was up.
        if passed is not None and passed + self._within <= now:
            self._delete(scope, outer, key)


class _EventMemory(_ClockMemory):
    """The state of a key is a list of the times of the elements that were passed on."""

    def __init__(
        self,
        key: Callable[[Any], Hashable],
        within: float,
        time: EventTime[Any],
        late: Sink[Any, Any] | None,
    ) -> None:
        super().__init__(key, within)
        self.time: EventTime[Any] = time  # type: ignore[assignment]
        self.late = late

    def on_start(self, scope: Scope) -> None:
        for outer, key, times in _remembered(scope):
            for time in times:
                self._expire_later(time, outer, key)

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        within, extract = self._within, self.time.extract
        view = scope.view()
        try:
            for row in rows:
                time = finite(epoch(extract(row[1])))
                key = self._key(row[1])
                known = self._space(scope, row[0]).get(key, ())
                if time < view.closed:
                    scope.late(row[1])
                    continue
                is_new = not any(time < other + within and other < time + within for other in known)
                if is_new:
                    self._remember(scope, row[0], key, [*known, time], time)
                scope.ahead += not view.take(time)
                if is_new:
                    yield row
        finally:
            scope.saw(view.top)

    def _expire(self, scope: Scope, outer: Hashable, key: Hashable, now: float) -> None:
        known = self._space(scope, outer).get(key, ())
        kept = [time for time in known if time + self._within > now]
        if not kept and known:
            self._delete(scope, outer, key)
        elif len(kept) < len(known):
            namespace = _namespace(scope, outer)
            scope.table.touch(key, namespace)
            scope.table.space(namespace)[key] = kept


def _namespace(scope: Scope, outer: Hashable) -> Hashable:
    return ("of", outer) if scope.keyed else None


def _remembered(scope: Scope) -> Iterator[tuple[Hashable, Hashable, Any]]:
    """What was restored: outer key, key and state."""
    for namespace, space in scope.table.spaces.items():
        if isinstance(namespace, tuple) or not scope.keyed:
            outer = namespace[1] if isinstance(namespace, tuple) else None
            for key, state in space.items():
                yield outer, key, state
