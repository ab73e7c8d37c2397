"""The boundary to the outside: what a source and a sink implement, and what the engine gives them.

These protocols are all that a connector needs: `Source.open` returns a `Reader`, `Sink.open` a `Writer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field, frozen

from streamflow.clock import Clock
from streamflow.engine.chunk import Chunk
from streamflow.engine.guard import Guard
from streamflow.engine.observer import Observer
from streamflow.engine.outbox import Outbox
from streamflow.policies import Delivery

C = TypeVar("C")
K_contra = TypeVar("K_contra", contravariant=True)
V_co = TypeVar("V_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


class Resources:
    """What the connectors of one run share, such as connections: opened once for each key, closed at the end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._open: dict[Any, Any] = {}

    async def get(
        self, key: Any, open: Callable[[], Awaitable[C]], close: Callable[[C], Awaitable[None]]
    ) -> C:
        """The resource of this key, opened on the first call."""
        if key not in self._open:
            resource = await open()
            self._open[key] = resource
            self._stack.push_async_callback(close, resource)
        shared: C = self._open[key]
        return shared


@frozen
class RunContext:
    """What every step of a run may know."""

    pipeline: str
    delivery: Delivery
    clock: Clock
    observer: Observer
    resources: Resources
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    """Run a background task for as long as the pipeline runs; if it fails, the pipeline does."""
    settings: Any = None


@frozen
class SourceContext:
    """What `Source.open` is given."""

    run: RunContext
    step: str
    guard: Guard
    lineage: bool = False
    """Chunks must carry a lineage column: one receipt for each value, with its position."""
    receipts: bool = False
    """Chunks must carry receipts, since the source acknowledges."""
    exclusive: bool = False
    """Nobody else may read for this pipeline, which keeps its own place in checkpoints: nothing is acknowledged, and
    what is read must go on exactly behind `position`."""
    in_flight: int = 0
    """Elements that the steps behind the source may hold unacknowledged."""
    held: int = 0
    """How many of those are held until more come (by a `Batch`, for each key): with fewer, nothing would move."""
    pending: int | None = None
    """How many should be read and unsettled at a time, when the work behind is slow; None: as many as there are."""
    position: Any = None
    """Where to go on, from a checkpoint; None at the first start."""
    quiet: Callable[[], None] = field(default=lambda: None)
    """Call it when the source becomes caught up while `Reader.read` waits."""


class Reader(ABC):
    """Reads a source. The engine calls `read` again and again, from one task."""

    @abstractmethod
    async def read(self) -> Chunk | None:
        """The next values as soon as there are any, at most `CHUNK_SIZE`; None at the end.

        May be cancelled while it waits, and must lose nothing then.
        """

    def position(self) -> Any:
        """Where to go on after everything read so far; saved in checkpoints as MessagePack."""
        return None

    @property
    def caught_up(self) -> bool:
        """Whether nothing more is waiting to be read at this moment."""
        return False

    @property
    def is_held_up(self) -> bool:
        """Whether it reads no more for the moment, since too much of what it has read is not settled."""
        return False

    async def close(self) -> None:
        """Give back what was read and not settled, and let go of everything."""


class SyncReader(Reader):
    """A reader that never waits: implement `take` instead of `read`."""

    @abstractmethod
    def take(self) -> Chunk | None:
        """The next values, at most `CHUNK_SIZE`; None at the end. May compute for some 10 ms, no longer."""

    async def read(self) -> Chunk | None:
        return self.take()


class Writer(ABC, Generic[R_co]):
    """Writes to a sink. The engine calls it from one task."""

    @abstractmethod
    async def write(self, chunk: Chunk) -> None:
        """Take over a chunk; release its receipts once its values are safely delivered."""

    async def flush(self) -> None:
        """Return when everything written is delivered."""

    @abstractmethod
    def result(self) -> R_co:
        """What `Pipeline.run` returns, after the end."""

    async def close(self) -> None:
        """Let go of everything; called once, also after a failure."""


@frozen
class SinkContext:
    """What `Sink.open` is given."""

    run: RunContext
    step: str
    guard: Guard
    stable: bool = False
    """Each value can be named by its source position: it came through deterministic steps from one source."""
    outbox: Outbox | None = None
    """Put everything in here: it is delivered with the checkpoint. Only for a sink that is `transactional`."""


@define
class WorkContext:
    """What `Work.open`, `Fragment.open` and `Table.open` are given."""

    run: RunContext
    step: str
    guard: Guard
    checkpointed: bool = False
    """Whether barriers wait for what is under way."""


class SupportsGetItem(Protocol[K_contra, V_co]):
    """Anything that is asked by key, such as a dict."""

    def __getitem__(self, key: K_contra, /) -> V_co: ...


class Table(ABC, Generic[K_contra, V_co]):
    """A table that lives for a run: opened with the run's connectors, asked for each element, closed at the end."""

    @abstractmethod
    async def open(self, context: WorkContext) -> SupportsGetItem[K_contra, V_co]:
        """What is asked during this run; a key that is not there is a KeyError.

        What must be closed goes through ``context.run.resources``: the uses of one table in a run can share it.
        """
