"""`Keyed`: a flow for each key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Fragment, KeyedRun, Logic, Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Sink, inner_names, parts
from streamflow.message import KeyedValue
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy, seconds

T = TypeVar("T")
U = TypeVar("U")
K = TypeVar("K", bound=Hashable)


@frozen
class Keyed(Flow[T, KeyedValue[K, U]]):
    """Run ``flow`` separately for each value of ``key(x)``, and emit what comes out as ``KeyedValue(key, value)``.

    ::

        ──a1─────b5─────a2─────▶
         Keyed(letter, Fold(0, add number))
        ──(a,1)──(b,5)──(a,3)──▶

    ``flow`` is one synchronous operator or several (``Filter(…).via(Fold(…))``): `Map` without an executor, `Filter`,
    `Fold`, `Batch`, windows and the like. One object of each serves all keys, so a million keys cost their state and
    nothing else. Keys must be hashable; to be saved in checkpoints they are str, bytes, numbers, bool, None or tuples.
    All keys share one watermark.

    With ``ttl`` a key that no element came for in so long, by the pipeline's clock, is forgotten, and begins anew with
    its next element: `Fold` with the initial state, `Take` with a count of 0, `Deduplicate` with no memory. Each step
    of ``flow`` goes by the elements that come to it. What holds elements or times (windows, `Throttle`, `Delay`,
    `Batch` with ``within`` and the like) lets go of them by itself and is not affected; nor are `Batch` without
    ``within`` and `CountWindow`, which keep what they hold until it is complete. Without ``ttl`` keys are kept for
    ever.

    Emits, completes and holds as ``flow`` does.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> from streamflow.operators import Fold
    >>> words = Source(["apple", "bee", "ant"])
    >>> counted = words.via(Keyed(lambda word: word[0], Fold(0, lambda n, word: n + 1)))
    >>> asyncio.run(counted.to(Collect()).run())
    [KeyedValue(key='a', value=1), KeyedValue(key='b', value=1), KeyedValue(key='a', value=2)]

    Raises `ConfigurationError` for a flow that is not synchronous, and for a ttl that is not positive.
    Source of the idea: go-streams' ``Keyed``.
    """

    key: Callable[[T], K]
    flow: Flow[T, U]
    ttl: timedelta | float | None = None
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check.function(self.key, "Keyed's key")
        if self.ttl is not None:
            seconds(self.ttl, "Keyed's ttl")
        _check.policy(self.on_error, "Keyed")
        for part in parts(self.flow):
            if not isinstance(part.transform(), Fragment | Logic):
                raise ConfigurationError(
                    f"{type(part).__name__} cannot run inside Keyed: only synchronous steps can. "
                    "Put it before or after"
                )

    def sides(self) -> Mapping[str, Sink[Any, Any]]:
        inner = inner_names(parts(self.flow)).items()
        return {f"{name}/{side}": sink for name, flow in inner for side, sink in flow.sides().items()}

    def transform(self) -> Transform:
        ttl = None if self.ttl is None else seconds(self.ttl, "Keyed's ttl")
        return KeyedRun(self.key, parts(self.flow), ttl)
