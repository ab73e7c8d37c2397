"""The watermark of a step: how far event time has come, over all origins that feed it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

from streamflow.policies import EventTime, seconds

_NEVER = -math.inf
_ROUNDING = 1e-6


class WatermarkTracker:
    """Watermark = min over the active origins of (largest time seen − ``out_of_order``), and never backwards.

    An origin that has ended is left out, and so is one that is caught up and silent for ``idle_after``; when all
    are silent, the watermark goes on from the largest time seen with the clock. An origin that has sent nothing yet
    and is not known to be caught up holds the watermark back: nobody knows how early its elements are.
    """

    def __init__(self, time: EventTime[Any], origins: Iterable[str], meta: dict[str, Any]) -> None:
        self.lag = seconds(time.out_of_order, "out_of_order", zero=True)
        self.idle_after = seconds(time.idle_after, "idle_after")
        # Both live in the table's meta, so that a checkpoint has them.
        self._meta = meta
        saved = meta.get("tops", {})
        self._tops: dict[str, float] = {origin: saved.get(origin, _NEVER) for origin in origins}
        meta["tops"] = self._tops
        self._promised: dict[str, float] = {}
        self._quiet: dict[str, float] = {}

    @property
    def current(self) -> float:
        """The watermark, −infinity at first."""
        time: float = self._meta.get("watermark", _NEVER)
        return time

    def view(self, origin: str, now: float) -> tuple[float, float, float]:
        """For a loop over elements of one origin: the largest time seen, the bound by the other origins, the watermark.

        As the largest time ``top`` grows, the watermark is ``max(watermark, min(bound, top − lag))``.
        """
        others = [o for o in self._active() if o != origin and not self._idle(o, now)]
        bound = min(map(self._own, others), default=math.inf)
        return self._tops[origin], bound, max(self.current, min(bound, self._own(origin)))

    def saw(self, origin: str, top: float) -> None:
        """Report the largest time that a loop has seen."""
        self._tops[origin] = top
        self._quiet.pop(origin, None)

    def promise(self, origin: str, time: float) -> None:
        """A watermark of an earlier step arrived, or (infinity) the end of the origin."""
        self._promised[origin] = max(time, self._promised.get(origin, _NEVER))

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
        times = [since + self.idle_after for since in self._quiet.values()]
        return min((time for time in times if time > now), default=None)

    def _active(self) -> list[str]:
        return [origin for origin in self._tops if self._promised.get(origin) != math.inf]

    def _own(self, origin: str) -> float:
        return max(self._tops[origin] - self.lag, self._promised.get(origin, _NEVER))

    def _idle(self, origin: str, now: float) -> bool:
        since = self._quiet.get(origin)
        return since is not None and now >= since + self.idle_after

    def _idle_since(self) -> float:
        return max(self._quiet.values()) + self.idle_after

    def _largest(self) -> float:
        return max(self._tops.values(), default=_NEVER)


class Meeting:
    """Where several ways meet: what was promised on all of them holds behind, and no more.

    The ways are the ports on which one origin comes to a merge, or the origins that a holding step mixes.
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

    def quiet(self, way: Hashable) -> bool:
        """A way is caught up; True if all are."""
        self._quiet.add(way)
        return all(way in self._quiet or time == math.inf for way, time in self._promised.items())

    def active(self, way: Hashable) -> None:
        """Elements came."""
        self._quiet.discard(way)
