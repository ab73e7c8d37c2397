"""Checks that operators share: a wrong argument is refused where it is written."""

from __future__ import annotations

import inspect
from typing import Any

from streamflow.errors import ConfigurationError
from streamflow.graph import Sink
from streamflow.policies import ErrorPolicy, check_policy


def function(value: Any, what: str, *, instead: str = "MapAsync") -> None:
    """A synchronous callable."""
    if not callable(value):
        raise ConfigurationError(f"{what} takes a function, not {value!r}")
    if is_coroutine_function(value):
        raise ConfigurationError(f"{what} takes a plain function; for a coroutine function use {instead}")


def is_coroutine_function(value: Any) -> bool:
    """Also for an object whose class makes it callable."""
    call = getattr(type(value), "__call__", None)  # noqa: B004 - it is asked what it is, not whether it is there
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call)


def late(value: Any, by_event_time: bool, what: str) -> None:
    """A sink for elements that come too late."""
    if value is not None and not isinstance(value, Sink):
        raise ConfigurationError(f"{what}'s late must be a sink such as Collect(), not {value!r}")
    if value is not None and not by_event_time:
        raise ConfigurationError(f"{what}: by processing time nothing is late; late= needs EventTime")


def late_sides(late: Sink[Any, Any] | None) -> dict[str, Sink[Any, Any]]:
    """`Flow.sides` of an operator with such a sink."""
    return {} if late is None else {"late": late}


def policy(value: ErrorPolicy | None, what: str) -> None:
    check_policy(value, what)
