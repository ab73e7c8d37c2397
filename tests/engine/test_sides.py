"""Side outputs: what leaves a step by the side is covered by receipts and barriers like everything else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamflow import EventTime, Pipeline, Source
from streamflow.connectors import Collect
from streamflow.operators import Count, Keyed, Map, Take, TumblingWindow
from tests.support import Acknowledging, Chunked, Confirming, Recorder, cut, restarts, run, sizes

events = st.lists(st.integers(0, 60), max_size=30)


def late(values: list[int]) -> list[int]:
    """Those whose window of 10 is over when they come, without any disorder allowed."""
    top, found = -1, []
    for value in values:
        if value - value % 10 + 10 <= top:
            found.append(value)
        top = max(top, value)
    return found


def windows(sink: Any, time: Any = lambda x: x) -> Any:
    return TumblingWindow(timedelta(seconds=10), time=EventTime(time), into=Count(), late=sink)


@given(events, sizes, st.booleans())
def test_late_elements_come_to_their_sink_in_order(values: list[int], sizes: list[int], keyed: bool) -> None:
    aside = Recorder()
    flow: Any = Keyed(lambda x: x % 3, windows(aside)) if keyed else windows(aside)
    counted = run(Chunked(cut(values, sizes)).via(flow).to(Collect()))
    assert aside.values == late(values)
    assert sum((w.value if keyed else w).value for w in counted) == len(values) - len(aside.values)


@given(st.permutations(range(0, 60, 4)), sizes, st.booleans())
def test_a_late_message_is_acknowledged_when_its_sink_has_confirmed_it(
    order: list[int], sizes: list[int], lineage: bool
) -> None:
    source = Acknowledging(len(order), sizes)
    aside = Confirming(source, delay=3.0)
    stream: Any = source.via(Take(100)) if lineage else source
    run(
        stream.via(windows(aside, lambda number: order[number])).to(Collect()),
        delivery="best_effort",
    )
    positions = {value: position for position, value in enumerate(order)}
    expected = [positions[value] for value in late(order)]
    assert aside.values == expected
    source.ledger.check(deliver=expected)


@given(events, sizes)
def test_barriers_reach_a_side_output(values: list[int], sizes: list[int]) -> None:
    """After a restart from any checkpoint, windows and late elements are those of the run without interruption."""
    chunks = cut(values, sizes)

    def build() -> tuple[Pipeline[Any], Recorder, Chunked]:
        source = Chunked(chunks, times=[2.0 * n for n in range(len(chunks))])
        sink, aside = Recorder(), Recorder()
        asides.append(aside)
        return source.via(windows(aside)).to(sink), sink, source

    asides: list[Recorder] = []
    checkpoints = restarts(build)
    whole, *rests = asides
    assert whole.values == late(values)
    for number, rest in enumerate(rests):
        before = whole.values[: whole.marks[number]] if number < checkpoints else whole.values
        assert before + rest.values == whole.values


def test_the_end_of_the_main_branch_ends_the_side() -> None:
    aside = Recorder()
    pipeline = Source([1, 12, 2, 23, 3, 34]).via(windows(aside)).via(Take(1)).to(Collect())
    assert len(run(pipeline)) == 1
    assert aside.values[:1] == [2]


def test_a_side_output_is_part_of_the_description() -> None:
    pipeline = Source([1]).via(Keyed(lambda x: x, windows(Recorder()))).via(Map(str)).to(Collect())
    (info,) = [step for step in pipeline.describe().steps if step.type == "Recorder"]
    assert (info.name, info.kind, info.inputs) == ("Keyed/TumblingWindow/late", "sink", ("Keyed",))
    assert "Keyed/TumblingWindow/late" in pipeline.to_mermaid()
