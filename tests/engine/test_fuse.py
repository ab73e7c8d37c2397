"""Fused runs of stateless steps do what the plain Python composition does, whatever fails, however it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ErrorPolicy, Fail, Observer, Pipeline, Skip, Source, StepError
from streamflow.connectors import Collect
from streamflow.engine import step as step_module
from streamflow.operators import Filter, FlatMap, Inspect, Keyed, Map, PassThrough
from tests.support import Chunked, Recorder, chain, cut, run, sizes

RAISES: list[type[BaseException]] = [
    ValueError,
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
    GeneratorExit,
    RuntimeError,
]
FATAL: list[type[BaseException]] = [KeyboardInterrupt, SystemExit]


@frozen
class Op:
    """One generated step: its operator, a number that varies it, the remainder on which it fails, its own policy."""

    kind: str
    number: int
    fails: int
    error: type[BaseException]
    own: bool

    def call(self, x: int) -> Any:
        if abs(x) % 11 == self.fails:
            raise self.error
        match self.kind:
            case "map":
                return x * 3 + self.number
            case "filter":
                return (x + self.number) % 3
            case "flat_map":
                return self.several(x)
            case _:
                return None

    def several(self, x: int) -> Iterator[int]:
        for i in range(abs(x) % (self.number + 1)):
            if i == self.fails:
                raise self.error
            yield x + i

    def flow(self, policy: ErrorPolicy) -> Any:
        kinds: dict[str, Any] = {"map": Map, "filter": Filter, "flat_map": FlatMap, "inspect": Inspect}
        own = policy if self.own else None
        return kinds[self.kind](self.call, on_error=own) if self.kind in kinds else PassThrough(on_error=own)


ops = st.builds(
    Op,
    kind=st.sampled_from(["map", "filter", "flat_map", "inspect", "pass"]),
    number=st.integers(0, 4),
    fails=st.integers(1, 30),
    error=st.sampled_from(RAISES),
    own=st.booleans(),
)
chains = st.lists(ops, max_size=6)
values = st.lists(st.integers(-40, 40), max_size=40)


class Model:
    """The plain Python composition, one element after the other. Like the engine, it notes what fails and goes on."""

    def __init__(self, chain: list[Op]) -> None:
        self.chain = chain
        self.events: list[Any] = []
        """Results, and ("failed", step) where a step failed."""

    def feed(self, x: int, place: int = 0) -> None:
        if place == len(self.chain):
            self.events.append(x)
            return
        op = self.chain[place]
        try:
            result: Any = None if op.kind == "pass" else op.call(x)
            if op.kind == "flat_map":
                for y in result:
                    self.feed(y, place + 1)
        except BaseException:
            self.events.append(("failed", f"{op.kind}-{place}"))
            return
        if op.kind == "map":
            self.feed(result, place + 1)
        elif op.kind in ("inspect", "pass") or (op.kind == "filter" and result):
            self.feed(x, place + 1)


def modelled(chain: list[Op], values: list[int]) -> list[Any]:
    model = Model(chain)
    for value in values:
        model.feed(value)
    return model.events


def built(chain: list[Op], source: Source[Any], policy: ErrorPolicy) -> tuple[Pipeline[Any], Recorder]:
    stream: Any = source
    for place, op in enumerate(chain):
        stream = stream.via(op.flow(policy), name=f"{op.kind}-{place}")
    sink = Recorder()
    return stream.to(sink, name="chain"), sink


class Failures(Observer):
    def __init__(self) -> None:
        self.steps: list[str] = []

    def failed(self, error: StepError, absorbed: bool) -> None:
        assert absorbed
        self.steps.append(error.step)


@given(chains, values, sizes)
def test_a_chain_equals_the_plain_composition_and_skips_what_fails(
    chain: list[Op], values: list[int], sizes: list[int]
) -> None:
    events = modelled(chain, values)
    pipeline, _ = built(chain, Chunked(cut(values, sizes)), Skip())
    failures = Failures()
    result = run(pipeline, on_error=Skip(), observers=[failures])
    assert result == [event for event in events if isinstance(event, int)]
    assert sorted(failures.steps) == sorted(event[1] for event in events if isinstance(event, tuple))


@given(chains, values, sizes)
def test_under_fail_what_came_before_is_delivered_and_the_error_says_where(
    chain: list[Op], values: list[int], sizes: list[int]
) -> None:
    events = modelled(chain, values)
    first = next((place for place, event in enumerate(events) if isinstance(event, tuple)), None)
    pipeline, sink = built(chain, Chunked(cut(values, sizes)), Fail())
    if first is None:
        assert run(pipeline) == events
        return
    with pytest.raises(StepError) as caught:
        run(pipeline)
    assert sink.values == events[:first]
    error = caught.value
    assert (error.pipeline, error.step) == ("chain", events[first][1])
    assert type(error.cause) is chain[int(error.step.rpartition("-")[2])].error
    assert error.__cause__ is error.cause
    assert error.element is not None and repr(error.element) in str(error)
    assert "'chain'" in str(error) and repr(error.step) in str(error)


@given(chains, values, sizes)
def test_turns_of_the_loop_in_the_middle_of_a_chunk_change_nothing(
    chain: list[Op], values: list[int], sizes: list[int]
) -> None:
    """Every element is a time slice of its own, and the loop gets a turn behind each."""
    expected = [event for event in modelled(chain, values) if isinstance(event, int)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module, "SLICE", -1.0)
        pipeline, _ = built(chain, Chunked(cut(values, sizes)), Skip())
        assert run(pipeline, on_error=Skip()) == expected


@given(chains, values, sizes)
def test_a_chain_inside_keyed_keeps_each_output_with_its_key(
    chain: list[Op], values: list[int], sizes: list[int]
) -> None:
    def outputs(value: int) -> list[Any]:
        return [event for event in modelled(chain, [value]) if isinstance(event, int)]

    expected = [(value % 3, output) for value in values for output in outputs(value)]
    flow: Any = PassThrough()
    for op in chain:
        flow = flow.via(op.flow(Skip()))
    keyed: Keyed[Any, Any, Any] = Keyed(lambda x: x % 3, flow, on_error=Skip())
    assert run(Chunked(cut(values, sizes)).via(keyed).to(Collect())) == expected


@pytest.mark.parametrize("error", RAISES + FATAL)
@pytest.mark.parametrize("operator", [Map, Filter, FlatMap, Inspect])
def test_whatever_a_function_raises_fails_the_pipeline_and_truncates_nothing_silently(
    error: type[BaseException], operator: Any
) -> None:
    def f(x: int) -> Any:
        if x == 2:
            raise error
        return [x]

    sink = Recorder()
    with pytest.raises(StepError) as caught:
        run(Source(range(5)).via(operator(f)).to(sink))
    assert type(caught.value.cause) is error
    assert caught.value.element == 2
    assert len(sink.values) == 2


@pytest.mark.parametrize("error", FATAL)
def test_an_interrupt_or_exit_in_a_step_is_never_skipped(error: type[BaseException]) -> None:
    def f(x: int) -> int:
        raise error

    with pytest.raises(StepError, match=error.__name__):
        run(Source(range(5)).via(Map(f)).to(Collect()), on_error=Skip())


def test_no_element_is_processed_twice_when_another_one_fails() -> None:
    calls: list[int] = []

    def f(x: int) -> int:
        calls.append(x)
        return 1 // (x % 5)

    run(Source(range(20)).via(Map(f)).to(Collect()), on_error=Skip())
    assert calls == list(range(20))


def test_a_huge_flat_map_is_handed_on_in_bounded_chunks() -> None:
    made = 0
    most = 0

    def several(n: int) -> Iterator[int]:
        nonlocal made
        for i in range(n):
            made += 1
            yield i

    taken = 0

    def take(x: int) -> None:
        nonlocal taken, most
        most = max(most, made - taken)
        taken += 1

    run(Source([50_000]).via(FlatMap(several)).via(Inspect(take)).to(Collect()))
    assert taken == 50_000
    assert most <= 1024


def test_what_an_iterable_gave_before_it_failed_has_been_emitted() -> None:
    def several(x: int) -> Iterator[int]:
        yield x
        yield 10 // x

    result = run(Source([1, 0, 5]).via(FlatMap(several)).to(Collect()), on_error=Skip())
    assert result == [1, 10, 0, 5, 2]


def test_a_result_that_fails_only_when_it_is_looked_at_is_that_steps_failure() -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise ValueError("no truth")

    with pytest.raises(StepError, match=r"step 'odd'.*on 1: ValueError: no truth"):
        run(Source([1]).via(Map(lambda x: x)).via(Filter(lambda x: Odd()), name="odd").to(Collect()))


def test_what_is_not_iterable_is_the_failure_of_flat_map() -> None:
    with pytest.raises(StepError, match=r"step 'FlatMap' failed on 1: TypeError|step 'FlatMap': failed on 1"):
        run(Source([1]).via(chain(FlatMap(lambda x: x))).to(Collect()))
