"""Runs a plan: opens the connectors, starts the tasks in one group, and takes everything down at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Generic, TypeVar

from streamflow.clock import Clock, SystemClock
from streamflow.engine import promises
from streamflow.engine.assemble import Assembly, assemble
from streamflow.engine.checkpoint import Coordinator, Snapshot, of_pipeline
from streamflow.engine.connector import Resources, RunContext
from streamflow.engine.observer import Ending, Observer, Observers, Stats, StatsObserver
from streamflow.engine.plan import Plan, make_plan
from streamflow.engine.shapes import fitting
from streamflow.errors import ConfigurationError, StreamflowError
from streamflow.graph import Pipeline, RunOptions
from streamflow.policies import Checkpoint, ErrorPolicy, Fail, check_policy, seconds

R = TypeVar("R")

_DELIVERIES = ("best_effort", "at_least_once", "exactly_once")


def started(pipeline: Pipeline[R], options: RunOptions) -> Running[R]:
    """Check the options and plan the run; entering the result starts it."""
    delivery = options.get("delivery", "at_least_once")
    if delivery not in _DELIVERIES:
        raise ConfigurationError(f"delivery must be one of {', '.join(_DELIVERIES)}, not {delivery!r}")
    checkpoint = options.get("checkpoint")
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise ConfigurationError(f"checkpoint must be a Checkpoint(…), not {checkpoint!r}")
    if options.get("partitions") not in (None, 1):
        raise ConfigurationError("partitions= needs exclusive consumers, which are not built yet")
    on_error: ErrorPolicy = options.get("on_error") or Fail()
    check_policy(on_error, f"pipeline {pipeline.name!r}")
    plan = make_plan(pipeline, delivery=delivery, checkpoint=checkpoint)
    promises.check(plan)
    clock = options.get("clock") or SystemClock()
    return Running(plan, on_error, clock, tuple(options.get("observers", ())), options.get("settings"))


class Running(Generic[R]):
    """A pipeline at work. Use it as ``async with pipeline.start() as running``."""

    def __init__(
        self, plan: Plan, on_error: ErrorPolicy, clock: Clock, observers: tuple[Observer, ...], settings: Any
    ) -> None:
        self._plan = plan
        self._on_error = on_error
        self._clock = clock
        self._settings = settings
        self._stats = StatsObserver()
        self._observer: Observer = Observers((self._stats, *observers)) if observers else self._stats
        self._assembly: Assembly | None = None
        self._opened = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._asked: Ending = "finished"
        self._error: BaseException | None = None

    async def __aenter__(self) -> Running[R]:
        self._task = asyncio.create_task(self._run(), name=f"streamflow {self._plan.pipeline.name}")
        self._task.add_done_callback(lambda _: self._opened.set())
        try:
            await self._opened.wait()
        except asyncio.CancelledError:
            await self.stop()
            raise
        if self._error is not None and self._assembly is None:
            raise self._error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.stop()
        elif self._task is not None and not self._task.done():
            await self.drain()
        if error is None and self._error is not None:
            raise self._error

    def stats(self) -> Stats:
        """What has happened so far: counts by stage."""
        stats = self._stats
        return Stats(self._plan.pipeline.name, dict(stats.steps), stats.checkpoints, stats.ending)

    async def wait(self) -> R:
        """Wait for the end and return the sink's result; after `drain` or `stop`, what it was by then.

        Raises the failure if the pipeline failed.
        """
        assert self._task is not None, "enter the context first: async with pipeline.start() as running"
        await asyncio.wait([self._task])
        if self._error is not None:
            raise self._error
        if self._assembly is None:
            raise StreamflowError(
                f"pipeline {self._plan.pipeline.name!r}: stopped before it had opened its connectors"
            )
        result: R = self._plan.pipeline.arranged(self._assembly.results())
        return result

    async def drain(self) -> None:
        """Stop reading, finish what is in flight, commit or give back what is held, and close.

        Open windows are not emitted. With a checkpoint they are in it. Without one (``best_effort``) what steps
        remember, such as windows and folds, ends with the run: observers are told ("what a step remembers is lost").
        """
        if self._task is None or self._task.done():
            return
        self._asked = "drained"
        if self._assembly is not None:
            self._assembly.drain()
        else:
            self._task.cancel()  # still opening: nothing is in flight
        await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Cancel at once; source messages that were not finished are given back."""
        if self._task is None:
            return
        if not self._task.done():
            self._asked = "stopped"
            self._task.cancel()
        await asyncio.wait([self._task])

    # The run

    async def _run(self) -> None:
        ending: Ending = "failed"
        try:
            async with AsyncExitStack() as stack:
                await self._execute(stack)
            ending = self._asked
        except asyncio.CancelledError:
            # Cancelled by `stop`, or with the event loop; whoever did it does not want the error.
            ending = "drained" if self._asked == "drained" else "stopped"
        except BaseException as error:
            self._error = _first(error)
        finally:
            self._observer.ended(ending, self._error)

    async def _execute(self, stack: AsyncExitStack) -> None:
        background: list[asyncio.Task[None]] = []
        plan = self._plan
        resources = await stack.enter_async_context(AsyncExitStack())
        async with asyncio.TaskGroup() as tasks:

            def spawn(work: Coroutine[Any, Any, None]) -> None:
                background.append(tasks.create_task(work))

            context = RunContext(
                plan.pipeline.name,
                plan.delivery,
                self._clock,
                self._observer,
                Resources(resources),
                spawn,
                self._settings,
            )
            coordinator, snapshot = await self._coordinator(context, stack)
            assembly = await assemble(plan, context, self._on_error, coordinator, snapshot, stack)
            self._observer.started(plan.graph, plan.names, plan.delivery)
            work = [tasks.create_task(job) for job in assembly.start()]
            if coordinator is not None:
                spawn(coordinator.run())
            self._assembly = assembly
            self._opened.set()
            try:
                await asyncio.wait(work)
                if coordinator is not None and not any(task.cancelled() or task.exception() for task in work):
                    await coordinator.checkpoint(finished=self._asked == "finished")
            finally:
                for task in background:
                    task.cancel()

    async def _coordinator(
        self, context: RunContext, stack: AsyncExitStack
    ) -> tuple[Coordinator | None, Snapshot | None]:
        """The coordinator, once this run owns the checkpoints, and the last of them."""
        plan = self._plan
        if plan.checkpoint is None:
            return None, None
        with of_pipeline(plan.pipeline.name):
            log = await plan.checkpoint.open(context)
            stack.push_async_callback(log.close)
            last = log.last
            if last is not None:
                last = fitting(plan, last, allow_dropped=plan.checkpoint.allow_dropped_state)
                self._observer.event("goes on from a checkpoint", number=last.number, finished=last.finished)
        every = seconds(plan.checkpoint.every, "Checkpoint's every")
        return Coordinator(context.pipeline, log, plan.shapes, every, self._clock, self._observer), last


def _first(error: BaseException) -> BaseException:
    """The failure that matters out of a task group: ours rather than a client's, and never a mere cancellation."""
    leaves: list[BaseException] = []
    pending = [error]
    while pending:
        item = pending.pop(0)
        if isinstance(item, BaseExceptionGroup):
            pending = [*item.exceptions, *pending]
        else:
            leaves.append(item)
    for leaf in leaves:
        if isinstance(leaf, StreamflowError):
            return leaf
    return leaves[0]
