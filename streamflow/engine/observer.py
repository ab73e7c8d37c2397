"""What happens inside a run is told through one small protocol. The progress display, ``running.stats()`` and the
logs are observers; pass your own with ``run(observers=[…])``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen

from streamflow.errors import StepError

if TYPE_CHECKING:
    from streamflow.graph import Graph

Ending = Literal["finished", "drained", "stopped", "failed"]


class Observer:
    """Override what you want to hear of. Calls come on the event loop, often, and must return quickly.

    ``step`` is the name of a run of fused steps, of a source or of a sink, as in `started`'s ``stages``.
    """

    def started(self, graph: Graph, stages: tuple[str, ...], delivery: str) -> None:
        """The run begins. ``stages`` are the names that later calls use, in the order in which elements pass."""

    def processed(self, step: str, received: int, emitted: int) -> None:
        """A step has taken ``received`` elements and sent on ``emitted``."""

    def failed(self, error: StepError, absorbed: bool) -> None:
        """A step failed on an element; ``absorbed`` tells whether the policy dropped it or the pipeline fails."""

    def late(self, step: str, count: int) -> None:
        """Elements came after the watermark had closed their window, and were dropped or sent to ``late=``."""

    def ahead(self, step: str, count: int) -> None:
        """The time of elements was further in the future than `EventTime.max_ahead`; it moved no watermark."""

    def dropped(self, step: str, count: int) -> None:
        """A full `Buffer` let elements go."""

    def watermark(self, step: str, time: float) -> None:
        """The step's watermark has advanced to this event time."""

    def lag(self, source: str, pending: int) -> None:
        """So many elements wait in front of the source."""

    def settled(self, source: str, done: int, returned: int) -> None:
        """Source messages were acknowledged (``done``) or handed back (``returned``)."""

    def checkpointed(self, number: int, entries: int, seconds: float) -> None:
        """A checkpoint was committed with so many changed entries, so long after its barrier was sent."""

    def event(self, name: str, **details: Any) -> None:
        """Anything rare that an operator should see in the log: a reconnect, a redelivery, a stalled consumer."""

    def ended(self, ending: Ending, error: BaseException | None) -> None:
        """The run is over and everything is closed."""


class Observers(Observer):
    """Tells several observers."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._all = tuple(observers)

    def started(self, graph: Graph, stages: tuple[str, ...], delivery: str) -> None:
        for observer in self._all:
            observer.started(graph, stages, delivery)

    def processed(self, step: str, received: int, emitted: int) -> None:
        for observer in self._all:
            observer.processed(step, received, emitted)

    def failed(self, error: StepError, absorbed: bool) -> None:
        for observer in self._all:
            observer.failed(error, absorbed)

    def late(self, step: str, count: int) -> None:
        for observer in self._all:
            observer.late(step, count)

    def ahead(self, step: str, count: int) -> None:
        for observer in self._all:
            observer.ahead(step, count)

    def dropped(self, step: str, count: int) -> None:
        for observer in self._all:
            observer.dropped(step, count)

    def watermark(self, step: str, time: float) -> None:
        for observer in self._all:
            observer.watermark(step, time)

    def lag(self, source: str, pending: int) -> None:
        for observer in self._all:
            observer.lag(source, pending)

    def settled(self, source: str, done: int, returned: int) -> None:
        for observer in self._all:
            observer.settled(source, done, returned)

    def checkpointed(self, number: int, entries: int, seconds: float) -> None:
        for observer in self._all:
            observer.checkpointed(number, entries, seconds)

    def event(self, name: str, **details: Any) -> None:
        for observer in self._all:
            observer.event(name, **details)

    def ended(self, ending: Ending, error: BaseException | None) -> None:
        for observer in self._all:
            observer.ended(ending, error)


@define
class StepStats:
    """Counts of one stage since the start."""

    received: int = 0
    emitted: int = 0
    failed: int = 0
    late: int = 0
    ahead: int = 0
    dropped: int = 0
    watermark: float | None = None
    lag: int | None = None
    acknowledged: int = 0
    returned: int = 0


@frozen
class Stats:
    """What a pipeline has done so far: counts by stage, the number of checkpoints, and how it ended."""

    pipeline: str
    steps: dict[str, StepStats] = field(factory=dict)
    checkpoints: int = 0
    ending: Ending | None = None


class StatsObserver(Observer):
    """Counts; `Running.stats` reads it."""

    def __init__(self) -> None:
        self.pipeline = ""
        self.steps: dict[str, StepStats] = {}
        self.checkpoints = 0
        self.ending: Ending | None = None

    def started(self, graph: Graph, stages: tuple[str, ...], delivery: str) -> None:
        self.pipeline = graph.pipeline
        self.steps = {stage: StepStats() for stage in stages}

    def _step(self, name: str) -> StepStats:
        stats = self.steps.get(name)
        if stats is None:
            stats = self.steps[name] = StepStats()
        return stats

    def processed(self, step: str, received: int, emitted: int) -> None:
        stats = self._step(step)
        stats.received += received
        stats.emitted += emitted

    def failed(self, error: StepError, absorbed: bool) -> None:
        self._step(error.step).failed += 1

    def late(self, step: str, count: int) -> None:
        self._step(step).late += count

    def ahead(self, step: str, count: int) -> None:
        self._step(step).ahead += count

    def dropped(self, step: str, count: int) -> None:
        self._step(step).dropped += count

    def watermark(self, step: str, time: float) -> None:
        self._step(step).watermark = time

    def lag(self, source: str, pending: int) -> None:
        self._step(source).lag = pending

    def settled(self, source: str, done: int, returned: int) -> None:
        stats = self._step(source)
        stats.acknowledged += done
        stats.returned += returned

    def checkpointed(self, number: int, entries: int, seconds: float) -> None:
        self.checkpoints += 1

    def ended(self, ending: Ending, error: BaseException | None) -> None:
        self.ending = ending
