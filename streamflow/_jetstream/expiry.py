"""When the entries of a key-value bucket are over. The server does not tell when it removes one."""

from __future__ import annotations

import asyncio
import heapq
import re

_GRACE_SECONDS = 0.1
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9.]+)(ms|us|µs|ns|h|m|s)")


class Expiry:
    """The entries that will be over, by the clock of the server."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        self._max_age = 0.0
        self._ahead = 0.0

    def begin(self, server_time: float, max_age: float) -> None:
        """``max_age`` (0: none) is that of the bucket, ``server_time`` what the server's clock shows now."""
        self._ahead = server_time - _now()
        self._max_age = max_age

    def set(self, key: str, stored_at: float, ttl: str | None) -> bool:
        """An entry was stored with this ``Nats-TTL``; returns whether it will ever be over."""
        seconds = _lifetime(ttl, self._max_age)
        if seconds is None:
            self.drop(key)
            return False
        # Not at once: the server may take a moment to remove what it should have removed.
        self._set(key, max(stored_at + seconds - self._ahead, _now() + _GRACE_SECONDS))
        return True

    def again(self, key: str, seconds: float) -> None:
        """An entry that should be over is not yet: it is due again in a while."""
        self._set(key, _now() + seconds)

    def _set(self, key: str, at: float) -> None:
        self._at[key] = at
        heapq.heappush(self._queue, (at, key))
        if len(self._queue) > 2 * len(self._at) + 1000:  # of keys that are written often
            self._queue = [(at, key) for key, at in self._at.items()]
            heapq.heapify(self._queue)

    def drop(self, key: str) -> None:
        self._at.pop(key, None)

    def next(self) -> float | None:
        """Seconds until something may be over."""
        return max(0.0, self._queue[0][0] - _now()) if self._queue else None

    def due(self) -> list[str]:
        """The keys of entries that are over, each told once."""
        over, now = [], _now()
        while self._queue and self._queue[0][0] <= now:
            at, key = heapq.heappop(self._queue)
            if self._at.get(key) == at:
                del self._at[key]
                over.append(key)
        return over


def _now() -> float:
    return asyncio.get_running_loop().time()


def _lifetime(ttl: str | None, max_age: float) -> float | None:
    """Seconds that an entry lives, None for ever. "never" also exempts it from the age limit."""
    if ttl == "never":
        return None
    seconds = _ttl_seconds(ttl) if ttl else 0.0
    limits = [limit for limit in (seconds, max_age) if limit > 0]
    return min(limits, default=None)


def _ttl_seconds(ttl: str) -> float:
    """``"90"`` or ``"1m30s"``."""
    if ttl.isdigit():
        return float(ttl)
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(ttl))
