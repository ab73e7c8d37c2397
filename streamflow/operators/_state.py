"""Initial values that operators and aggregators share: a value, or a callable that makes a mutable one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_SCALARS = (int, float, str, bytes, bool, type(None), list, dict)


def maker(initial: Any) -> Callable[[], Any]:
    """A function of no arguments that gives the initial value: ``initial`` itself if it is one."""
    if callable(initial):
        make: Callable[[], Any] = initial
        return make
    return lambda: initial


def type_of(initial: Any) -> Any:
    """The type that an initial value suggests: that of a structure, and anything for plain data, which may widen."""
    value = maker(initial)()
    return Any if isinstance(value, _SCALARS) else type(value)
