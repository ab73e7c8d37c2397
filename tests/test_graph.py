"""Graphs: what branches and merges lose, double, reorder or block: nothing. And how a graph is described."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from streamflow import ConfigurationError, Flow, Pipeline, PlanError, Sink, Source
from streamflow.connectors import Collect, Discard, Into
from streamflow.operators import (
    Batch,
    Filter,
    FlatMap,
    Keyed,
    Map,
    MapAsync,
    PassThrough,
    Sum,
    Take,
    fan_out,
    merge,
    split,
)
from tests.support import Chunked, cut, run, sizes


@define
class Grown:
    """A graph that is grown from generated choices, beside lists of what each of its open streams must carry."""

    draw: Any
    open: list[tuple[Any, list[int]]] = field(factory=list)

    def source(self, number: int) -> None:
        values = list(range(number * 1000, number * 1000 + self.draw(st.integers(0, 25))))
        self.open.append((Chunked(cut(values, self.draw(sizes)), f"source {number}"), values))

    def grow(self) -> None:
        stream, values = self.open.pop(self.draw(st.integers(0, len(self.open) - 1)))
        match self.draw(
            st.sampled_from(["split", "fan_out", "twice", "merge", "slow", "unordered", "map", "batch"])
        ):
            case "split":
                odd, even = split(stream, lambda x: x % 2)
                self.open += [(odd, [x for x in values if x % 2]), (even, [x for x in values if not x % 2])]
            case "fan_out":
                self.open += [(branch, values) for branch in fan_out(stream, self.draw(st.integers(1, 3)))]
            case "twice":
                self.open += [(stream.via(PassThrough()), values), (stream, values)]
            case "merge" if self.open:
                other, more = self.open.pop(self.draw(st.integers(0, len(self.open) - 1)))
                self.open.append((merge(stream, other), values + more))
            case "slow":
                self.open.append(
                    (stream.via(MapAsync(slowly, concurrency=self.draw(st.integers(1, 4)))), values)
                )
            case "unordered":
                self.open.append((stream.via(MapAsync(slowly, concurrency=3, ordered=False)), values))
            case "batch":
                self.open.append((stream.via(Batch(3)).via(FlatMap(list)), values))
            case _:
                self.open.append(
                    (stream.via(Map(lambda x: x)).via(Filter(lambda x: x % 7)), sevenths(values))
                )


def sevenths(values: list[int]) -> list[int]:
    return [x for x in values if x % 7]


async def slowly(x: int) -> int:
    await asyncio.sleep((x * 7 % 5) / 10)
    return x


@given(st.data())
@settings(max_examples=100)
def test_no_graph_loses_or_doubles_or_stands_still(data: Any) -> None:
    grown = Grown(data.draw)
    for number in range(data.draw(st.integers(1, 3))):
        grown.source(number)
    for _ in range(data.draw(st.integers(0, 8))):
        grown.grow()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamflow.engine.channel.Channel.is_full", tiny)
        results = run(Pipeline(*(stream.to(Collect()) for stream, _ in grown.open)))
    results = results if len(grown.open) > 1 else (results,)
    assert [Counter(result) for result in results] == [Counter(values) for _, values in grown.open]


def tiny(channel: Any, port: int = 0) -> bool:
    """Channels that are full with a single item: whatever can block, blocks."""
    return len(channel._queues[port]) >= 1


@given(sizes, sizes, st.booleans())
def test_a_merge_keeps_the_order_within_each_stream(left: list[int], right: list[int], is_slow: bool) -> None:
    a, b = Chunked(cut(range(20), left), "a"), Chunked(cut(range(100, 120), right), "b")
    result = run(merge(a.via(MapAsync(slowly)) if is_slow else a, b).to(Collect()))
    assert [x for x in result if x < 100] == list(range(20))
    assert [x for x in result if x >= 100] == list(range(100, 120))


def test_a_slow_branch_holds_its_sibling_back_only_as_far_as_its_channel_is_full() -> None:
    fast: list[int] = []

    async def stuck(x: int) -> int:
        await asyncio.sleep(1)
        return len(fast)

    left, right = fan_out(Source(range(3000)), 2)
    slow = left.via(Take(1)).via(MapAsync(stuck)).to(Collect())
    (seen,), _ = run(Pipeline(slow, right.via(Map(fast.append)).to(Discard())))
    assert seen == 3000


def test_a_source_used_twice_is_read_once() -> None:
    reads = 0

    def items() -> Any:
        nonlocal reads
        reads += 1
        return [1, 2, 3]

    source = Source(items)
    pipeline = Pipeline(source.to(Collect()), source.via(Map(lambda x: -x)).to(Collect()))
    assert run(pipeline) == ([1, 2, 3], [-1, -2, -3])
    assert reads == 1


def test_a_stream_merged_with_itself_comes_twice() -> None:
    source = Source([1, 2])
    assert sorted(run(merge(source, source).to(Collect()))) == [1, 1, 2, 2]


def test_the_results_have_the_shape_in_which_the_pipeline_was_put_together() -> None:
    source = Source([3, 4])
    one: Pipeline[Any] = source.to(Collect())
    two: Pipeline[Any] = source.to(Into(Sum()))
    three: Pipeline[Any] = source.to(Discard())
    assert run(Pipeline(three, Pipeline(one, two))) == (2, ([3, 4], 7))
    assert run(Pipeline(Pipeline(one))) == [3, 4]
    assert run(Pipeline(one, one)) == ([3, 4], [3, 4])


def test_take_ends_only_its_own_branch() -> None:
    left, right = fan_out(Source(range(5000)), 2)
    assert run(Pipeline(left.via(Take(2)).to(Collect()), right.to(Discard()))) == ([0, 1], 5000)


def test_an_endless_source_ends_when_every_branch_has_enough() -> None:
    left, right = fan_out(Source(count), 2)
    slow = right.via(MapAsync(slowly)).via(Take(3)).to(Collect())
    assert run(Pipeline(left.via(Take(2)).to(Collect()), slow)) == ([0, 1], [0, 1, 2])
    joined = merge(Source(count), Source(lambda: count(10)))
    assert len(run(joined.via(Take(7)).to(Collect()))) == 7


def test_a_take_behind_a_merge_of_an_ended_and_a_silent_source_ends_both() -> None:
    silent = Chunked([[1]], "silent", ends=False)
    assert sorted(run(merge(silent, Source([2])).via(Take(2)).to(Collect()))) == [1, 2]


# Mistakes


def test_a_branch_without_a_sink_is_named() -> None:
    odd, even = split(Source([1]), lambda x: x % 2)
    with pytest.raises(
        PlanError, match=r"step 'split': the branch of the elements for which it is false leads to no sink"
    ):
        run(odd.to(Collect()))
    first, _, third = fan_out(Source([1]), 3)
    with pytest.raises(PlanError, match="output 2 of 3 leads to no sink"):
        run(Pipeline(first.to(Collect()), third.to(Collect())))
    run(Pipeline(even.to(Collect()), odd.to(Collect())))


STREAM: Any = Source([1])
SOURCE: Any = Source
PIPELINE: Any = Pipeline
MERGE: Any = merge
SPLIT: Any = split
FAN_OUT: Any = fan_out


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda: STREAM.via(Collect()), r"via\(\) takes an operator such as Map"),
        (lambda: STREAM.via(PassThrough), r"did you mean PassThrough\(\.\.\.\)"),
        (lambda: STREAM.via(None), r"via\(\) takes an operator"),
        (lambda: STREAM.to(PassThrough()), r"to\(\) takes a sink such as Collect"),
        (lambda: STREAM.to(Collect), r"did you mean Collect\(\.\.\.\)"),
        (lambda: STREAM.to(Collect()).start(speed=3), "unknown option 'speed': the options are checkpoint"),
        (lambda: SOURCE(3), "Source takes an iterable"),
        (lambda: SOURCE(None), "Source takes an iterable"),
        (lambda: PIPELINE(), "needs at least one closed stream"),
        (lambda: PIPELINE(STREAM), r"close it with \.to\(sink\)"),
        (
            lambda: PIPELINE(STREAM.to(Collect(), "a"), STREAM.to(Collect(), "b")),
            r"say Pipeline\(…, name=…\)",
        ),
        (lambda: MERGE(), "at least one stream"),
        (lambda: MERGE([1]), "merge takes streams"),
        (lambda: MERGE(STREAM.to(Collect())), "merge takes streams"),
        (lambda: SPLIT(STREAM, None), "split takes a function"),
        (lambda: SPLIT(STREAM, slowly), "plain function"),
        (lambda: SPLIT([1], bool), "split takes streams"),
        (lambda: FAN_OUT(STREAM, 0), "fan_out's n must be 1 or more"),
        (lambda: FAN_OUT(STREAM, True), "fan_out's n must be a whole number"),
        (lambda: FAN_OUT(STREAM, 1.5), "fan_out's n must be a whole number"),
    ],
)
def test_mistakes_are_refused_where_they_are_written(mistake: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        mistake()


def test_a_flow_or_sink_that_does_not_say_how_it_runs_is_named() -> None:
    class Odd(Flow[int, int]):
        pass

    class Bad(Sink[int, int]):
        pass

    with pytest.raises(PlanError, match=r"step 'Odd': Odd does not say how it runs: define transform\(\)"):
        run(Source([1]).via(Odd()).to(Collect()))
    with pytest.raises(Exception, match=r"step 'Bad'.*Bad does not say how it writes: define open\(\)"):
        run(Source([1]).to(Bad()))


# Descriptions


def example() -> Pipeline[Any]:
    odd, even = split(Source([1], name="numbers"), lambda x: x % 2)
    joined = merge(odd.via(Map(str), name='to "text"'), even.via(Map(str)))
    return joined.via(Keyed(len, Batch(2))).to(Collect(), name="example", step="results")


def test_a_graph_as_data() -> None:
    graph = example().describe()
    assert graph.pipeline == "example"
    assert [(s.name, s.type, s.kind, s.inputs) for s in graph.steps] == [
        ("numbers", "Source", "source", ()),
        ("split", "Distribute", "junction", ("numbers",)),
        ('to "text"', "Map", "flow", ("split",)),
        ("Map", "Map", "flow", ("split",)),
        ("merge", "Merge", "junction", ('to "text"', "Map")),
        ("Keyed", "Keyed", "flow", ("merge",)),
        ("results", "Collect", "sink", ("Keyed",)),
    ]
    assert ("merge", "Keyed") in graph.edges
    assert len(graph.edges) == 7


def test_a_graph_as_a_picture() -> None:
    assert example().to_mermaid().splitlines() == [
        "flowchart LR",
        '    s0(["numbers"])',
        '    s1{{"split"}}',
        '    s2["to #quot;text#quot;"]',
        '    s3["Map"]',
        '    s4{{"merge"}}',
        '    s5["Keyed"]',
        '    s6[/"results"/]',
        "    s0 --> s1",
        "    s1 --> s2",
        "    s1 --> s3",
        "    s2 --> s4",
        "    s3 --> s4",
        "    s4 --> s5",
        "    s5 --> s6",
    ]


def test_repeated_names_get_numbers() -> None:
    stream = Source([1]).via(PassThrough()).via(PassThrough()).via(PassThrough(), name="PassThrough-2")
    names = [step.name for step in stream.to(Collect()).describe().steps]
    assert len(set(names)) == len(names) == 5


def test_describing_reads_nothing_and_a_pipeline_runs_again() -> None:
    pipeline = example()
    pipeline.describe()
    pipeline.to_mermaid()
    assert run(pipeline) == run(pipeline)
