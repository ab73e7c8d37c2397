"""What an operator tells the engine about how it runs. `Flow.transform` returns one of the four kinds.

===============  ======================================================================================
`Fragment`       a stateless synchronous step: becomes a line of a fused function
`Logic`          a synchronous step that remembers: the engine owns its state, timers and watermark
`Work`           a step that waits or computes elsewhere: a stage of its own with work in flight
`KeyedRun`       a run of the first two, separately for each key
===============  ======================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from attrs import define, frozen

from streamflow.policies import EventTime, ProcessingTime

if TYPE_CHECKING:
    from streamflow.engine.connector import WorkContext
    from streamflow.engine.table import StateTable
    from streamflow.engine.watermark import WatermarkTracker
    from streamflow.engine.work import WorkStage
    from streamflow.graph import Flow

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")

UNBOUNDED = math.inf


@frozen
class Fragment:
    """A stateless synchronous operation: what to do with the function for each element."""

    kind: Literal["map", "filter", "flat_map", "inspect", "pass"]
    function: Callable[[Any], Any]


@define(eq=False)
class Scope:
    """What a `Logic` may use while it runs: its table, the time, and where the elements come from."""

    table: StateTable
    keyed: bool = False
    """Whether it runs inside `Keyed`; otherwise every key is None."""
    now: float = 0.0
    """The clock's time, epoch seconds."""
    origin: str = ""
    """The source partition, or earlier event-time step, that the elements come from."""
    tracker: WatermarkTracker | None = None
    late: int = 0
    """Count elements here that came too late and were dropped."""

    @property
    def watermark(self) -> WatermarkTracker:
        """The watermark of a logic whose `Logic.time` is an `EventTime`."""
        assert self.tracker is not None, "a logic without event time has no watermark"
        return self.tracker


class Logic(Generic[T, U]):
    """A synchronous step that remembers. One object serves all keys; what it remembers is in ``scope.table``.

    Each method is a generator of ``(key, output)`` pairs; without `Keyed` the key is None. The engine resumes
    `process` on the same iterator behind an element that failed, so keep nothing in local variables across elements
    that is not written back in a ``finally``.

    The other methods are called again after a failure that the policy absorbs: take an entry out of the table before
    you compute what it becomes, so that the second call goes on behind it.

    To be restored exactly, call ``scope.table.touch(key)`` before the state of a key changes.
    """

    memory: bool = True
    """Whether results change when the state is lost: such a step needs a checkpoint to be at-least-once."""

    holds: float = 0
    """How many elements it may keep back per key: 0, a bound, or `UNBOUNDED`. See `Logic.keeps_receipts`."""

    one_by_one: bool = False
    """Whether an output is one held element, the oldest of its key; else it is made of all that is held for it."""

    time: EventTime[Any] | ProcessingTime | None = None
    """Set it to get `on_watermark` calls: by the watermark in ``scope.watermark``, or by the clock."""

    state_type: Any = Any
    """The type that saved states are decoded into, as msgspec understands it."""

    needs_lineage: bool = False
    """Whether the messages of one chunk must be acknowledged separately when the source acknowledges."""

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, U]]:
        """Take every ``(key, element)`` of ``rows`` and yield what comes out."""
        raise NotImplementedError

    def on_watermark(self, scope: Scope, time: float) -> Iterable[tuple[Any, U]]:
        """The watermark, or the clock with `ProcessingTime`, has advanced to ``time``."""
        return ()

    def on_timer(self, scope: Scope, key: Hashable) -> Iterable[tuple[Any, U]]:
        """The timer that was set for ``key`` is due."""
        return ()

    def on_end(self, scope: Scope) -> Iterable[tuple[Any, U]]:
        """The stream has ended: yield what is still held."""
        return ()

    def next_close(self, scope: Scope) -> float | None:
        """The time at which `on_watermark` would have something to do, so that a quiet stream gets there."""
        return None

    def is_done(self, scope: Scope) -> bool:
        """Whether no further element can change anything: the branch ends here (outside `Keyed`)."""
        return False

    def is_holding(self, scope: Scope) -> bool:
        """Whether it keeps elements back at this moment, which watermarks must not overtake."""
        return any(scope.table.spaces.values())

    def backlog(self, scope: Scope) -> int:
        """Elements held until their timers let them go. While it is above zero no new input is read, and the
        end of the stream waits for it."""
        return 0

    @property
    def event_time(self) -> EventTime[Any] | None:
        """`time` if it is event time."""
        return self.time if isinstance(self.time, EventTime) else None

    @property
    def keeps_receipts(self) -> bool:
        """Whether held elements stay unacknowledged until they are sent on: bounded holds do."""
        return 0 < self.holds < UNBOUNDED


@frozen
class Work:
    """A step with work in flight: ``open`` makes the stage that does it."""

    open: Callable[[WorkContext], WorkStage]
    in_flight: int
    """Elements that it needs in hand to be busy all the time. A source that acknowledges is not asked for many more."""


@frozen
class KeyedRun:
    """Run ``flows`` separately for each key."""

    key: Callable[[Any], Hashable]
    flows: tuple[Flow[Any, Any], ...]


Transform = Fragment | Logic[Any, Any] | Work | KeyedRun


@frozen
class Merge:
    """A junction with several inputs and one output, in the order of arrival."""

    label: str = "merge"


@frozen
class Distribute:
    """A junction with one input and several outputs.

    ``choose`` gives the number of the output for an element; without it every output gets every element.
    """

    outputs: int
    choose: Callable[[Any], int] | None = None
    label: str = "fan_out"


Junction = Merge | Distribute
