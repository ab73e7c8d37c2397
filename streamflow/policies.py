"""What the user decides: what happens to an element that fails, what time means, how often state is saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from attrs import field, frozen

from streamflow.errors import ConfigurationError, StepError

if TYPE_CHECKING:
    from nats.aio.client import Client

    from streamflow.engine.checkpoint import CheckpointLog, CheckpointStore
    from streamflow.engine.connector import RunContext
    from streamflow.state.bucket import Bucket

T_contra = TypeVar("T_contra", contravariant=True)

Delivery = Literal["best_effort", "at_least_once", "exactly_once"]
Timestamp = int | float | datetime


@runtime_checkable
class ErrorPolicy(Protocol):
    """Decides about an element on which a step failed: True drops it and goes on, False fails the pipeline."""

    def absorbs(self, error: StepError) -> bool: ...


@frozen
class Fail:
    """The default: the first failing element ends the pipeline with a `StepError`."""

    def absorbs(self, error: StepError) -> bool:
        return False


@frozen
class Skip:
    """Drop the failing element and go on. Each one is counted (``failed`` in ``stats().steps``) and logged."""

    def absorbs(self, error: StepError) -> bool:
        return True


def seconds(value: timedelta | float, what: str, *, zero: bool = False) -> float:
    """Check a duration and turn it into seconds: a `timedelta`, or a number that already is seconds."""
    if isinstance(value, timedelta):
        amount = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{what} must be a timedelta or a number of seconds, not {value!r}")
    else:
        amount = float(value)
    if not (0 <= amount < float("inf")) or (amount == 0 and not zero):
        bound = "zero or more" if zero else "more than zero"
        raise ConfigurationError(f"{what} must be {bound} and finite, not {value!r}")
    return amount


def positive(value: int, what: str, *, least: int = 1) -> int:
    """Check a whole number that counts something."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{what} must be a whole number, not {value!r}")
    if value < least:
        raise ConfigurationError(f"{what} must be {least} or more, not {value}")
    return value


@frozen
class EventTime(Generic[T_contra]):
    """Time as the elements tell it.

    ``extract`` returns the element's instant: epoch seconds (int or float) or an aware `datetime`.
    ``out_of_order`` is how far behind the largest time seen an element may still come; the watermark trails by it.
    ``idle_after``: a source that is caught up and silent for so long no longer holds the watermark back.
    ``max_ahead``: an element whose time is further ahead of the pipeline's clock than this (default 1 hour; None: no
    bound) is put into its window like any other, and stays there until the watermark comes to it, but does not advance
    the watermark, so that one wrong clock does not close every window; a source that sends nothing else counts as
    silent. Such elements are counted (``ahead`` in ``stats().steps``) and logged.
    """

    extract: Callable[[T_contra], Timestamp]
    out_of_order: timedelta | float = field(default=timedelta(0))
    idle_after: timedelta | float = field(default=timedelta(seconds=10))
    max_ahead: timedelta | float | None = field(default=timedelta(hours=1))

    def __attrs_post_init__(self) -> None:
        if not callable(self.extract):
            raise ConfigurationError(f"EventTime's extract must be callable, not {self.extract!r}")
        seconds(self.out_of_order, "out_of_order", zero=True)
        seconds(self.idle_after, "idle_after")
        if self.max_ahead is not None:
            seconds(self.max_ahead, "max_ahead", zero=True)

    @property
    def ahead_seconds(self) -> float:
        """`max_ahead` in seconds, infinity for None."""
        return math.inf if self.max_ahead is None else seconds(self.max_ahead, "max_ahead", zero=True)


@frozen
class ProcessingTime:
    """Time as the pipeline's clock tells it when an element is processed."""


@frozen
class Checkpoint:
    """Save what the pipeline remembers, so that a restart goes on where the last checkpoint was.

    ``every`` is the time between checkpoints (default 1 s). They are kept in the JetStream key-value ``bucket``
    (default: the pipeline's name; a `MemoryBucket` keeps them in memory), which is created if it is not there, with
    ``replicas`` (default 1). ``servers`` and ``connection`` say where, as for connectors.

    One run at a time owns the checkpoints of a pipeline, told by its name: another one that is started waits as a
    standby until the first ends or has been silent for ``lease`` (default 5 s, at least 1). A run that lost its lease
    can save nothing any more and ends with a `FencedError`.

    A pipeline whose steps do not fit to what was saved is refused with the difference. ``allow_dropped_state=True``
    goes on without the state of steps that are no longer there, or that are something else now.

    ``store`` is another place to keep checkpoints, such as `streamflow.testing.MemoryStore`.
    """

    bucket: str | Bucket | None = None
    every: timedelta | float = field(default=timedelta(seconds=1))
    lease: timedelta | float = field(default=timedelta(seconds=5), kw_only=True)
    replicas: int | None = field(default=None, kw_only=True)
    servers: str | Sequence[str] | None = field(default=None, kw_only=True)
    connection: Client | None = field(default=None, kw_only=True)
    allow_dropped_state: bool = field(default=False, kw_only=True)
    store: CheckpointStore | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        seconds(self.every, "Checkpoint's every")
        if seconds(self.lease, "Checkpoint's lease") < 1:
            raise ConfigurationError(f"Checkpoint's lease must be 1 second or more, not {self.lease!r}")

    async def open(self, context: RunContext) -> CheckpointLog:
        """Called when a run starts."""
        if self.store is not None:
            return await self.store.open(context)
        from streamflow.state.checkpoints import open_log

        return await open_log(self, context)


def check_policy(policy: Any, what: str) -> None:
    """Refuse an ``on_error=`` that is not a policy, e.g. the class itself instead of an instance."""
    if policy is not None and (isinstance(policy, type) or not isinstance(policy, ErrorPolicy)):
        raise ConfigurationError(
            f"{what}: on_error must be a policy such as Fail() or Skip(), not {policy!r}"
        )
