"""Where windows begin: time cut into equal panes, or into days as a time zone's calendar has them."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from streamflow.errors import ConfigurationError

_EPOCH = date(1970, 1, 1).toordinal()
_DAY = timedelta(days=1)


class Grid(Protocol):
    """Time cut into panes, numbered from the epoch on."""

    def locate(self, instant: float) -> int:
        """The number of the pane that an instant is in; raises ValueError for what is no instant."""
        ...

    def start(self, pane: int) -> float:
        """When a pane begins, epoch seconds: exactly where the one before it ends."""
        ...


class FixedGrid:
    """Panes of equal length from the epoch on, moved by ``offset``."""

    def __init__(self, size: timedelta, offset: timedelta) -> None:
        # Whole microseconds: a multiple of 0.1 s is then as exact as a float can be.
        self._size = size // timedelta(microseconds=1)
        self._offset = offset // timedelta(microseconds=1)

    def __str__(self) -> str:
        return f"{self._size} µs from {self._offset} µs on"

    def locate(self, instant: float) -> int:
        size, offset = self._size, self._offset
        pane = math.floor((finite(instant) * 1e6 - offset) / size)
        # Rounding may have led to a neighbour.
        if instant < (pane * size + offset) / 1e6:
            return pane - 1
        return pane + 1 if instant >= ((pane + 1) * size + offset) / 1e6 else pane

    def start(self, pane: int) -> float:
        return (pane * self._size + self._offset) / 1e6


class CalendarGrid:
    """Panes of so many calendar days of a zone; they begin at midnight there, or ``offset`` after it by the wall clock.

    A day on which clocks are put back has 25 hours. Days are counted from 1970-01-01, a Thursday.
    """

    def __init__(self, days: int, zone: ZoneInfo, offset: timedelta) -> None:
        self._days = days
        self._zone = zone
        self._offset = offset

    def __str__(self) -> str:
        return f"{self._days} days in {self._zone} from {self._offset} on"

    def locate(self, instant: float) -> int:
        local = datetime.fromtimestamp(finite(instant), UTC).astimezone(self._zone).replace(tzinfo=None)
        pane = ((local - self._offset).toordinal() - _EPOCH) // self._days
        while instant < self.start(pane):
            pane -= 1
        while instant >= self.start(pane + 1):
            pane += 1
        return pane

    def start(self, pane: int) -> float:
        midnight = datetime.combine(date.fromordinal(pane * self._days + _EPOCH), time())
        return (midnight + self._offset).replace(tzinfo=self._zone).timestamp()


def make_grid(size: timedelta, align: str | None, offset: timedelta, what: str) -> Grid:
    """The grid with panes of ``size``; ``what`` is named in errors."""
    if not isinstance(offset, timedelta):
        raise ConfigurationError(f"{what}'s offset must be a timedelta, not {offset!r}")
    if align is None:
        return FixedGrid(size, offset)
    if not isinstance(align, str):
        raise ConfigurationError(f"{what}'s align must be the name of a time zone, not {align!r}")
    days, rest = divmod(size, _DAY)
    if rest or not days:
        raise ConfigurationError(f"{what} with align= is cut into calendar days: {size} is no number of days")
    try:
        zone = ZoneInfo(align)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(f"{what}'s align: there is no time zone {align!r} here") from error
    return CalendarGrid(days, zone, offset)


def finite(instant: float) -> float:
    if not math.isfinite(instant):
        raise ValueError("the event time is not finite")
    return instant
