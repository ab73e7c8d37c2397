"""Reading the event time that a user's extractor returns."""

from __future__ import annotations

from datetime import datetime


def epoch(time: object) -> float:
    """Epoch seconds of an int, a float or an aware datetime; anything else is an error that says what to return."""
    if isinstance(time, int | float) and not isinstance(time, bool):
        return float(time)
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(
                f"the event time {time!r} has no time zone: return an aware datetime or epoch seconds"
            )
        return time.timestamp()
    raise TypeError(f"the event time must be epoch seconds or an aware datetime, not {time!r}")
