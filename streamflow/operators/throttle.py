"""`Throttle`: no more than so many elements in so much time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Literal, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Logic, Scope, Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.operators._fifo import Fifo
from streamflow.policies import ErrorPolicy, positive, seconds

T = TypeVar("T")

_ROUNDING = 1e-9


@frozen
class Throttle(Flow[T, T]):
    """Let at most ``elements`` pass in any ``per``.

    ::

        ──1─2─3─4──────────▶
         Throttle(1, per=1 s)
        ──1───2───3───4────▶

    Elements pass at once while fewer than ``elements`` have passed in the last ``per`` (a sliding log, so the bound
    holds for every interval, not only for aligned ones). With ``burst`` it is a token bucket instead: at most that
    many at once, after that one every ``per / elements``; ``burst=1`` spaces them evenly, and a longer pause saves up
    for ``burst`` elements and no more.

    What is over the bound: ``mode="backpressure"`` (the default) holds what it has in hand and reads no further until
    there is room; ``mode="discard"`` drops. Inside `Keyed` each key has a bound of its own, forgotten when it has not
    been used for so long that nothing depends on it. ``state`` is the type of the elements, for checkpoints.

    Emits as the rate allows. Completes when its input has and what is held has passed. Holds the chunk in hand.

    >>> import asyncio
    >>> from datetime import timedelta
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> first = Source(range(100)).via(Throttle(3, per=timedelta(hours=1), mode="discard"))
    >>> asyncio.run(first.to(Collect()).run())
    [0, 1, 2]

    Raises `ConfigurationError` for a bound, a duration or a burst that is not positive.
    Source of the idea: go-streams' ``Throttler``; Pekko's ``throttle`` for the bucket.
    """

    elements: int
    per: timedelta | float
    mode: Literal["backpressure", "discard"] = "backpressure"
    burst: int | None = None
    state: Any = field(default=Any, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        positive(self.elements, "Throttle's elements")
        seconds(self.per, "Throttle's per")
        if self.mode not in ("backpressure", "discard"):
            raise ConfigurationError(
                f"Throttle's mode must be 'backpressure' or 'discard', not {self.mode!r}"
            )
        if self.burst is not None:
            positive(self.burst, "Throttle's burst")
        _check.policy(self.on_error, "Throttle")

    def transform(self) -> Transform:
        per = seconds(self.per, "Throttle's per")
        pace: _Pace = (
            _Log(self.elements, per) if self.burst is None else _Bucket(per / self.elements, self.burst)
        )
        return _Throttling(pace, self.mode == "discard", self.state)


class _Pace(ABC):
    """When elements may pass. It has a state for each key, which the others take."""

    state_type: Any

    @abstractmethod
    def fresh(self) -> Any:
        """The state when nothing has passed yet."""

    @abstractmethod
    def opens(self, state: Any, now: float) -> float:
        """When the next element may pass."""

    @abstractmethod
    def passes(self, state: Any, now: float) -> None:
        """An element passes."""

    @abstractmethod
    def over(self, state: Any) -> float:
        """From when on the state is as good as a fresh one."""


class _Log(_Pace):
    """At most so many in any interval: the times at which the last elements passed."""

    state_type = Fifo[float]

    def __init__(self, elements: int, per: float) -> None:
        self._elements = elements
        self._per = per

    def fresh(self) -> Fifo[float]:
        return Fifo()

    def opens(self, state: Fifo[float], now: float) -> float:
        while len(state) and state.first + self._per <= now + _ROUNDING:
            state.popleft()
        return -math.inf if len(state) < self._elements else state.first + self._per

    def passes(self, state: Fifo[float], now: float) -> None:
        state.append(now)

    def over(self, state: Fifo[float]) -> float:
        return state.last + self._per if len(state) else -math.inf


class _Bucket(_Pace):
    """A token bucket that holds ``burst``: a list with the one time at which it is full again."""

    state_type = list[float]

    def __init__(self, interval: float, burst: int) -> None:
        self._interval = interval
        self._ahead = (burst - 1) * interval

    def fresh(self) -> list[float]:
        return [0.0]

    def opens(self, state: list[float], now: float) -> float:
        return state[0] - self._ahead

    def passes(self, state: list[float], now: float) -> None:
        state[0] = max(state[0], now) + self._interval

    def over(self, state: list[float]) -> float:
        return state[0]


class _Throttling(Logic[Any, Any]):
    """State of a key: (that of the pace, the elements that wait)."""

    memory = False
    takes = "oldest"

    def __init__(self, pace: _Pace, discard: bool, element_type: Any) -> None:
        self._pace = pace
        self._discard = discard
        self.holds = 0 if discard else 1024
        self.state_type = tuple[pace.state_type, Fifo[element_type]]  # type: ignore[name-defined]

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, T]]:
        states, pace, now, timers = scope.table.space(), self._pace, scope.now, scope.table.timers
        for key, value in rows:
            scope.table.touch(key)
            if key not in states:
                states[key] = (pace.fresh(), Fifo())
            state, waiting = states[key]
            if not waiting and pace.opens(state, now) <= now + _ROUNDING:
                pace.passes(state, now)
                if timers.get(key) is None:
                    timers.set(key, pace.over(state))
                yield key, value
            elif not self._discard:
                if not waiting:
                    timers.set(key, pace.opens(state, now))
                waiting.append(value)
                self._count(scope, 1)

    def on_timer(self, scope: Scope, key: Hashable) -> Iterable[tuple[Any, Any]]:
        states, pace, now = scope.table.space(), self._pace, scope.now
        scope.table.touch(key)
        state, waiting = states[key]
        while waiting and pace.opens(state, now) <= now + _ROUNDING:
            pace.passes(state, now)
            self._count(scope, -1)
            yield key, waiting.popleft()
        if waiting:
            scope.table.timers.set(key, pace.opens(state, now))
        elif pace.over(state) <= now:
            del states[key]
        else:
            scope.table.timers.set(key, pace.over(state))

    def forget(self, scope: Scope, key: Hashable) -> None:
        """Not before its time: the bound must hold."""

    def is_holding(self, scope: Scope) -> bool:
        return self.backlog(scope) > 0

    def backlog(self, scope: Scope) -> int:
        waiting: int = scope.table.meta.get("waiting", 0)
        return waiting

    def _count(self, scope: Scope, change: int) -> None:
        scope.table.meta["waiting"] = self.backlog(scope) + change
