"""What the type checkers infer for pipelines written with lambdas alone. ``make types`` checks it; it is never run."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, assert_type

from attrs import frozen

from streamflow import EventTime, KeyedValue, Pipeline, Source, Stream, Window
from streamflow.codecs import Json
from streamflow.connectors import Collect, Discard, ForEach, Into
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource
from streamflow.operators import (
    Aggregate,
    Batch,
    Combine,
    Count,
    DropWhile,
    Filter,
    FilterAsync,
    FlatMap,
    FlatMapAsync,
    Flatten,
    Fold,
    FromAiostream,
    Inspect,
    Keyed,
    Lookup,
    Map,
    MapAsync,
    Max,
    Mean,
    Min,
    PassThrough,
    Reduce,
    Skip,
    StatefulMap,
    Sum,
    Take,
    TakeWhile,
    Throttle,
    TopK,
    TumblingWindow,
    concat,
    fan_out,
    join,
    merge,
    partition,
    round_robin,
    route,
    split,
    zip_latest,
    zip_with,
)


@frozen
class Order:
    customer: str
    total: float
    at: float


orders = Source[Order]([])
big = orders.via(Filter(lambda o: o.total > 0))
assert_type(big, Stream[Order])
names = big.via(Map(lambda o: o.customer.upper()))
assert_type(names, Stream[str])
w = big.via(
    Keyed(
        lambda o: o.customer,
        TumblingWindow(timedelta(minutes=1), time=EventTime(lambda o: o.at), into=Sum(lambda o: o.total)),
    )
)
assert_type(w, Stream[KeyedValue[str, Window[float]]])
w2 = big.via(TumblingWindow(timedelta(minutes=1)))
assert_type(w2, Stream[Window[list[Order]]])
w3 = big.via(Keyed(lambda o: o.customer, TumblingWindow(timedelta(minutes=1), into=Count())))
assert_type(w3, Stream[KeyedValue[str, Window[int]]])
w4 = big.via(Keyed(lambda o: o.customer, TumblingWindow(timedelta(minutes=1), into=Mean(lambda o: o.total))))
assert_type(w4, Stream[KeyedValue[str, Window[float]]])
assert_type(big.via(Take(3)), Stream[Order])
assert_type(big.via(Skip(3)), Stream[Order])
assert_type(big.via(Batch(3)), Stream[list[Order]])
assert_type(big.via(Batch(3)).via(FlatMap(lambda batch: batch)), Stream[Order])
assert_type(big.via(Batch(3)).via(Flatten[Order]()), Stream[Order])
assert_type(big.via(FlatMap(lambda o: [o.total])), Stream[float])
assert_type(big.via(Throttle(3, per=timedelta(1))), Stream[Order])
assert_type(big.via(PassThrough()), Stream[Order])
assert_type(big.via(Inspect(lambda o: print(o.at))), Stream[Order])
assert_type(big.via(Fold(0.0, lambda a, o: a + o.total)), Stream[float])
assert_type(big.via(Fold(dict[str, int], lambda a, o: {**a, o.customer: 1})), Stream[dict[str, int]])
assert_type(big.via(StatefulMap(0.0, lambda last, o: (o.at, o.at - last > 1))), Stream[bool])
assert_type(big.via(StatefulMap(list[float], lambda seen, o: ([*seen, o.at], len(seen)))), Stream[int])
assert_type(
    big.via(Keyed(lambda o: o.customer, StatefulMap(0, lambda n, o: (n + 1, o.total)))),
    Stream[KeyedValue[str, float]],
)
assert_type(big.via(TakeWhile(lambda o: o.total > 0, inclusive=True)), Stream[Order])
assert_type(big.via(DropWhile(lambda o: o.total > 0)), Stream[Order])
assert_type(names.via(Reduce(lambda a, b: a + b)), Stream[str])
ages: dict[str, int] = {}
assert_type(big.via(Lookup(ages, lambda o: o.customer)), Stream[tuple[Order, int]])
assert_type(big.via(Lookup(ages, lambda o: o.customer, default=None)), Stream[tuple[Order, int | None]])
aged = big.via(Keyed(lambda o: o.customer, Lookup(ages, lambda o: o.customer, "?")))
assert_type(aged, Stream[KeyedValue[str, tuple[Order, int | str]]])


async def f(o: Order) -> bytes:
    return o.customer.encode()


assert_type(big.via(MapAsync(f)), Stream[bytes])
assert_type(big.via(MapAsync(lambda o: f(o))), Stream[bytes])


async def g(o: Order) -> AsyncIterator[str]:
    yield o.customer


async def h(orders: AsyncIterable[Order]) -> AsyncIterator[float]:
    async for o in orders:
        yield o.total


async def iterated(xs: AsyncIterable[Order]) -> None:
    assert_type(Source.from_aiostream(xs), Source[Order])
    async for o in big:
        assert_type(o, Order)


assert_type(big.via(FilterAsync(lambda o: f(o))), Stream[Order])
assert_type(big.via(FlatMapAsync(g)), Stream[str])
assert_type(big.via(FlatMapAsync(lambda o: g(o))), Stream[str])
assert_type(big.via(FromAiostream(h)), Stream[float])
assert_type(big.to(Collect()), Pipeline[list[Order]])
assert_type(big.to(Discard()), Pipeline[int])
assert_type(big.to(ForEach(lambda o: print(o.total))), Pipeline[int])
assert_type(Source([1, 2]).to(Into(Sum())), Pipeline[int])
assert_type(big.to(Into(Sum(lambda o: o.total))), Pipeline[float])
assert_type(big.to(Into(Count())), Pipeline[int])

# Aggregators

assert_type(Source([1, 2]).to(Into(Min())), Pipeline[int])
assert_type(big.to(Into(Max(lambda o: o.customer))), Pipeline[str])
assert_type(Source(["a"]).to(Into(TopK(3))), Pipeline[list[str]])
assert_type(big.to(Into(TopK(3, lambda o: o.total))), Pipeline[list[Order]])
assert_type(big.to(Into(Aggregate(0.0, lambda a, o: a + o.total, lambda a, b: a + b))), Pipeline[float])
assert_type(
    big.to(Into(Aggregate(list[str], lambda a, o: [*a, o.customer], lambda a, b: a + b, lambda a: len(a)))),
    Pipeline[int],
)
assert_type(big.to(Into(Combine(orders=Count(), mean=Mean(lambda o: o.total)))), Pipeline[dict[str, Any]])
w5 = big.via(Keyed(lambda o: o.customer, TumblingWindow(timedelta(minutes=1), into=Max(lambda o: o.total))))
assert_type(w5, Stream[KeyedValue[str, Window[float]]])
w6 = big.via(TumblingWindow(timedelta(minutes=1), into=TopK(3, lambda o: o.total)))
assert_type(w6, Stream[Window[list[Order]]])
w7 = big.via(
    TumblingWindow(
        timedelta(minutes=1),
        into=Aggregate(0.0, lambda a, o: a + o.total, lambda a, b: a + b, lambda a: str(a)),
    )
)
assert_type(w7, Stream[Window[str]])
w8 = big.via(TumblingWindow(timedelta(minutes=1), into=Combine(n=Count(), top=TopK(3, lambda o: o.total))))
assert_type(w8, Stream[Window[dict[str, Any]]])
a, b = split(big, lambda o: o.total > 3)
assert_type(a, Stream[Order])
assert_type(Pipeline(a.to(Collect()), b.to(Discard())), Pipeline[tuple[list[Order], int]])
assert_type(merge(a, b), Stream[Order])
assert_type(merge(a, a.via(Map(lambda o: o.customer))), Stream[Order | str])
assert_type(concat(a, a.via(Map(lambda o: o.total)), b), Stream[Order | float])
assert_type(fan_out(big, 2), tuple[Stream[Order], ...])
assert_type(round_robin(big, 2), tuple[Stream[Order], ...])
assert_type(partition(big, 2, lambda o: o.customer), tuple[Stream[Order], ...])
assert_type(route(big, lambda o: o.customer, ["x", "y"], default="z"), dict[str, Stream[Order]])
assert_type(concat(a, b), Stream[Order])

# Branches that narrow


def is_text(value: int | str) -> TypeGuard[str]:
    return isinstance(value, str)


mixed = Source[int | str]([])
texts, rest = split(mixed, is_text)
assert_type(texts, Stream[str])
assert_type(rest, Stream[int | str])
if TYPE_CHECKING:
    from typing_extensions import TypeIs

    def is_number(value: int | str) -> TypeIs[int]: ...

    numbers, others = split(mixed, is_number)
    assert_type(numbers, Stream[int])
    assert_type(others, Stream[int | str])

# Streams put together


@frozen
class Payment:
    customer: str
    at: float


payments = Source[Payment]([])
assert_type(zip_with(lambda o, p: (o.total, p.customer), big, payments), Stream[tuple[float, str]])
assert_type(zip_with(lambda o, p, n: o.at + p.at + len(n), big, payments, names), Stream[float])
assert_type(zip_latest(lambda o, p: (o.total, p.customer), big, payments), Stream[tuple[float, str]])
assert_type(
    zip_latest(lambda o, p, n, t: (o, p, n, t), big, payments, names, texts),
    Stream[tuple[Order, Payment, str, str]],
)
within = timedelta(seconds=5)
paid = join(big, payments, on=(lambda o: o.customer, lambda p: p.customer), within=within)
assert_type(paid, Stream[tuple[Order, Payment]])
unpaid = join(
    big,
    payments,
    on=(lambda o: o.customer, lambda p: p.customer),
    within=within,
    how="left",
    time=EventTime(lambda x: x.at),
)
assert_type(unpaid, Stream[tuple[Order, Payment | None]])
unknown = join(
    big,
    payments,
    on=(lambda o: o.customer, lambda p: p.customer),
    within=within,
    how="right",
    time=(EventTime(lambda o: o.at), EventTime(lambda p: p.at)),
)
assert_type(unknown, Stream[tuple[Order | None, Payment]])
either = join(
    big,
    payments,
    on=(lambda o: o.customer, lambda p: p.customer),
    within=TumblingWindow(within, time=EventTime[Order | Payment](lambda x: x.at)),
    how="outer",
)
assert_type(either, Stream[tuple[Order | None, Payment | None]])

# JetStream

messages = JetStreamSource("ORDERS", "orders.>", durable="d")
assert_type(messages.via(Filter(lambda body: len(body) > 1)), Stream[bytes])
decoded = JetStreamSource("ORDERS", codec=Json(Order), until="end")
assert_type(decoded.via(Map(lambda o: o.total)), Stream[float])
enveloped = JetStreamSource("ORDERS", codec=Json(Order), with_metadata=True)
assert_type(enveloped.via(Map(lambda m: m.value.customer)), Stream[str])
raw = JetStreamSource("ORDERS", with_metadata=True)
assert_type(raw.via(Map(lambda m: m.value)), Stream[bytes])
published = w.to(JetStreamSink("TOTALS", subject=lambda r: f"totals.{r.key.lower()}", codec=Json()))
assert_type(published, Pipeline[int])
