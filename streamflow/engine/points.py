"""Named places that a run comes by, where tests let it crash: see `streamflow.testing.crash`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

Point = Literal[
    "chunk read",
    "before write",
    "after write",
    "before acknowledging",
    "after acknowledging",
    "barrier sent",
    "before snapshot",
    "after snapshot",
    "before commit",
    "outputs moved",
    "after commit",
]

POINTS: tuple[Point, ...] = get_args(Point)

hook: Callable[[Point], None] | None = None
"""Called at each point, if a test has set it."""


def reached(point: Point) -> None:
    """Say that the run has come to a point."""
    if hook is not None:
        hook(point)
