"""`route`: a stream for each of several names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from streamflow.engine.transform import Distribute
from streamflow.errors import ConfigurationError
from streamflow.graph import Step, Stream
from streamflow.operators import _check
from streamflow.operators._streams import end
from streamflow.policies import ErrorPolicy

T = TypeVar("T")


def route(
    stream: Stream[T],
    key: Callable[[T], str],
    names: Iterable[str],
    default: str | None = None,
    *,
    on_error: ErrorPolicy | None = None,
) -> dict[str, Stream[T]]:
    """A stream for each of ``names``, with the elements for which ``key(x)`` is that name.

    ::

        ──a1──b2──c3──a4──▶
          route(letter, ["a", "b"], default="rest")
        ──a1──────────a4──▶
        ──────b2──────────▶
        ──────────c3──────▶

    What matches none of them goes to the branch ``default``, which may be one of the names or one more; without a
    default such an element is an error, left to the error policy. All branches must lead to a sink.

    Emits each element to one branch, at once. Completes with its input. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Pipeline, Source
    >>> from streamflow.connectors import Collect
    >>> by = route(Source(["a1", "b2", "c3"]), lambda x: x[0], ["a", "b"], default="rest")
    >>> asyncio.run(Pipeline(*(branch.to(Collect()) for branch in by.values())).run())
    (['a1'], ['b2'], ['c3'])

    Raises `ConfigurationError` for no names, or one that comes twice.
    """
    _check.function(key, "route's key")
    _check.policy(on_error, "route")
    listed = _checked(names, default)
    numbers = {name: number for number, name in enumerate(listed)}
    otherwise = None if default is None else numbers[default]

    def choose(value: Any) -> int:
        name = key(value)
        number = numbers.get(name, otherwise)
        if number is None:
            raise LookupError(
                f"{name!r} is none of the branches {', '.join(map(repr, listed))}; default= would take it"
            )
        return number

    branches = tuple(f"elements for {name!r}" for name in listed)
    step = Step(Distribute(len(listed), lambda: choose, "route", branches, on_error), (end(stream, "route"),))
    return {name: Stream(step, number) for name, number in numbers.items()}


def _checked(names: Any, default: Any) -> list[str]:
    """The names of all branches."""
    listed = [] if isinstance(names, str | bytes) or not isinstance(names, Iterable) else list(names)
    if not listed:
        raise ConfigurationError(
            f"route's names must be one or more names, such as ['a', 'b'], not {names!r}"
        )
    for name in listed if default is None else [*listed, default]:
        if not isinstance(name, str):
            raise ConfigurationError(f"route's branches have names that are texts, not {name!r}")
    twice = [name for name in listed if listed.count(name) > 1]
    if twice:
        raise ConfigurationError(f"route's names must differ: {twice[0]!r} comes twice")
    return listed if default is None or default in listed else [*listed, default]
