"""Builds the objects of a run from its plan: tables, steps, channels, stages and pumps, with their connectors open."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from attrs import evolve

from streamflow.engine.buffered import Buffered
from streamflow.engine.channel import Channel
from streamflow.engine.checkpoint import Coordinator, Snapshot
from streamflow.engine.chunk import Barrier
from streamflow.engine.connector import (
    Reader,
    RunContext,
    SinkContext,
    SourceContext,
    SyncReader,
    WorkContext,
    Writer,
)
from streamflow.engine.fuse import FusedStep
from streamflow.engine.guard import Guard, reraise
from streamflow.engine.keyed import KeyStep, UnkeyStep
from streamflow.engine.outbox import Outbox
from streamflow.engine.output import Output, ToBranches, ToChannel, WithSides
from streamflow.engine.plan import (
    BranchPlan,
    FusedPlan,
    KeyPlan,
    LogicPlan,
    Plan,
    SinkPlan,
    SourcePlan,
    StagePlan,
    StepPlan,
)
from streamflow.engine.promises import reachable
from streamflow.engine.pump import FeedingPump, Pump, WaitingPump
from streamflow.engine.stage import SinkOutput, Stage
from streamflow.engine.stateful import StatefulStep
from streamflow.engine.step import SyncStep
from streamflow.engine.table import StateTable
from streamflow.engine.transform import Fragment
from streamflow.errors import StateError
from streamflow.graph import Step
from streamflow.policies import ErrorPolicy


class Assembly:
    """Everything that runs, ready to start."""

    def __init__(self, pipeline: str, coordinator: Coordinator | None) -> None:
        self._pipeline = pipeline
        self.pumps: list[Pump] = []
        self.stages: list[Stage] = []
        self.jobs: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.writers: list[tuple[SinkPlan, Writer[Any]]] = []
        self._coordinator = coordinator

    def add(
        self, run: Callable[[], Coroutine[Any, Any, None]], output: Output, participant: Stage | None = None
    ) -> None:
        """Add the work of one task, and what it puts its items into."""

        async def job() -> None:
            await run()
            self.ended(output, participant)

        self.jobs.append(job)

    def ended(self, output: Output, participant: Stage | None = None) -> None:
        """A producer puts nothing more into its output."""
        output.finish()
        if self._coordinator is not None:
            self._coordinator.ended(participant)

    def start(self) -> list[Coroutine[Any, Any, None]]:
        """The work of all tasks; hand each to a task, at once."""
        return [job() for job in self.jobs]

    def inject(self, barrier: Barrier) -> dict[str, Any]:
        return {pump.name: pump.inject(barrier) for pump in self.pumps}

    def drain(self) -> None:
        """Let the sources stop; with a checkpoint the end of the run commits what has passed."""
        for pump in self.pumps:
            pump.stop_reading()
        for stage in self.stages:
            stage.drain()

    def results(self) -> dict[Step, Any]:
        """What each sink has to show so far."""
        results: dict[Step, Any] = {}
        for plan, writer in self.writers:
            try:
                results[plan.step] = writer.result()
            except Exception as error:
                reraise(error, self._pipeline, plan.name)
        return results


async def assemble(
    plan: Plan,
    context: RunContext,
    on_error: ErrorPolicy,
    coordinator: Coordinator | None,
    snapshot: Snapshot | None,
    stack: AsyncExitStack,
) -> Assembly:
    """Open the sinks, then the sources, and build what is between them."""
    builder = _Assembler(plan, context, on_error, coordinator, snapshot, stack)
    return await builder.build()


class _Assembler:
    def __init__(
        self,
        plan: Plan,
        context: RunContext,
        on_error: ErrorPolicy,
        coordinator: Coordinator | None,
        snapshot: Snapshot | None,
        stack: AsyncExitStack,
    ) -> None:
        self.plan = plan
        self.context = context
        self.on_error = on_error
        self.coordinator = coordinator
        self.snapshot = snapshot
        self.stack = stack
        self.assembly = Assembly(context.pipeline, coordinator)
        self.stages: dict[int, Stage] = {}
        self.opened: dict[int, Fragment] = {}
        self.outboxes: dict[int, Outbox] = {}
        self.channels = {id(stage): self._channel(stage) for stage in plan.stages}

    async def build(self) -> Assembly:
        writers = {id(sink): await self._open_sink(sink) for sink in self.plan.sinks}
        self.assembly.writers = [(sink, writers[id(sink)]) for sink in self.plan.sinks]
        for stage in self.plan.stages:
            await self._open_fragments(stage)
        for stage in self.plan.stages:
            self._build_stage(stage, writers)
        for stage in self.plan.stages:
            if stage.source is not None:
                await self._open_source(stage.source, self.channels[id(stage)])
        if self.coordinator is not None:
            number = self.snapshot.number if self.snapshot is not None else 0
            channels = list(self.channels.values())
            self.coordinator.join(list(self.stages.values()), channels, self.assembly.inject, number)
        self.assembly.stages = list(self.stages.values())
        return self.assembly

    def _guard(self, policy: ErrorPolicy | None) -> Guard:
        return Guard(self.context.pipeline, policy or self.on_error, self.context.observer)

    def _channel(self, plan: StagePlan) -> Channel:
        if plan.queue is not None:
            queue = plan.queue.queue
            return Buffered(plan.queue.name, queue.size, queue.overflow, self._guard(plan.queue.policy))
        first = plan.logics[0] if plan.steps and isinstance(plan.steps[0], LogicPlan) else None
        several = first is not None and first.logic.inputs > 1
        return Channel(plan.ports, origins=plan.origins, tells_ends=several)

    # Connectors

    async def _open_sink(self, plan: SinkPlan) -> Writer[Any]:
        outbox = None
        if self.coordinator is not None and plan.transactional:
            outbox = self.outboxes[id(plan)] = self.coordinator.outbox(plan.name)
        context = SinkContext(self.context, plan.name, self._guard(plan.sink.on_error), plan.stable, outbox)
        try:
            writer = await plan.sink.open(context)
        except BaseException as error:
            reraise(error, self.context.pipeline, plan.name)
        self.stack.push_async_callback(self._close, writer, plan.name)
        return writer

    async def _open_fragments(self, stage: StagePlan) -> None:
        """Open what the functions of fused steps need, such as tables."""
        for step in stage.steps:
            if isinstance(step, FusedPlan):
                for name, fragment in zip(step.names, step.fragments, strict=True):
                    if fragment.open is None:
                        continue
                    context = WorkContext(self.context, name, self._guard(step.policy))
                    try:
                        function = await fragment.open(context)
                    except BaseException as error:
                        reraise(error, self.context.pipeline, name)
                    self.opened[id(fragment)] = evolve(fragment, function=function)

    async def _open_source(self, plan: SourcePlan, channel: Channel) -> None:
        output = ToChannel((channel, 0))
        pumps: list[Pump] = []
        context = SourceContext(
            self.context,
            plan.name,
            self._guard(None),
            plan.lineage,
            plan.receipts,
            plan.exclusive,
            plan.in_flight,
            plan.held,
            plan.pending,
            self.snapshot.positions.get(plan.name) if self.snapshot is not None else None,
            lambda: pumps[0].quiet() if pumps else None,
        )
        try:
            reader = await plan.source.open(context)
        except BaseException as error:
            reraise(error, self.context.pipeline, plan.name)
        self.stack.push_async_callback(self._close, reader, plan.name)
        pump = self._pump(plan.name, reader, output, channel)
        pumps.append(pump)
        self.assembly.pumps.append(pump)
        for stage, port in reachable(self.plan, plan):
            if id(stage) in self.stages:
                self.stages[id(stage)].pumps.append(pump)
                if self.coordinator is not None:
                    pump.wait_behind(self.stages[id(stage)], port)

    def _pump(self, name: str, reader: Reader, output: ToChannel, channel: Channel) -> Pump:
        pipeline, observer = self.context.pipeline, self.context.observer
        marks = name in self.plan.marks
        if isinstance(reader, SyncReader):
            on_end = partial(self.assembly.ended, output)
            feeding = FeedingPump(name, pipeline, output, observer, reader, on_end, marks=marks)
            channel.feed = feeding.feed
            return feeding
        waiting = WaitingPump(name, pipeline, output, observer, marks=marks)
        waiting.reader = reader
        self.assembly.add(partial(waiting.run, reader), output)
        return waiting

    async def _close(self, connector: Reader | Writer[Any], name: str) -> None:
        try:
            await connector.close()
        except BaseException as error:
            reraise(error, self.context.pipeline, name)

    # Stages

    def _build_stage(self, plan: StagePlan, writers: dict[int, Writer[Any]]) -> None:
        channel = self.channels[id(plan)]
        output = self._output(plan, writers)
        if plan.work is not None:
            name, work, policy = plan.work
            checkpointed = self.coordinator is not None
            worker = work.open(WorkContext(self.context, name, self._guard(policy), checkpointed))
            self.assembly.add(partial(worker.run, channel, output), output)
        else:
            steps = [self._step(step) for step in plan.steps]
            stage = Stage(channel, steps, output, self.context.clock, self.coordinator)
            if isinstance(plan.behind, SinkPlan) and id(plan.behind) in self.outboxes:
                stage.outboxes.append(self.outboxes[id(plan.behind)])
            self.stages[id(plan)] = stage
            self.assembly.add(stage.run, output, stage)

    def _output(self, plan: StagePlan, writers: dict[int, Writer[Any]]) -> Output:
        main = self._main_output(plan, writers)
        if not plan.sides:
            return main
        return WithSides(
            main, {name: ToChannel((self.channels[id(side)], 0)) for name, side in plan.sides.items()}
        )

    def _main_output(self, plan: StagePlan, writers: dict[int, Writer[Any]]) -> Output:
        behind = plan.behind
        match behind:
            case SinkPlan():
                writer = writers[id(behind)]
                return SinkOutput(behind.name, self.context.pipeline, writer, self.context.observer)
            case BranchPlan():
                ports = [(self.channels[id(stage)], port) for stage, port in behind.targets]
                make = behind.distribute.choose
                choose = None if make is None else make()
                return ToBranches(behind.name, ports, choose, self._guard(behind.policy))
            case (stage, port):
                return ToChannel((self.channels[id(stage)], port))
            case None:
                raise AssertionError("every stage of a plan leads somewhere")

    def _step(self, plan: StepPlan) -> SyncStep:
        match plan:
            case FusedPlan():
                fragments = [self.opened.get(id(fragment), fragment) for fragment in plan.fragments]
                return FusedStep(plan.name, plan.names, fragments, self._guard(plan.policy))
            case KeyPlan():
                return KeyStep(plan.name, plan.run.key, self._guard(plan.policy))
            case LogicPlan():
                guard = self._guard(plan.policy)
                make = partial(StatefulStep, plan.state, plan.logic, guard, self.context.clock)
                return make(
                    self._table(plan),
                    keyed=plan.keyed,
                    origins=plan.origins,
                    ways=self.plan.ways,
                    mixes=plan.mixes,
                    marks=plan.mixes and plan.state in self.plan.marks,
                    ttl=plan.ttl,
                    tied=plan.tied,
                )
            case _:
                return UnkeyStep(plan.name, self._guard(None))

    def _table(self, plan: LogicPlan) -> StateTable:
        table = StateTable(plan.state, plan.logic.state_type, tracked=self.coordinator is not None)
        saved = self.snapshot.tables.get(plan.state) if self.snapshot is not None else None
        if saved is not None:
            entries = {slot: data for slot, data in saved.entries.items() if data is not None}
            try:
                table.restore(entries, saved.meta)
            except StateError as error:
                raise StateError(f"pipeline {self.context.pipeline!r}, {error}") from error
        return table
