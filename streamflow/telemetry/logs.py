"""Logs of a run through structlog, to standard error.

`streamflow.run` and `App` set structlog up and observe their pipelines with a `LogObserver`. An application that has
configured structlog by itself keeps its configuration.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from streamflow.engine.observer import Ending, StatsObserver
from streamflow.errors import StepError, shorten

if TYPE_CHECKING:
    from streamflow.graph import Graph

_EVERY_SECONDS = 10.0
"""Between two lines about the same thing at the same step."""


def set_up(level: str = "info", format: str = "console") -> None:
    """Configure structlog: lines for people (``console``) or one JSON object a line (``json``) on standard error.

    Does nothing if structlog is configured already.
    """
    import structlog

    if structlog.is_configured():
        return
    people = format == "console"
    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people)
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ,
        pad_event_to=0,
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,  # the default also shows what variables hold
    )
    show: list[Any] = [console]
    if not people:
        show = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=shorten, ensure_ascii=False),
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp,
            *show,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def logger(**bound: Any) -> Any:
    """The logger of this library; structlog is imported on the first call."""
    import structlog

    return structlog.get_logger("streamflow", **bound)


def log_failure(log: Any, error: BaseException) -> None:
    """One line that says what failed; the traceback is for those who debug."""
    log.error("failed", error=one_line(error))
    log.debug("traceback of the failure", exc_info=error)


def one_line(error: BaseException) -> str:
    """The error's text on a single line."""
    return " ".join(str(error).split()) or type(error).__name__


class LogObserver(StatsObserver):
    """Logs what a run does: its start and end, elements dropped, connectors' troubles, and checkpoints (at debug).

    Dropped elements are never passed over in silence, nor do they flood the log: the first at a step is logged at
    once, then every 10 s how many more there were, and the rest at the end.
    """

    def __init__(self, pipeline: str = "pipeline") -> None:
        super().__init__()
        self._log = logger(pipeline=pipeline)
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._ends: dict[str, list[str]] = {"read": [], "written": []}
        self._since = perf_counter()

    def started(self, graph: Graph, stages: tuple[str, ...], delivery: str) -> None:
        super().started(graph, stages, delivery)
        for kind, what in (("source", "read"), ("sink", "written")):
            self._ends[what] = [
                step.name for step in graph.steps if step.kind == kind and step.name in self.steps
            ]
        more = {"at_its_end": "what steps remember is lost"} if delivery == "best_effort" else {}
        self._log.info("started", delivery=delivery, steps=" → ".join(s.name for s in graph.steps), **more)

    def failed(self, error: StepError, absorbed: bool) -> None:
        super().failed(error, absorbed)
        if absorbed:  # otherwise the pipeline fails with it, and says so at its end
            self._tally("element dropped by its error policy", error.step, 1, error=one_line(error))

    def late(self, step: str, count: int) -> None:
        super().late(step, count)
        self._tally("late elements", step, count)

    def ahead(self, step: str, count: int) -> None:
        super().ahead(step, count)
        self._tally("elements from the future", step, count, hint="times are epoch seconds; see max_ahead=")

    def dropped(self, step: str, count: int) -> None:
        super().dropped(step, count)
        self._tally("a full buffer dropped elements", step, count)

    def checkpointed(self, number: int, entries: int, seconds: float) -> None:
        super().checkpointed(number, entries, seconds)
        self._log.debug("checkpoint", number=number, entries=entries, seconds=round(seconds, 3))

    def event(self, name: str, **details: Any) -> None:
        log = self._log.info if name.endswith("reconnected") else self._log.warning
        log(name, **details)

    def ended(self, ending: Ending, error: BaseException | None) -> None:
        super().ended(ending, error)
        for tally in self._tallies.values():
            tally.close()
        if error is not None:
            log_failure(self._log, error)
            return
        steps = self.steps.values()
        dropped = {
            "failed": sum(s.failed for s in steps),
            "late": sum(s.late for s in steps),
            "dropped": sum(s.dropped for s in steps),
        }
        took = round(perf_counter() - self._since, 1)
        passed = {
            what: sum(self.steps[name].received for name in names) for what, names in self._ends.items()
        }
        self._log.info(
            ending, seconds=took, **passed, **{name: count for name, count in dropped.items() if count}
        )

    def _tally(self, what: str, step: str, count: int, **details: Any) -> None:
        key = (what, step)
        if key not in self._tallies:
            self._tallies[key] = _Tally(partial(self._log.warning, what, step=step))
        self._tallies[key].add(count, details)


class _Tally:
    """Counts something that may come in floods, and reports the first at once, then what came in each interval."""

    def __init__(self, report: Callable[..., object]) -> None:
        self._report = report
        self._total = 0
        self._unreported = 0
        self._last: dict[str, Any] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, count: int, details: dict[str, Any]) -> None:
        self._total += count
        self._unreported += count
        self._last = details
        if self._timer is None:
            self._tell()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._flush()

    def _tell(self) -> None:
        """Report, and again after a while if more has come by then."""
        self._timer = None
        if self._unreported:
            self._flush()
            self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._tell)

    def _flush(self) -> None:
        if self._unreported:
            self._report(count=self._unreported, total=self._total, **self._last)
            self._unreported = 0
