"""The peers under pytest-benchmark, one by one: `pytest tests/benchmarks`. The table is `streamflow bench`.

Each is a thin wrapper around the function that the table calls, here on fewer elements. The times of its report
include what the table leaves out (connecting, checking the result); the time per element that the table would
show is in `extra_info`. A peer that is not installed is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from streamflow.testing.server import NatsServer
from tests.benchmarks import baselines, peers_memory, peers_nats
from tests.benchmarks.jetstream import Topic, topic
from tests.benchmarks.latency import relay_latency
from tests.benchmarks.work import Absent, Measured

N = 10_000
MESSAGES = 2_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with NatsServer() as server:
        yield server.url


def run(benchmark: BenchmarkFixture, measure: Callable[[], Measured], rounds: int = 3) -> None:
    try:
        measured: Measured = benchmark.pedantic(measure, rounds=rounds)  # type: ignore[no-untyped-call]
    except Absent as absent:
        pytest.skip(str(absent))
    benchmark.extra_info["ns per element"] = measured.each * 1e9


@pytest.mark.parametrize(
    "peer",
    [
        baselines.plain_loop,
        peers_memory.aiostream_map,
        peers_memory.aiostream_smap,
        peers_memory.aiostream_amap,
        peers_memory.bytewax_numbers,
        peers_memory.reactivex_numbers,
    ],
)
def test_numbers(benchmark: BenchmarkFixture, peer: Callable[[int], Measured]) -> None:
    run(benchmark, lambda: peer(N))


def test_coroutines(benchmark: BenchmarkFixture) -> None:
    run(benchmark, lambda: peers_memory.aiostream_map_limited(N))


@pytest.mark.parametrize("peer", [baselines.dict_loop, peers_memory.bytewax_windows])
def test_windows(benchmark: BenchmarkFixture, peer: Callable[[int], Measured]) -> None:
    run(benchmark, lambda: peer(N))


@pytest.mark.parametrize("peer", [baselines.join_loop, peers_memory.bytewax_join])
def test_join(benchmark: BenchmarkFixture, peer: Callable[[int], Measured]) -> None:
    run(benchmark, lambda: peer(N))


@pytest.mark.parametrize(
    "peer", [peers_nats.nats_fetch, peers_nats.faststream_pull, peers_nats.faststream_batch]
)
def test_source(benchmark: BenchmarkFixture, url: str, peer: Callable[[Topic, int], Measured]) -> None:
    with topic(url, MESSAGES) as full:
        run(benchmark, lambda: peer(full, MESSAGES))


def test_sink(benchmark: BenchmarkFixture, url: str) -> None:
    with topic(url) as empty:
        run(benchmark, lambda: peers_nats.nats_publish_async(empty, MESSAGES), rounds=1)


def test_relay(benchmark: BenchmarkFixture, url: str) -> None:
    run(benchmark, lambda: relay_latency(url, peers_nats.nats_relay, MESSAGES), rounds=1)


@pytest.mark.parametrize("peer", [peers_nats.nats_locked_updates, peers_nats.nats_gathered_updates])
def test_updates(benchmark: BenchmarkFixture, url: str, peer: Callable[[str, int], Measured]) -> None:
    run(benchmark, lambda: peer(url, 250), rounds=1)
