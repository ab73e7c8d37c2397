"""Elements that come at given times, and the times at which they leave, for tests of steps that go by the clock."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from streamflow.connectors import Collect
from tests.support import Chunked, run, stamped

gaps = st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 3.0]), max_size=30)
"""Times between elements."""


def times_of(gaps: list[float]) -> list[float]:
    return [sum(gaps[: number + 1]) for number in range(len(gaps))]


def arriving(times: list[float], cuts: list[int] | None = None, values: list[Any] | None = None) -> Chunked:
    """Element i at times[i]. Those of one time come in one chunk, or in several of the sizes ``cuts``."""
    values = list(range(len(times))) if values is None else values
    chunks: list[list[Any]] = []
    at: list[float] = []
    sizes = iter(cuts or [])
    room = 0
    for time, value in zip(times, values, strict=True):
        if not at or at[-1] != time or room == 0:
            chunks.append([])
            at.append(time)
            room = next(sizes, len(times))
        chunks[-1].append(value)
        room -= 1
    return Chunked(chunks, times=at)


def timed(source: Chunked, flow: Any, **options: Any) -> list[tuple[float, Any]]:
    """What comes out, with the times at which it does."""
    seen: list[tuple[float, Any]] = []
    run(source.via(flow).via(stamped(seen)).to(Collect()), **options)
    return rounded(seen)


def rounded(seen: list[tuple[float, Any]]) -> list[tuple[float, Any]]:
    return [(round(time, 3), value) for time, value in seen]
