"""The watermark of a step: how far event time has come, over all origins that feed it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from attrs import define, field

from streamflow.policies import EventTime, seconds

_NEVER = -math.inf
_ROUNDING = 1e-6


@define
class View:
    """What a loop over elements of one origin has to know: each is judged by the watermark before it, ``closed``, and
    then advances it, so that the cut into chunks makes no difference.

    As the largest time ``top`` grows, the watermark is ``max(closed, min(bound, top − lag))``. An element whose time
    is after ``ahead`` counts, and moves nothing: one clock that is wrong must not close every window. Loops that have
    no time for a call do what `take` does.
    """

    top: float
    bound: float
    closed: float
    lag: float
    ahead: float

    @classmethod
    def by_clock(cls, now: float) -> View:
        """Without event time nothing moves while a loop runs."""
        return cls(math.inf, math.inf, now, 0.0, math.inf)

    def take(self, time: float) -> bool:
        """An element has come: let it advance the watermark. False if its time is too far ahead to be believed."""
        if time > self.ahead:
            return False
        if time > self.top:
            self.top = time
            self.closed = max(self.closed, min(self.bound, time - self.lag))
        return True


class WatermarkTracker:
    """Watermark = min over the active origins of (largest time seen − ``out_of_order``), and never backwards.

    An origin that has ended is left out, and so is one that is caught up and silent for ``idle_after``; when all
    are silent, the watermark goes on from the largest time seen with the clock. An origin that has sent nothing yet
    and is not known to be caught up holds the watermark back: nobody knows how early its elements are.

    ``times`` has the event time of each origin's elements. ``ways`` are the branches by which one origin comes,
    by that origin: each counts by itself, and one that carries little gets on as its siblings do.
    """

    def __init__(
        self,
        times: Mapping[str, EventTime[Any]],
        meta: dict[str, Any],
        ways: Mapping[str, str] | None = None,
    ) -> None:
        self._lags = {
            origin: seconds(time.out_of_order, "out_of_order", zero=True) for origin, time in times.items()
        }
        self._idle_after = {origin: seconds(time.idle_after, "idle_after") for origin, time in times.items()}
        self._ahead = {origin: time.ahead_seconds for origin, time in times.items()}
        # Both live in the table's meta, so that a checkpoint has them.
        self._meta = meta
        saved = meta.get("tops", {})
        self._tops: dict[str, float] = {origin: saved.get(origin, _NEVER) for origin in times}
        meta["tops"] = self._tops
        self._promised: dict[str, float] = {}
        self._quiet: dict[str, float] = {}
        self._diamonds = _diamonds(times, ways or {})

    @property
    def current(self) -> float:
        """The watermark, −infinity at first."""
        time: float = self._meta.get("watermark", _NEVER)
        return time

    def view(self, origin: str, now: float) -> View:
        """For a loop over elements of one origin."""
        others = [o for o in self._active() if o != origin and not self._idle(o, now)]
        bound = min(map(self._own, others), default=math.inf)
        closed = max(self.current, min(bound, self._own(origin)))
        return View(self._tops[origin], bound, closed, self._lags[origin], now + self._ahead[origin])

    def saw(self, origin: str, top: float) -> None:
        """Report the largest time that a loop has seen."""
        self._tops[origin] = top

    def promise(self, origin: str, time: float) -> None:
        """A watermark of an earlier step arrived, or (infinity) the end of the origin."""
        self._promised[origin] = max(time, self._promised.get(origin, _NEVER))
        if time == math.inf:
            self.progress(origin, math.inf)

    def progress(self, origin: str, number: float) -> None:
        """A branch has passed this chunk of its origin."""
        diamond = self._diamonds.get(origin)
        if diamond is None:
            return
        top = diamond.passed(origin, number, self._tops[origin])
        if top is not None:
            # What any branch still brings was made after that chunk.
            for way in diamond.ways:
                time = top - self._lags[way]
                self._promised[way] = max(time, self._promised.get(way, _NEVER))

    def quiet(self, origin: str, now: float) -> None:
        """The origin is caught up."""
        self._quiet.setdefault(origin, now)

    def active(self, origin: str) -> None:
        """Elements of the origin are on their way."""
        self._quiet.pop(origin, None)

    def advance(self, now: float) -> float | None:
        """Compute the watermark anew; its value if it has advanced."""
        active = [origin for origin in self._active() if not self._idle(origin, now)]
        if active:
            time = min(self._own(origin) for origin in active)
        else:
            # A little more, so that rounding does not leave it just short of what `due` was asked for.
            time = self._largest() + (now - self._idle_since() + _ROUNDING if self._quiet else 0.0)
        if time <= self.current or math.isinf(time):
            return None
        self._meta["watermark"] = time
        return time

    def due(self, time: float) -> float | None:
        """The clock time at which the watermark will have come to ``time`` if nothing more arrives."""
        waiting = [origin for origin in self._active() if origin not in self._quiet]
        if waiting or not self._quiet or self._largest() == _NEVER:
            return None
        return self._idle_since() + max(0.0, time - self._largest())

    def next_idle(self, now: float) -> float | None:
        """When the next quiet origin will be left out."""
        times = [since + self._idle_after[origin] for origin, since in self._quiet.items()]
        return min((time for time in times if time > now), default=None)

    def _active(self) -> list[str]:
        return [origin for origin in self._tops if self._promised.get(origin) != math.inf]

    def _own(self, origin: str) -> float:
        return max(self._tops[origin] - self._lags[origin], self._promised.get(origin, _NEVER))

    def _idle(self, origin: str, now: float) -> bool:
        since = self._quiet.get(origin)
        return since is not None and now >= since + self._idle_after[origin]

    def _idle_since(self) -> float:
        return max(since + self._idle_after[origin] for origin, since in self._quiet.items())

    def _largest(self) -> float:
        return max(self._tops.values(), default=_NEVER)


@define
class _Diamond:
    """Branches of one origin: how far each is in what the origin made, and the largest time it had seen there."""

    ways: tuple[str, ...]
    meeting: Meeting
    log: dict[str, deque[tuple[float, float]]]
    tops: dict[str, float] = field(factory=dict)

    def passed(self, way: str, number: float, top: float) -> float | None:
        """Note where a branch is; if the last of them has got further, the largest time that any had seen by there."""
        self.log[way].append((number, top))
        least = self.meeting.promise(way, number)
        if least is None or math.isinf(least):
            return None
        for each, entries in self.log.items():
            while entries and entries[0][0] <= least:
                self.tops[each] = entries.popleft()[1]
        return max(self.tops.values(), default=_NEVER)


def _diamonds(origins: Iterable[str], ways: Mapping[str, str]) -> dict[str, _Diamond]:
    """By way: the diamond that it is part of."""
    groups: dict[str, list[str]] = {}
    for origin in origins:
        groups.setdefault(ways.get(origin, origin), []).append(origin)
    diamonds = [
        _Diamond(tuple(group), Meeting(group), {way: deque() for way in group})
        for group in groups.values()
        if len(group) > 1
    ]
    return {way: diamond for diamond in diamonds for way in diamond.ways}


class Meeting:
    """Where several ways meet: what was promised on all of them holds behind, and no more.

    The ways are the branches of one origin that come together, or the origins that a holding step mixes.
    """

    def __init__(self, ways: Iterable[Hashable]) -> None:
        self._promised = dict.fromkeys(ways, _NEVER)
        self._quiet: set[Hashable] = set()
        self._told = _NEVER

    def promise(self, way: Hashable, time: float) -> float | None:
        """A watermark came (infinity: the end); the watermark of all ways if it has advanced."""
        self._promised[way] = max(time, self._promised[way])
        least = min(self._promised.values())
        if least <= self._told:
            return None
        self._told = least
        return least

    def quiet(self, way: Hashable) -> None:
        """A way is caught up."""
        self._quiet.add(way)

    def is_quiet(self, awaited: Callable[[Hashable], bool]) -> bool:
        """Whether all the ways are caught up, of those that something is awaited of."""
        return all(
            way in self._quiet or time == math.inf for way, time in self._promised.items() if awaited(way)
        )

    def active(self, way: Hashable) -> None:
        """Elements came."""
        self._quiet.discard(way)
