"""`Buffer`: room between a fast producer and a slow consumer, and what happens when it is full."""

from __future__ import annotations

from typing import Literal, TypeVar

from attrs import field, frozen

from streamflow.engine.transform import Queue, Transform
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy, positive

T = TypeVar("T")

_OVERFLOWS = ("backpressure", "drop_oldest", "drop_newest", "fail")


@frozen
class Buffer(Flow[T, T]):
    """Hold up to ``size`` elements that what is behind is not ready for.

    ::

        ──1─2─3─4──────────────▶
         Buffer(1, "drop_oldest")  behind it one element takes a while
        ──1───────4────────────▶

    What is before it and what is behind it run concurrently. An element that comes while the consumer waits is the
    consumer's, at most a chunk at once, and fills nothing. A `MapAsync` right behind it takes no more than it works on,
    a `Throttle` no more than one element that has to wait.
    When the buffer is full: ``"backpressure"`` (the default) makes the producer wait; ``"drop_oldest"`` and
    ``"drop_newest"`` drop what has waited longest or what comes; ``"fail"`` gives each element that finds no room to
    the error policy, with a `BufferError`. What is dropped is counted (``dropped`` in ``stats().steps``), logged, and
    acknowledged. Not inside `Keyed`.

    Emits whatever it holds as soon as the consumer wants it. Completes when its input has and it is empty.
    Holds ``size`` elements. A checkpoint waits until those that came before it have left.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source(range(5)).via(Buffer(2)).to(Collect()).run())
    [0, 1, 2, 3, 4]

    Raises `ConfigurationError` for a size that is not positive and an overflow that does not exist.
    Source of the idea: Pekko's ``buffer``.
    """

    size: int
    overflow: Literal["backpressure", "drop_oldest", "drop_newest", "fail"] = "backpressure"
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        positive(self.size, "Buffer's size")
        if self.overflow not in _OVERFLOWS:
            names = ", ".join(map(repr, _OVERFLOWS))
            raise ConfigurationError(f"Buffer's overflow must be one of {names}, not {self.overflow!r}")
        _check.policy(self.on_error, "Buffer")

    def transform(self) -> Transform:
        return Queue(self.size, self.overflow)
