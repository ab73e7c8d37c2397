"""The description of a pipeline: sources, flows, sinks and how they are joined. Nothing here runs or does I/O.

A description is a graph of `Step`s, linked from the sink back to its sources. `Pipeline.run` hands it to the engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypedDict, TypeVar, Unpack, overload

from attrs import field, frozen

from streamflow.errors import ConfigurationError
from streamflow.policies import Checkpoint, Delivery, ErrorPolicy

if TYPE_CHECKING:
    from streamflow.clock import Clock
    from streamflow.engine.connector import Reader, SinkContext, SourceContext, Writer
    from streamflow.engine.observer import Observer
    from streamflow.engine.runner import Running
    from streamflow.engine.transform import Transform

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
R = TypeVar("R")
R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
U_co = TypeVar("U_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)

Items = Iterable[T] | AsyncIterable[T] | Callable[[], Iterable[T]] | Callable[[], AsyncIterable[T]]


class RunOptions(TypedDict, total=False):
    """The options of `Pipeline.run`, `Pipeline.start` and `streamflow.run`.

    * ``delivery``: what is promised, ``"at_least_once"`` (default), ``"exactly_once"`` or
      ``"best_effort"``; see docs/guarantees.md.
    * ``on_error``: the error policy of every step that has none of its own; default `Fail`.
    * ``checkpoint``: save what the pipeline remembers; a `Checkpoint`. Default None.
    * ``observers``: what hears of the run, each an `Observer`. Default none.
    * ``clock``: the time that steps see; default the wall clock, in tests `streamflow.testing.VirtualClock`.
    * ``settings``: where connectors find their defaults, such as ``servers``.
    * ``partitions``: only 1 in this release.
    """

    checkpoint: Checkpoint | None
    delivery: Delivery
    on_error: ErrorPolicy
    partitions: int | None
    settings: Any
    clock: Clock
    observers: Iterable[Observer]


@frozen(eq=False)
class Step:
    """One box of the graph: an element and the streams that go into it, each as (step, number of its output)."""

    element: Any
    inputs: tuple[tuple[Step, int], ...] = ()
    name: str | None = None

    @property
    def label(self) -> str:
        """The name given to it, else the name of its class or function."""
        return self.name or getattr(self.element, "label", None) or type(self.element).__name__


class Flow(Generic[T_contra, U_co]):
    """An operator: turns a stream of ``T`` into a stream of ``U``. Subclasses describe; `transform` says how to run."""

    on_error: ErrorPolicy | None = None

    def via(self, flow: Flow[U_co, V]) -> Flow[T_contra, V]:
        """Compose a reusable flow from this one and the next."""
        return Composed(*parts(self), *parts(flow))

    def transform(self) -> Transform:
        """What the engine runs for this operator: a fragment, a logic, a channel or a keyed run of those."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it runs: define transform()")

    def sides(self) -> Mapping[str, Sink[Any, Any]]:
        """Sinks of its own, for what leaves it by the side, by their names in the step."""
        return {}


class Composed(Flow[T_contra, U_co]):
    """Several flows, one after the other."""

    def __init__(self, *flows: Flow[Any, Any]) -> None:
        self.flows = flows


def parts(flow: object) -> tuple[Flow[Any, Any], ...]:
    """The single operators that a flow consists of."""
    if isinstance(flow, Composed):
        return flow.flows
    if isinstance(flow, Flow):
        return (flow,)
    hint = f"; did you mean {flow.__name__}(...)?" if isinstance(flow, type) else ""
    raise ConfigurationError(f"via() takes an operator such as Map(f), not {flow!r}{hint}")


def inner_names(flows: Iterable[Flow[Any, Any]]) -> dict[str, Flow[Any, Any]]:
    """The steps inside a `Keyed` under their names: of the class, with a number where it comes again."""
    named: dict[str, Flow[Any, Any]] = {}
    for flow in flows:
        name, number = type(flow).__name__, 1
        while name in named:
            number += 1
            name = f"{type(flow).__name__}-{number}"
        named[name] = flow
    return named


class Stream(Generic[T_co]):
    """A stream of ``T`` in the description. It may be used several times: what is upstream still runs once."""

    def __init__(self, step: Step, output: int = 0) -> None:
        self._end = (step, output)

    @property
    def end(self) -> tuple[Step, int]:
        """Where this stream comes from: the step and the number of its output."""
        return self._end

    if not TYPE_CHECKING:  # a checker must go on to report names that do not exist

        def __getattr__(self, name: str) -> Any:
            if name in ("run", "start", "describe", "to_mermaid"):
                raise AttributeError(f"a stream has no {name}(): close it with .to(sink) first")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __aiter__(self) -> AsyncGenerator[T_co, None]:
        """Run the stream and iterate over what it gives: ``async for x in stream``.

        What is not consumed holds the source back. A source message is acknowledged when the loop has come back for
        the element after it. An error of the pipeline is raised in the loop. Leaving the loop stops the pipeline;
        when it is left by ``break``, only `contextlib.aclosing` makes sure that this has happened before what follows:

            async with aclosing(aiter(stream)) as elements:
                async for x in elements:
                    ...
        """
        from streamflow.engine.iteration import iterate

        return iterate(self)

    def via(self, flow: Flow[T_co, U], name: str | None = None) -> Stream[U]:
        """Append an operator. ``name`` identifies the step in state, metrics and errors (default: its class name)."""
        end = self.end
        for part in parts(flow):
            end = (Step(part, (end,), name), 0)
        return Stream(*end)

    def to(self, sink: Sink[T_co, R], name: str | None = None, step: str | None = None) -> Pipeline[R]:
        """Close the stream with a sink. ``name`` is the pipeline's identity, ``step`` names the sink in it."""
        if not isinstance(sink, Sink):
            hint = f"; did you mean {sink.__name__}(...)?" if isinstance(sink, type) else ""
            raise ConfigurationError(f"to() takes a sink such as Collect(), not {sink!r}{hint}")
        return Pipeline._closed((Step(sink, (self.end,), step),), name)


class Source(Stream[T]):
    """The start of a stream: an iterable, an async iterable, or a function that returns a fresh one for each run.

    A one-shot iterator or generator can run once; a second run raises. Connectors derive from this class and
    override `open`.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> asyncio.run(Source(range(3)).to(Collect()).run())
    [0, 1, 2]
    """

    acknowledges: bool = False
    """Whether what is read must be acknowledged, and comes again when it was not."""

    def __init__(self, items: Items[T], name: str | None = None) -> None:
        if isinstance(items, Stream):
            raise ConfigurationError(f"{items!r} is a stream already: use it as it is, without Source(…)")
        if not (isinstance(items, Iterable | AsyncIterable) or callable(items)):
            raise ConfigurationError(
                f"Source takes an iterable, an async iterable or a function returning one, not {items!r}"
            )
        self.items = items
        self.name = name

    @staticmethod
    def from_aiostream(stream: AsyncIterable[V], name: str | None = None) -> Source[V]:
        """An aiostream ``Stream`` as a source. Each run opens a streamer of its own and closes it at the end."""
        if not callable(getattr(stream, "stream", None)):
            raise ConfigurationError(
                f"from_aiostream takes an aiostream Stream, such as aiostream.stream.range(3), not {stream!r}"
            )

        def items() -> AsyncIterable[V]:
            from streamflow.engine.iterables import Streamed

            return Streamed(stream)

        return Source(items, name)

    @property
    def end(self) -> tuple[Step, int]:
        # Made once and kept, so that a source that is used twice is one step of the graph.
        kept: tuple[Step, int] | None = self.__dict__.get("_end")
        if kept is None:
            kept = self.__dict__["_end"] = (Step(self, (), self.__dict__.get("name")), 0)
        return kept

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        """Operators that belong to the source, such as the decoding of its payloads."""
        return ()

    async def open(self, context: SourceContext) -> Reader:
        """Start reading. The engine calls it once a run and closes the reader at the end."""
        from streamflow.engine.iterables import open_items

        return open_items(self, context)


class Sink(Generic[T_contra, R_co]):
    """The end of a stream; ``R`` is what `Pipeline.run` returns for it."""

    on_error: ErrorPolicy | None = None

    transactional: ClassVar[bool] = False
    """Whether it can put its outputs into `SinkContext.outbox`, to be committed with a checkpoint."""

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        """Operators that belong to the sink, such as the encoding of its payloads."""
        return ()

    async def open(self, context: SinkContext) -> Writer[R_co]:
        """Start writing. The engine calls it once a run and closes the writer at the end."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it writes: define open()")


@frozen
class StepInfo:
    """One box of `Pipeline.describe`: its unique name, its class, what it is, and the boxes that feed it."""

    name: str
    type: str
    kind: str
    inputs: tuple[str, ...] = ()


@frozen
class Graph:
    """A pipeline as data, in the order in which elements pass."""

    pipeline: str
    steps: tuple[StepInfo, ...] = field(factory=tuple)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        return tuple((source, step.name) for step in self.steps for source in step.inputs)


class Pipeline(Generic[R]):
    """A closed graph, ready to run: ``Pipeline(p1, p2)`` joins several sinks into one, shared upstreams run once."""

    @overload
    def __init__(self: Pipeline[R1], p1: Pipeline[R1], /, *, name: str | None = None) -> None: ...
    @overload
    def __init__(
        self: Pipeline[tuple[R1, R2]], p1: Pipeline[R1], p2: Pipeline[R2], /, *, name: str | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Pipeline[tuple[R1, R2, R3]],
        p1: Pipeline[R1],
        p2: Pipeline[R2],
        p3: Pipeline[R3],
        /,
        *,
        name: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Pipeline[tuple[Any, ...]], /, *pipelines: Pipeline[Any], name: str | None = None
    ) -> None: ...
    def __init__(self, /, *pipelines: Pipeline[Any], name: str | None = None) -> None:
        self.name: str
        self.named: bool
        self.sinks: tuple[Step, ...]
        self.parts: tuple[Pipeline[Any], ...]
        if not pipelines:
            raise ConfigurationError("Pipeline() needs at least one closed stream: stream.to(sink)")
        for pipeline in pipelines:
            if not isinstance(pipeline, Pipeline):
                raise ConfigurationError(
                    f"Pipeline() takes closed streams, not {pipeline!r}: close it with .to(sink)"
                )
        names = list(dict.fromkeys(p.name for p in pipelines if p.named))
        if name is None and len(names) > 1:
            raise ConfigurationError(
                f"the parts are named {', '.join(map(repr, names))}: say Pipeline(…, name=…)"
            )
        self.parts = pipelines
        self.sinks = tuple(dict.fromkeys(sink for p in pipelines for sink in p.sinks))
        self.named = bool(name or names)
        self.name = name or (names[0] if names else "pipeline")

    @classmethod
    def _closed(cls, sinks: tuple[Step, ...], name: str | None) -> Pipeline[Any]:
        pipeline: Pipeline[Any] = cls.__new__(cls)
        pipeline.sinks, pipeline.name, pipeline.named = sinks, name or "pipeline", name is not None
        pipeline.parts = ()
        return pipeline

    def arranged(self, results: Mapping[Step, Any]) -> R:
        """The results of the sinks, in the shape in which the pipeline was put together."""
        arranged: Any
        if not self.parts:
            arranged = results[self.sinks[0]]
        elif len(self.parts) == 1:
            arranged = self.parts[0].arranged(results)
        else:
            arranged = tuple(part.arranged(results) for part in self.parts)
        result: R = arranged
        return result

    def steps(self) -> dict[str, Step]:
        """Every step under its unique name, sources first. A repeated name gets a number: ``Map``, ``Map-2``."""
        named: dict[str, Step] = {}
        for step in self._in_order():
            name, number = step.label, 1
            while name in named:
                number += 1
                name = f"{step.label}-{number}"
            named[name] = step
        return named

    def _in_order(self) -> Iterator[Step]:
        done: set[Step] = set()
        for sink in self.sinks:
            pending = [(sink, False)]
            while pending:
                step, ready = pending.pop()
                if step in done:
                    continue
                if ready:
                    done.add(step)
                    yield step
                    continue
                pending.append((step, True))
                pending += [(source, False) for source, _ in reversed(step.inputs)]

    def describe(self) -> Graph:
        """The graph as data."""
        named = self.steps()
        names = {step: name for name, step in named.items()}
        infos: list[StepInfo] = []
        for name, step in named.items():
            inputs = tuple(names[source] for source, _ in step.inputs)
            infos.append(StepInfo(name, type(step.element).__name__, _kind(step), inputs))
            if isinstance(step.element, Flow):
                infos += (
                    StepInfo(f"{name}/{side}", type(sink).__name__, "sink", (name,))
                    for side, sink in step.element.sides().items()
                )
        return Graph(self.name, tuple(infos))

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart, which GitHub and most documentation tools draw.

        >>> from streamflow import Source
        >>> from streamflow.connectors import Collect
        >>> print(Source([1]).to(Collect()).to_mermaid())
        flowchart LR
            s0(["Source"])
            s1[/"Collect"/]
            s0 --> s1
        """
        graph = self.describe()
        shapes = {"source": '(["{}"])', "sink": '[/"{}"/]', "junction": '{{{{"{}"}}}}', "flow": '["{}"]'}
        ids = {step.name: f"s{number}" for number, step in enumerate(graph.steps)}
        boxes = [f"    {ids[s.name]}{shapes[s.kind].format(_escaped(s.name))}" for s in graph.steps]
        arrows = [f"    {ids[source]} --> {ids[target]}" for source, target in graph.edges]
        return "\n".join(["flowchart LR", *boxes, *arrows])

    async def run(self, **options: Unpack[RunOptions]) -> R:
        """Run to the end of the source and return the sink's result; of ``Pipeline(p1, p2)`` a tuple of both results.

        Raises `PlanError` before anything starts if the pipeline cannot run as asked, else the first failure.
        Cancelling the call stops the pipeline.
        """
        async with self.start(**options) as running:
            return await running.wait()

    def start(self, **options: Unpack[RunOptions]) -> AbstractAsyncContextManager[Running[R]]:
        """Run in the background: ``async with pipeline.start() as running``.

        ``running`` has ``stats()``, ``drain()``, ``stop()`` and ``wait()``. Leaving the block drains what still runs;
        leaving it by an exception stops it.
        """
        unknown = set(options) - RunOptions.__annotations__.keys()
        if unknown:
            raise ConfigurationError(
                f"unknown option {sorted(unknown)[0]!r}: the options are {', '.join(RunOptions.__annotations__)}"
            )
        from streamflow.engine.runner import started

        return started(self, options)


def _kind(step: Step) -> str:
    if isinstance(step.element, Source):
        return "source"
    if isinstance(step.element, Sink):
        return "sink"
    return "flow" if isinstance(step.element, Flow) and len(step.inputs) == 1 else "junction"


def _escaped(label: str) -> str:
    return label.replace('"', "#quot;")
