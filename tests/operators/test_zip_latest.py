"""`zip_latest`: the latest of each, at each element."""

from __future__ import annotations

from datetime import timedelta
from itertools import count, groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, EventTime, GuaranteeError, Skip, Source, StepError
from streamflow.connectors import Collect, Discard
from streamflow.operators import Count, Filter, Keyed, Take, TumblingWindow, merge, zip_latest
from tests.support import Acknowledging, Chunked, Recorder, restarts, run

arrivals = st.lists(st.integers(0, 2), max_size=20)


def sources(arrivals: list[int], *, chunked: bool = False) -> list[Chunked]:
    """Element *i* comes at *i*.5, or with those of its source that follow at once."""
    chunks: list[list[list[int]]] = [[], [], []]
    for number, group in groupby(range(len(arrivals)), key=arrivals.__getitem__):
        own = list(group)
        chunks[number] += [own] if chunked else [[time] for time in own]
    return [
        Chunked(own, f"s{number}", times=[chunk[0] + 0.5 for chunk in own])
        for number, own in enumerate(chunks)
    ]


def modelled(arrivals: list[int]) -> list[list[int]]:
    latest: dict[int, int] = {}
    out = []
    for time, number in enumerate(arrivals):
        latest[number] = time
        if len(latest) == 3:
            out.append([latest[each] for each in range(3)])
    return out


def together(*values: Any) -> list[Any]:
    return [*values]


@given(arrivals, st.booleans())
def test_it_emits_at_each_element_once_all_have_one(arrivals: list[int], chunked: bool) -> None:
    pipeline = zip_latest(together, *sources(arrivals, chunked=chunked)).to(Collect())
    assert run(pipeline) == modelled(arrivals)
    assert run(pipeline) == modelled(arrivals)


@given(arrivals)
def test_a_restart_from_any_checkpoint_goes_on(arrivals: list[int]) -> None:
    def build() -> tuple[Any, Recorder, Chunked]:
        clock, sink = Chunked([["tick"]], "clock", times=[4.5]), Recorder()
        latest: Any = zip_latest(together, *sources(arrivals), state=int)
        return merge(latest, clock.via(Filter(lambda _: False))).to(sink), sink, clock

    assert restarts(build) >= 4


def test_a_failing_function_goes_to_the_policy() -> None:
    left, right = Chunked([[1]], "left", times=[1]), Chunked([[1], [0], [2]], "right", times=[2, 3, 4])
    ratio = zip_latest(lambda a, b: a / b, left, right)
    with pytest.raises(StepError, match="step 'zip_latest': failed on 0: ZeroDivisionError"):
        run(ratio.to(Collect()))
    assert run(ratio.to(Collect()), on_error=Skip()) == [1, 0.5]


def test_it_ends_early_when_an_input_ends_without_an_element() -> None:
    assert run(zip_latest(together, Source(count), Source[int]([])).to(Collect())) == []
    taken = zip_latest(together, Source(count), Source([1])).via(Take(2))
    assert len(run(taken.to(Collect()))) == 2


def test_it_remembers() -> None:
    latest = zip_latest(together, Acknowledging(3, name="a"), Acknowledging(3, name="b")).to(Discard())
    with pytest.raises(GuaranteeError, match="step 'zip_latest'"):
        run(latest)


def test_messages_are_acknowledged() -> None:
    source = Acknowledging(9, [4, 1])
    run(zip_latest(together, source, Source([1])).to(Discard()), delivery="best_effort")
    assert sorted(source.ledger.acked) == list(range(9))


def test_watermarks_go_through() -> None:
    time = EventTime[Any](max)
    left, right = (
        Chunked([[1]], "left", times=[1]),
        Chunked([[2], [12], [13], [25]], "right", times=[2, 3, 4, 5]),
    )
    window = Keyed(lambda pair: pair[0], TumblingWindow(timedelta(seconds=10), time=time, into=Count()))
    result = run(zip_latest(together, left, right).via(window).to(Collect()))
    assert [(r.value.start, r.value.value) for r in result] == [(0, 1), (10, 2), (20, 1)]


def test_mistakes() -> None:
    wrong: Any = 3
    any_zip: Any = zip_latest
    with pytest.raises(ConfigurationError, match=r"zip_latest\(\) needs at least two streams"):
        any_zip(together, Source([1]))
    with pytest.raises(ConfigurationError, match="zip_latest takes streams, not 3"):
        zip_latest(together, Source([1]), wrong)
    with pytest.raises(ConfigurationError, match="zip_latest takes a function, not 3"):
        zip_latest(wrong, Source([1]), Source([1]))
