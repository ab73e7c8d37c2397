"""Every operator refuses arguments that make no sense where they are written, and says what to do."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from streamflow import Checkpoint, ConfigurationError, EventTime, Fail, Skip, Source
from streamflow.connectors import Collect, ForEach, Into, QueueSink, QueueSource
from streamflow.operators import (
    Batch,
    Count,
    Filter,
    FlatMap,
    Flatten,
    Fold,
    Inspect,
    Keyed,
    Map,
    MapAsync,
    Mean,
    PassThrough,
    Reduce,
    Sum,
    Take,
    Throttle,
    TumblingWindow,
)
from streamflow.operators import Skip as SkipFirst
from tests.support import run

NAN, INF = float("nan"), float("inf")


async def coroutine(x: Any) -> Any:
    return x


class AsyncCallable:
    async def __call__(self, x: Any) -> Any:
        return x


def plain(*args: Any) -> Any:
    return args


FUNCTIONS: dict[str, Any] = {
    "Map": Map,
    "Filter": Filter,
    "FlatMap": FlatMap,
    "Inspect": Inspect,
    "Fold": lambda f: Fold(0, f),
    "Reduce": Reduce,
    "Keyed": lambda f: Keyed(f, PassThrough()),
    "Sum": Sum,
    "Mean": Mean,
    "ForEach": ForEach,
}


@pytest.mark.parametrize("operator", FUNCTIONS)
@pytest.mark.parametrize("f", [1, "name", [1]], ids=repr)
def test_what_is_no_function_is_refused(operator: str, f: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"takes a function, not"):
        FUNCTIONS[operator](f)


@pytest.mark.parametrize("operator", [name for name in FUNCTIONS if name not in ("Sum", "Mean")])
def test_none_is_no_function(operator: str) -> None:
    with pytest.raises(ConfigurationError, match=r"takes a function, not None"):
        FUNCTIONS[operator](None)


@pytest.mark.parametrize("operator", FUNCTIONS)
@pytest.mark.parametrize(
    "f", [coroutine, AsyncCallable(), partial(coroutine)], ids=["function", "object", "partial"]
)
def test_a_coroutine_function_is_refused_where_it_would_not_be_awaited(operator: str, f: Any) -> None:
    with pytest.raises(ConfigurationError, match="plain function; for a coroutine function use .*MapAsync"):
        FUNCTIONS[operator](f)


COUNTS: dict[str, Any] = {
    "Batch's size": Batch,
    "Throttle's elements": lambda n: Throttle(n, 1),
    "MapAsync's concurrency": lambda n: MapAsync(coroutine, concurrency=n),
    "Map's concurrency": lambda n: Map(plain, executor="thread", concurrency=n),
}


@pytest.mark.parametrize("operator", COUNTS)
@pytest.mark.parametrize("n", [0, -1, 1.0, True, "3", NAN, Batch], ids=repr)
def test_a_count_is_a_whole_number_from_one(operator: str, n: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{operator} must be (a whole number|1 or more), not"):
        COUNTS[operator](n)


@pytest.mark.parametrize("operator", [Take, SkipFirst])
@pytest.mark.parametrize("n", [-1, 1.0, True, None, "3"], ids=repr)
def test_take_and_skip_take_a_whole_number_from_zero(operator: Any, n: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{operator.__name__}'s n must be (a whole number|0 or more), not"
    ):
        operator(n)
    operator(0)


DURATIONS: dict[str, Any] = {
    "Batch's within": lambda t: Batch(2, within=t),
    "Throttle's per": lambda t: Throttle(1, per=t),
    "MapAsync's timeout": lambda t: MapAsync(coroutine, timeout=t),
    "TumblingWindow's size": TumblingWindow,
    "idle_after": lambda t: EventTime(plain, idle_after=t),
    "Checkpoint's every": lambda t: Checkpoint(every=t),
}


@pytest.mark.parametrize("operator", DURATIONS)
@pytest.mark.parametrize(
    "t", [0, -1, NAN, INF, True, "1s", timedelta(0), timedelta(seconds=-1), timedelta], ids=repr
)
def test_a_duration_is_more_than_zero_and_finite(operator: str, t: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{operator} must be"):
        DURATIONS[operator](t)


def test_out_of_order_may_be_zero_and_not_less() -> None:
    EventTime(plain, out_of_order=timedelta(0))
    with pytest.raises(ConfigurationError, match="out_of_order must be zero or more"):
        EventTime(plain, out_of_order=timedelta(seconds=-1))


POLICIES: dict[str, Any] = {
    "Map": partial(Map, plain),
    "Filter": partial(Filter, plain),
    "FlatMap": partial(FlatMap, plain),
    "Flatten": Flatten,
    "Inspect": partial(Inspect, plain),
    "PassThrough": PassThrough,
    "MapAsync": partial(MapAsync, coroutine),
    "Fold": partial(Fold, 0, plain),
    "Reduce": partial(Reduce, plain),
    "Take": partial(Take, 1),
    "Skip": partial(SkipFirst, 1),
    "Batch": partial(Batch, 1),
    "Throttle": partial(Throttle, 1, 1),
    "Keyed": partial(Keyed, plain, PassThrough()),
    "TumblingWindow": partial(TumblingWindow, timedelta(1)),
    "Into": partial(Into, Count()),
}


@pytest.mark.parametrize("operator", POLICIES)
@pytest.mark.parametrize("policy", [Skip, Fail, "skip", 1], ids=repr)
def test_a_policy_is_an_instance(operator: str, policy: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"{operator}: on_error must be a policy such as Fail\(\)"):
        POLICIES[operator](on_error=policy)
    POLICIES[operator](on_error=Skip())


ANY_WINDOW: Any = TumblingWindow
ANY_KEYED: Any = Keyed
ANY_MAP: Any = Map
ANY_THROTTLE: Any = Throttle
ANY_INTO: Any = Into
ANY_QUEUE: Any = QueueSource


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (
            lambda: ANY_WINDOW(timedelta(1), into=Count),
            r"'s into takes an aggregator.*did you mean Count\(\.\.\.\)",
        ),
        (lambda: ANY_WINDOW(timedelta(1), into=sum), "takes an aggregator such as"),
        (lambda: ANY_WINDOW(timedelta(1), time=plain), r"must be EventTime\(extract\) or ProcessingTime\(\)"),
        (lambda: ANY_INTO(Sum), r"Into takes an aggregator.*did you mean Sum\(\.\.\.\)"),
        (lambda: EventTime(None), "EventTime's extract must be callable"),  # type: ignore[arg-type]
        (lambda: ANY_KEYED(plain, MapAsync(coroutine)), "MapAsync cannot run inside Keyed"),
        (lambda: ANY_KEYED(plain, Map(plain, executor="thread")), "Map cannot run inside Keyed"),
        (lambda: ANY_KEYED(plain, Keyed(plain, PassThrough())), "Keyed cannot run inside Keyed"),
        (lambda: ANY_KEYED(plain, PassThrough), "takes an operator"),
        (lambda: ANY_KEYED(plain, plain), "takes an operator"),
        (lambda: ANY_MAP(plain, executor="fiber"), "Map's executor must be 'thread' or 'process'"),
        (lambda: ANY_MAP(plain, concurrency=3), "Map's concurrency needs an executor"),
        (lambda: ANY_MAP(lambda x: x, executor="process"), "define a function at module level"),
        (lambda: ANY_MAP(local(), executor="process"), "define a function at module level"),
        (lambda: ANY_THROTTLE(1, 1, "drop"), "Throttle's mode must be 'backpressure' or 'discard'"),
        (lambda: ANY_QUEUE([1]), "QueueSource takes an asyncio.Queue"),
        (lambda: QueueSink([1]), "QueueSink takes an asyncio.Queue"),  # type: ignore[arg-type]
    ],
)
def test_other_mistakes_are_refused_with_a_hint(mistake: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        mistake()


def local() -> Any:
    def f(x: Any) -> Any:
        return x

    return f


def test_the_good_ones_are_good() -> None:
    assert run(Source([1, 2]).via(Map(plain)).via(Batch(2, within=timedelta(1))).to(Collect())) == [
        [(1,), (2,)]
    ]
