"""From the description to stages: what is fused, and where channels are.

A stage is a linear run of steps that one task executes. A new one begins behind a source, at a merge, on every
branch, and around each step that has work in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from attrs import define, evolve, field, frozen

from streamflow.engine.tied import tied_inputs
from streamflow.engine.transform import (
    Distribute,
    Fragment,
    KeyedRun,
    Logic,
    Merge,
    Queue,
    Transform,
    Work,
)
from streamflow.errors import PlanError
from streamflow.graph import Flow, Graph, Pipeline, Sink, Source, Step, inner_names
from streamflow.policies import Checkpoint, Delivery, ErrorPolicy


@frozen
class FusedPlan:
    """Stateless steps that become one function; ``codec`` if they are all a connector's own."""

    names: list[str]
    fragments: list[Fragment]
    policy: ErrorPolicy | None
    codec: bool = False

    @property
    def name(self) -> str:
        """What observers call it: not like the connector, which counts for itself."""
        return " → ".join(self.names) + (" (codec)" if self.codec else "")


@frozen
class LogicPlan:
    """A step that remembers. ``state`` is its stable id."""

    state: str
    logic: Logic[Any, Any]
    policy: ErrorPolicy | None
    keyed: bool
    origins: tuple[frozenset[str], ...]
    """The origins of what comes in, by input."""
    ttl: float | None = None
    tied: tuple[frozenset[int], ...] = ()
    """For each of several inputs those that hang together with it."""

    @property
    def holds(self) -> float:
        """How many elements it may keep back, per key."""
        drifts = any(len(inputs) > 1 for inputs in self.tied)
        return self.logic.holds + (self.logic.drift if drifts else 0)

    @property
    def all_origins(self) -> frozenset[str]:
        return frozenset[str]().union(*self.origins)

    @property
    def mixes(self) -> bool:
        """Whether what comes out is of no single origin: it holds elements of several, or joins them."""
        several = len(self.all_origins) > 1 and (self.logic.holds > 0 or self.logic.inputs > 1)
        return several and not self.logic.event_times

    @property
    def origins_behind(self) -> frozenset[str]:
        """The origins of what comes out: a step with a watermark is one itself, and so is one that mixes several."""
        if self.mixes or self.logic.event_times:
            return frozenset([self.state])
        return self.all_origins


@frozen
class KeyPlan:
    """The beginning of a keyed run."""

    name: str
    run: KeyedRun
    policy: ErrorPolicy | None


@frozen
class UnkeyPlan:
    """The end of a keyed run."""

    name: str


StepPlan = FusedPlan | LogicPlan | KeyPlan | UnkeyPlan


@define(eq=False)
class SourcePlan:
    """A source and what the steps behind it ask of it."""

    name: str
    source: Source[Any]
    lineage: bool = False
    receipts: bool = False
    exclusive: bool = False
    in_flight: int = 0
    held: int = 0
    pending: int | None = None


@define(eq=False)
class SinkPlan:
    name: str
    sink: Sink[Any, Any]
    step: Step
    stable: bool = False
    """See `SinkContext.stable`."""
    transactional: bool = False
    """Its outputs are committed with the checkpoint."""


@define(eq=False)
class BranchPlan:
    """Several stages behind one."""

    name: str
    distribute: Distribute
    policy: ErrorPolicy | None
    targets: list[tuple[StagePlan, int]] = field(factory=list)


@frozen
class QueuePlan:
    """What the user asks of the channel in front of a stage."""

    name: str
    queue: Queue
    policy: ErrorPolicy | None


@define(eq=False)
class StagePlan:
    """One task: takes items from its channel, through its steps, to what is behind it."""

    ports: int = 1
    origins: list[dict[str, str]] = field(factory=list)
    """The origins that come to each port of several, and what they are called behind it."""
    queue: QueuePlan | None = None
    source: SourcePlan | None = None
    steps: list[StepPlan] = field(factory=list)
    work: tuple[str, Work, ErrorPolicy | None] | None = None
    behind: SinkPlan | BranchPlan | tuple[StagePlan, int] | None = None
    sides: dict[str, StagePlan] = field(factory=dict)
    """Where its side outputs lead to, by their names."""

    @property
    def logics(self) -> list[LogicPlan]:
        return [step for step in self.steps if isinstance(step, LogicPlan)]


@frozen
class Plan:
    """The stages of a pipeline, as elements pass them, and its sinks in the order of the result."""

    pipeline: Pipeline[Any]
    graph: Graph
    delivery: Delivery
    checkpoint: Checkpoint | None
    stages: list[StagePlan]
    sinks: list[SinkPlan]
    """Those of side outputs included."""
    transforms: dict[Step, Transform]
    ways: dict[str, str]
    """Branches of one origin that meet again, by the names that they have there: the origin."""
    marks: frozenset[str]
    """Origins that report their progress, for the sake of those branches."""

    @property
    def names(self) -> tuple[str, ...]:
        """What observers call the steps, in the order in which elements pass."""
        return tuple(name for stage in self.stages for name in _stage_names(stage))

    @property
    def shapes(self) -> dict[str, str]:
        """What the steps remember, by step."""
        return {
            plan.state: ("by key: " if plan.keyed else "") + plan.logic.shape
            for stage in self.stages
            for plan in stage.logics
        }


def _stage_names(stage: StagePlan) -> Iterator[str]:
    if stage.source is not None:
        yield stage.source.name
    if stage.queue is not None:
        yield stage.queue.name
    if stage.work is not None:
        yield stage.work[0]
    for step in stage.steps:
        match step:
            case FusedPlan():
                yield step.name
            case LogicPlan():
                yield step.state
            case KeyPlan():
                yield step.name
    if isinstance(stage.behind, SinkPlan | BranchPlan):
        yield stage.behind.name


def make_plan(pipeline: Pipeline[Any], *, delivery: Delivery, checkpoint: Checkpoint | None) -> Plan:
    """Plan a run; raises `PlanError` with the reason when the pipeline cannot run as asked."""
    builder = _Builder(pipeline)
    for step in builder.steps.values():
        if isinstance(step.element, Source):
            builder.stage_from_source(step)
    graph, sinks = pipeline.describe(), builder.sinks()
    return Plan(
        pipeline,
        graph,
        delivery,
        checkpoint,
        builder.stages,
        sinks,
        builder.transforms,
        builder.ways,
        _marking(builder),
    )


def _marking(builder: _Builder) -> frozenset[str]:
    """The origins whose branches meet again in front of a step with event time."""
    marking: set[str] = set()
    for stage in builder.stages:
        for logic in stage.logics:
            if logic.logic.event_times:
                roots = Counter(builder.ways.get(origin, origin) for origin in logic.all_origins)
                marking |= {root for root, times in roots.items() if times > 1}
    return frozenset(marking)


class _Builder:
    """Walks the graph from its sources and cuts it into stages."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self.pipeline = pipeline
        self.steps = pipeline.steps()
        self.names = {step: name for name, step in self.steps.items()}
        self.stages: list[StagePlan] = []
        self.transforms: dict[Step, Transform] = {}
        self._made: dict[Step, StagePlan] = {}
        self._sinks: dict[Step, SinkPlan] = {}
        self._side_sinks: list[SinkPlan] = []
        self.ways: dict[str, str] = {}
        self._consumers: dict[tuple[Step, int], list[tuple[Step, int]]] = {}
        for step in self.steps.values():
            for number, output in enumerate(step.inputs):
                self._consumers.setdefault(output, []).append((step, number))
            if isinstance(step.element, Flow):
                self.transforms[step] = self._transform(step)
        self._ports: dict[Step, list[dict[str, str]]] = {}
        self.origins = self._find_origins()

    def sinks(self) -> list[SinkPlan]:
        return [*(self._sinks[step] for step in self.pipeline.sinks), *self._side_sinks]

    def _transform(self, step: Step) -> Transform:
        try:
            return step.element.transform()  # type: ignore[no-any-return]
        except PlanError:
            raise
        except NotImplementedError as error:
            raise PlanError(f"pipeline {self.pipeline.name!r}, step {self.names[step]!r}: {error}") from error

    def _find_origins(self) -> dict[Step, frozenset[str]]:
        """For each step the origins of what comes out of it: sources, or the last step that has a watermark."""
        origins: dict[Step, frozenset[str]] = {}
        for step in self.steps.values():
            if isinstance(step.element, Source):
                origins[step] = frozenset([self.names[step]])
                continue
            ports = self._ports[step] = self._called(step, [origins[source] for source, _ in step.inputs])
            origins[step] = frozenset(name for port in ports for name in port.values())
            if step in self.transforms:
                for plan in self._expanded(step):
                    if isinstance(plan, LogicPlan):
                        origins[step] = plan.origins_behind
                work = self.transforms[step]
                if isinstance(work, Work) and not work.traceable:
                    origins[step] = frozenset([self.names[step]])
        return origins

    def _called(self, step: Step, ports: list[frozenset[str]]) -> list[dict[str, str]]:
        """What origins are called behind a step: one that comes by several inputs has a name for each of them."""
        times = Counter(origin for port in ports for origin in port)
        called: list[dict[str, str]] = []
        for number, port in enumerate(ports, 1):
            names = {
                o: o if times[o] == 1 else f"{o} by {self.names[step]}, input {number}" for o in sorted(port)
            }
            self.ways.update({name: self.ways.get(o, o) for o, name in names.items() if name != o})
            called.append(names)
        return called

    # Stages

    def stage_from_source(self, step: Step) -> None:
        name = self.names[step]
        stage = self._new_stage()
        stage.source = SourcePlan(name, step.element)
        self._add_codec(stage, step, None)
        self._continue(stage, step, 0)

    def _new_stage(self, ports: int = 1) -> StagePlan:
        stage = StagePlan(ports)
        self.stages.append(stage)
        return stage

    def _stage_for(self, step: Step, port: int) -> tuple[StagePlan, int]:
        """The stage that begins with this step, and the port of its channel for this input."""
        if step in self._made:
            return self._made[step], port
        stage = self._made[step] = self._new_stage(len(step.inputs))
        if stage.ports > 1:
            stage.origins = self._ports[step]
        self._extend(stage, step)
        return stage, port

    def _extend(self, stage: StagePlan, step: Step) -> None:
        """Add a step to a stage, and go on with what is behind it."""
        element, name = step.element, self.names[step]
        if isinstance(element, Sink):
            self._add_codec(stage, step, element.on_error)
            stage.behind = self._sinks[step] = SinkPlan(name, element, step)
        elif isinstance(element, Distribute):
            branches = stage.behind = BranchPlan(name, element, element.on_error)
            for output in range(element.outputs):
                if not self._consumers.get((step, output)):
                    branch = (
                        element.branches[output]
                        if element.branches
                        else f"output {output + 1} of {element.outputs}"
                    )
                    raise PlanError(
                        f"pipeline {self.pipeline.name!r}, step {name!r}: the branch of the {branch} leads to no sink;"
                        " close it with .to(Discard()) if it is not wanted, and give all to Pipeline(…)"
                    )
                branches.targets.append(self._target(step, output))
        elif isinstance(element, Merge):
            self._continue(stage, step, 0)
        elif isinstance(queue := self.transforms.get(step), Queue):
            # It is the channel of the stage behind it.
            behind = self._new_stage()
            behind.queue = QueuePlan(name, queue, element.on_error)
            stage.behind = (behind, 0)
            self._continue(behind, step, 0)
        elif isinstance(work := self.transforms.get(step), Work):
            if stage.source is not None or stage.steps or stage.ports > 1:
                stage.behind = self._stage_for(step, 0)
            else:
                stage.work = (name, work, element.on_error)
                stage.behind = self._target(step, 0)
        else:
            self._add(stage, self._expanded(step))
            self._continue(stage, step, 0)

    def _continue(self, stage: StagePlan, step: Step, output: int) -> None:
        consumers = self._consumers.get((step, output), [])
        if len(consumers) == 1 and len(consumers[0][0].inputs) == 1:
            self._extend(stage, consumers[0][0])
        elif len(consumers) == 1:
            stage.behind = self._stage_for(*consumers[0])
        else:
            stage.behind = self._branch_off(step, consumers)

    def _target(self, step: Step, output: int) -> tuple[StagePlan, int]:
        consumers = self._consumers[step, output]
        if len(consumers) == 1:
            return self._stage_for(*consumers[0])
        stage = self._new_stage()
        stage.behind = self._branch_off(step, consumers)
        return stage, 0

    def _branch_off(self, step: Step, consumers: list[tuple[Step, int]]) -> BranchPlan:
        """A stream that is used several times: each use gets everything."""
        branches = BranchPlan(f"{self.names[step]} (branches)", Distribute(len(consumers)), None)
        branches.targets += [self._stage_for(*consumer) for consumer in consumers]
        return branches

    # Steps

    def _expanded(self, step: Step) -> list[StepPlan]:
        origins = tuple(frozenset(port.values()) for port in self._ports[step])
        return self._expand(step.element, self.names[step], origins, None, self.transforms[step])

    def _expand(
        self,
        flow: Flow[Any, Any],
        name: str,
        origins: tuple[frozenset[str], ...],
        policy: ErrorPolicy | None,
        transform: Transform | None = None,
    ) -> list[StepPlan]:
        transform = flow.transform() if transform is None else transform
        policy = flow.on_error or policy
        match transform:
            case Fragment():
                return [FusedPlan([name], [transform], policy)]
            case Logic():
                plan = LogicPlan(name, transform, policy, keyed=False, origins=origins)
                return [evolve(plan, tied=self._tied(name)) if len(origins) > 1 else plan]
            case KeyedRun():
                return self._expand_keyed(name, transform, origins, policy)
            case Work() | Queue():
                return []

    def _tied(self, name: str) -> tuple[frozenset[int], ...]:
        waiting = [
            step
            for step, transform in self.transforms.items()
            if isinstance(transform, Logic) and type(transform).wants is not Logic.wants
        ]
        return tied_inputs(self.steps[name], self.steps.values(), waiting)

    def _expand_keyed(
        self, name: str, run: KeyedRun, origins: tuple[frozenset[str], ...], policy: ErrorPolicy | None
    ) -> list[StepPlan]:
        plans: list[StepPlan] = [KeyPlan(name, run, policy)]
        for inner, flow in inner_names(run.flows).items():
            transform = flow.transform()
            if not isinstance(transform, Fragment | Logic):
                raise PlanError(
                    f"pipeline {self.pipeline.name!r}, step {name!r}: {inner} cannot run inside Keyed: "
                    "only synchronous steps can"
                )
            for plan in self._expand(flow, f"{name}/{inner}", origins, policy, transform):
                if isinstance(plan, LogicPlan):
                    # What holds elements or closes with time lets go of them by itself.
                    ttl = run.ttl if plan.logic.holds == 0 else None
                    plan = evolve(plan, keyed=True, ttl=ttl)
                    origins = (plan.origins_behind,)
                plans.append(plan)
        return [*plans, UnkeyPlan(name)]

    def _add_codec(self, stage: StagePlan, step: Step, policy: ErrorPolicy | None) -> None:
        """Append the steps that belong to a connector."""
        for flow in step.element.flows():
            plans = self._expand(flow, self.names[step], (self.origins[step],), policy)
            self._add(
                stage, [evolve(plan, codec=True) if isinstance(plan, FusedPlan) else plan for plan in plans]
            )

    def _add(self, stage: StagePlan, plans: list[StepPlan]) -> None:
        """Append steps to a stage; stateless ones join the run before them.

        A step with a policy of its own starts a new run, and so does what follows a `FlatMap`: the element that an
        error report names is the input of its run.
        """
        for plan in plans:
            last = stage.steps[-1] if stage.steps else None
            if (
                isinstance(plan, FusedPlan)
                and isinstance(last, FusedPlan)
                and plan.policy is None
                and last.policy is None
                and last.fragments[-1].kind != "flat_map"
            ):
                stage.steps[-1] = FusedPlan(
                    last.names + plan.names, last.fragments + plan.fragments, None, last.codec and plan.codec
                )
            else:
                stage.steps.append(plan)
            if isinstance(plan, LogicPlan) and plan.logic.late is not None:
                self._add_side(stage, f"{plan.state}/late", plan.logic.late)

    def _add_side(self, stage: StagePlan, name: str, sink: Sink[Any, Any]) -> None:
        """A side output: a stage of its own that leads to a sink."""
        step = Step(sink, (), name)
        self.names[step], self.origins[step] = name, frozenset()
        side = stage.sides[name] = self._new_stage()
        self._add_codec(side, step, sink.on_error)
        side.behind = SinkPlan(name, sink, step)
        self._side_sinks.append(side.behind)
