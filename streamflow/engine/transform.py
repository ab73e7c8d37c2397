"""What an operator tells the engine about how it runs. `Flow.transform` returns one of the five kinds.

===============  ======================================================================================
`Fragment`       a stateless synchronous step: becomes a line of a fused function
`Logic`          a synchronous step that remembers: the engine owns its state, timers and watermark
`Work`           a step that waits or computes elsewhere: a stage of its own with work in flight
`KeyedRun`       a run of the first two, separately for each key
`Queue`          a channel between what is before and what is behind
===============  ======================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from attrs import define, frozen

from streamflow.engine.watermark import View
from streamflow.policies import ErrorPolicy, EventTime, ProcessingTime

if TYPE_CHECKING:
    from streamflow.engine.connector import WorkContext
    from streamflow.engine.table import StateTable
    from streamflow.engine.watermark import WatermarkTracker
    from streamflow.engine.work import Worker
    from streamflow.graph import Flow, Sink

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")

UNBOUNDED = math.inf

Takes = Literal["all", "oldest", "each"]


@frozen
class Fragment:
    """A stateless synchronous operation: what to do with the function for each element."""

    kind: Literal["map", "filter", "flat_map", "inspect", "pass"]
    function: Callable[[Any], Any]
    open: Callable[[WorkContext], Awaitable[Callable[[Any], Any]]] | None = None
    """Called when a run opens its connectors, if the function needs something of that run, such as a table: what it
    returns takes the place of ``function``. What must be closed goes through ``context.run.resources``."""
    deterministic: bool = True
    """Whether an element that comes again becomes the same again, apart from what the user's functions do."""


@define(eq=False)
class Scope:
    """What a `Logic` may use while it runs: its table, the time, and where the elements come from."""

    table: StateTable
    late: Callable[[Any], None]
    """Call it with an element that came too late: it is counted, and goes to `Logic.late` if there is such a sink."""
    drop: Callable[[Hashable], None]
    """Call it with the key when the oldest element that is held for it is given up."""
    keyed: bool = False
    """Whether it runs inside `Keyed`; otherwise every key is None."""
    now: float = 0.0
    """The clock's time, epoch seconds."""
    origin: str = ""
    """The source partition, or earlier event-time step, that the elements come from."""
    port: int = 0
    """The input that they come by, where there are several."""
    tied: tuple[frozenset[int], ...] = ()
    """For each of several inputs those that hang together with it: holding one back holds back the others."""
    tracker: WatermarkTracker | None = None
    has_unread: Callable[[], bool] = lambda: False
    """Whether there is input that could be read and is not: the step, or one in its stage, is busy or holds back."""
    ahead: int = 0
    """Count elements here whose time was too far in the future to be believed."""
    closing: bool = False
    """Set while `Logic.process` emits what is over, and left set by a failure there: it is not that of the element."""
    unused: bool = False
    """Set it before `Logic.is_done` becomes true to say that the element in hand is not used either."""

    def view(self) -> View:
        """The watermark, or the clock, for a loop over the elements in hand; tell `saw` at its end."""
        return View.by_clock(self.now) if self.tracker is None else self.tracker.view(self.origin, self.now)

    def saw(self, top: float) -> None:
        """The largest time that such a loop has seen."""
        if self.tracker is not None:
            self.tracker.saw(self.origin, top)


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

    inputs: int = 1
    """With several, the key of a row is the number of the input that it comes by."""

    takes: Takes = "all"
    """What an output is made of: ``"all"`` that is held for its key, the ``"oldest"`` of its key, or the oldest of
    ``"each"`` input."""

    time: EventTime[Any] | ProcessingTime | tuple[EventTime[Any], ...] | None = None
    """Set it to get `on_watermark` calls: by the watermark (see `Scope.view`), or by the clock. A step with several
    inputs may have an event time for each. Timers follow the same time, and are then left to `on_watermark`."""

    late: Sink[Any, Any] | None = None
    """Where elements go that came too late: a sink of the graph."""

    state_type: Any = Any
    """The type that saved states are decoded into, as msgspec understands it."""

    needs_lineage: bool = False
    """Whether the messages of one chunk must be acknowledged separately when the source acknowledges."""

    drift: int = 0
    """By how many elements inputs that cannot wait for each other (`Scope.tied`) may be apart, beside `holds`."""

    independent: bool = False
    """Whether it leaves inputs unread for so long that no two of them may depend on one source."""

    @property
    def shape(self) -> str:
        """What saved state is like, in words: a pipeline goes on only with state of the same shape. Name whatever
        changes the meaning of what is in the table; its type is checked when it is decoded."""
        return type(self).__name__.strip("_")

    def process(self, scope: Scope, rows: Iterator[tuple[Any, T]]) -> Iterator[tuple[Any, U]]:
        """Take every ``(key, element)`` of ``rows`` and yield what comes out."""
        raise NotImplementedError

    def on_watermark(self, scope: Scope, time: float) -> Iterable[tuple[Any, U]]:
        """The watermark, or the clock with `ProcessingTime`, has advanced to ``time``."""
        return ()

    def on_timer(self, scope: Scope, key: Hashable) -> Iterable[tuple[Any, U]]:
        """The timer that was set for ``key`` is due by the clock. Only without a `time`."""
        return ()

    def on_absorbed(self, scope: Scope) -> None:
        """One of the other methods has failed, and the error policy lets it go on."""

    def on_start(self, scope: Scope) -> None:
        """The run begins; the table has what was restored."""

    def on_port_end(self, scope: Scope, port: int) -> Iterable[tuple[Any, U]]:
        """Nothing more comes by this one of several inputs."""
        return ()

    def on_end(self, scope: Scope) -> Iterable[tuple[Any, U]]:
        """The stream has ended: yield what is still held."""
        return ()

    def promise(self, scope: Scope, watermark: float) -> float:
        """What later steps with event time may rely on: nothing that comes out from now on is earlier than this."""
        return watermark

    def forget(self, scope: Scope, key: Hashable) -> None:
        """The key has been idle for too long."""
        space = scope.table.space()
        if key in space:
            scope.table.touch(key)
            scope.table.timers.clear(key)
            del space[key]

    def wants(self, scope: Scope, port: int) -> bool:
        """Whether it wants to read this one of several inputs at the moment. It must keep what it gets all the same:
        so that a barrier comes through, inputs that are not wanted are read, too."""
        return True

    def awaits(self, scope: Scope, port: int) -> bool:
        """Whether what comes out next depends on this one of several inputs: while those are quiet, so is the step."""
        return True

    def held(self, scope: Scope, port: int) -> int:
        """Elements of this one of several inputs that it keeps and did not want."""
        return 0

    def next_close(self, scope: Scope) -> float | None:
        """The time at which `on_watermark` would have something to do, so that a quiet stream gets there."""
        return scope.table.timers.next() if self.time is not None else None

    def is_done(self, scope: Scope) -> bool:
        """Whether no further element can change anything: the branch ends here (outside `Keyed`)."""
        return False

    def is_holding(self, scope: Scope) -> bool:
        """Whether it keeps elements back at this moment, which watermarks must not overtake."""
        return any(scope.table.spaces.values())

    def backlog(self, scope: Scope) -> int:
        """Elements held until their timers let them go. While it is above zero no new input is read."""
        return 0

    def pending(self, scope: Scope) -> int:
        """Elements that the end of the stream waits for: their timers let them go. By default the `backlog`."""
        return self.backlog(scope)

    @property
    def event_times(self) -> tuple[EventTime[Any], ...]:
        """`time` as far as it is event time: one for all inputs, or one for each."""
        if isinstance(self.time, tuple):
            return self.time
        return (self.time,) if isinstance(self.time, EventTime) else ()

    @property
    def keeps_receipts(self) -> bool:
        """Whether held elements stay unacknowledged until they are sent on: bounded holds do."""
        return 0 < self.holds < UNBOUNDED


@frozen
class Work:
    """A step with work in flight: ``open`` makes the stage that does it."""

    open: Callable[[WorkContext], Worker]
    in_flight: int
    """Elements that it needs in hand to be busy all the time. A source that acknowledges is not asked for many more."""
    traceable: bool = True
    """Whether it knows which elements an output came from. If not, neither receipts nor barriers get past it, and what
    comes out is a new origin."""


@frozen
class KeyedRun:
    """Run ``flows`` separately for each key."""

    key: Callable[[Any], Hashable]
    flows: tuple[Flow[Any, Any], ...]
    ttl: float | None = None
    """Seconds after which a key is forgotten that no element came for."""


Overflow = Literal["backpressure", "drop_oldest", "drop_newest", "fail"]


@frozen
class Queue:
    """A channel of the user's: how much it holds, and what happens when more comes."""

    size: int
    overflow: Overflow


Transform = Fragment | Logic[Any, Any] | Work | KeyedRun | Queue


@frozen
class Merge:
    """A junction with several inputs and one output, in the order of arrival."""

    label: str = "merge"


@frozen
class Distribute:
    """A junction with one input and several outputs.

    ``choose`` makes for each run the function that gives the number of the output for an element; without it every
    output gets every element.
    """

    outputs: int
    choose: Callable[[], Callable[[Any], int]] | None = None
    label: str = "fan_out"
    branches: tuple[str, ...] = ()
    """What the outputs are, for error messages."""
    on_error: ErrorPolicy | None = None


Junction = Merge | Distribute
