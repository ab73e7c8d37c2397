"""How the benchmarks compare and what their table says; what they measure is run by `make bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest

from streamflow.cli import bench
from streamflow.errors import ConfigurationError
from streamflow.testing.server import NatsServer
from tests.benchmarks import ours, work
from tests.benchmarks.baselines import dict_loop, plain_loop, visits_loop
from tests.benchmarks.jetstream import Topic
from tests.benchmarks.latency import relay_latency
from tests.benchmarks.process import import_time, imported, resident_memory
from tests.benchmarks.table import Bound, Row, compare, faster, lines, megabytes, within
from tests.benchmarks.work import Absent, Measured

Contestant = Callable[[], Measured]


def takes(*seconds: float, elements: int = 1, log: list[str] | None = None, name: str = "") -> Contestant:
    """A contestant with these times, one per round."""
    times = iter(seconds)

    def measure() -> Measured:
        if log is not None:
            log.append(name)
        return Measured(next(times), elements)

    return measure


def is_absent() -> Measured:
    raise Absent("bytewax", "no module")


def test_rounds_alternate_and_the_best_one_counts() -> None:
    log: list[str] = []
    result = compare(
        takes(3, 1, 2, log=log, name="ours"),
        {"a": takes(9, 8, 7, log=log, name="a"), "b": takes(5, 6, 7, log=log, name="b")},
    )
    assert log == ["ours", "a", "b"] * 3
    assert (result.ours, result.peers, result.absent) == (1, {"a": 7, "b": 5}, {})


def test_contestants_are_compared_by_element() -> None:
    result = compare(takes(4, elements=1_000), {"slow": takes(4, elements=10)}, rounds=1)
    assert result.ours == pytest.approx(0.004)
    assert result.peers["slow"] == pytest.approx(0.4)


def test_a_peer_that_is_absent_or_fails_is_named_and_the_rest_goes_on() -> None:
    log: list[str] = []

    def fails_later() -> Measured:
        log.append("fails")
        if len(log) > 1:
            raise ValueError("wrong sum")
        return Measured(1)

    result = compare(takes(1, 1, 1), {"gone": is_absent, "bad": fails_later, "there": takes(2, 2, 2)})
    assert result.peers == {"there": 2}
    assert result.absent == {"gone": "absent: no module", "bad": "failed: ValueError: wrong sum"}
    assert len(log) == 2  # out from its first failure on


def test_a_failure_of_ours_is_raised() -> None:
    with pytest.raises(Absent):
        compare(is_absent, {})


@pytest.mark.parametrize(
    ("ours", "holds"),
    [(1.25, True), (1.26, False), (0.1, True)],
)
def test_a_bound_on_a_multiple_of_the_peer(ours: float, holds: bool) -> None:
    assert Row("work", ours, [within(1.25, "loop")], {"loop": 1.0}).holds is holds


@pytest.mark.parametrize(("ours", "holds"), [(1.0, True), (1.01, False)])
def test_a_bound_on_speed(ours: float, holds: bool) -> None:
    assert Row("work", ours, [faster(10, "peer")], {"peer": 10.0}).holds is holds


@pytest.mark.parametrize(("ours", "holds"), [(30e6, True), (31e6, False)])
def test_a_bound_on_our_own_figure(ours: float, holds: bool) -> None:
    assert Row("memory", ours, [Bound("≤ 30 MB", 30e6)], show=megabytes).holds is holds


def test_one_broken_bound_breaks_the_row_and_an_absent_peer_leaves_it_open() -> None:
    bounds = [within(2, "there"), faster(3, "gone")]
    assert Row("work", 1.0, bounds, {"there": 1.0}, {"gone": "absent"}).holds is None
    assert Row("work", 3.0, bounds, {"there": 1.0}, {"gone": "absent"}).holds is False


def test_the_table_names_figures_bounds_and_verdicts() -> None:
    row = Row(
        "ints, per element",
        100e-9,
        [within(1.25, "plain loop"), faster(30, "aiostream"), faster(3, "bytewax")],
        {"plain loop": 80e-9, "aiostream": 2.5e-6, "free": 200e-9},
        {"bytewax": "absent: no\nwheel"},
    )
    assert list(lines(row)) == [
        "",
        "ints, per element",
        "  streamflow                        100 ns",
        "  plain loop                         80 ns           1.25 ×   ≤ 1.25 ×         holds",
        "  aiostream                         2.5 µs   25.0 × as fast   ≥ 30 × as fast   BROKEN",
        "  free                              200 ns    2.0 × as fast",
        "  bytewax                                -                    ≥ 3 × as fast    not known  absent: no wheel",
    ]


def test_the_table_of_a_row_without_peers() -> None:
    row = Row("memory", 12.3e6, [Bound("≤ 30.0 MB", 30e6)], show=megabytes)
    assert (
        list(lines(row))[2]
        == "  streamflow                       12.3 MB                    ≤ 30.0 MB        holds"
    )


def test_import_time_is_that_of_a_fresh_process() -> None:
    assert 0 < import_time("import json").seconds < import_time("import time; time.sleep(0.2)").seconds
    assert "decimal" in imported("import decimal")
    assert "decimal" not in imported("import sys")
    with pytest.raises(RuntimeError, match="no_such_module"):
        import_time("import no_such_module")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_memory()
    held = bytes(b"x" * 50_000_000)
    assert 40e6 < resident_memory() - before < 80e6
    del held


def test_without_a_checkout_the_command_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "_CHECKOUT", tmp_path)
    with pytest.raises(ConfigurationError, match="benchmarks need a checkout"):
        bench.report()


def test_the_work_has_a_right_answer_that_tells_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert work.expected_sum(7) == 3 * (2 + 4 + 6)
    assert plain_loop(7).elements == dict_loop(7).elements == 7
    monkeypatch.setattr(work, "WINDOW_SECONDS", 30.0)  # of the answer, not of the loop
    work.expected_counts.cache_clear()
    with pytest.raises(AssertionError, match="dict loop"):
        dict_loop(100)
    monkeypatch.undo()
    work.expected_counts.cache_clear()


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_visits_are_summed_by_key(is_shuffled: bool) -> None:
    assert work.expected_visit(7, 3, False) == (0, 0)
    assert work.expected_visit(8, 3, False) == (1, 1 * 4)
    assert visits_loop(3_000, 1_000, is_shuffled).elements == 3_000
    assert ours.visits(3_000, 1_000, is_shuffled).elements == 3_000


def test_no_event_of_the_windows_is_late() -> None:
    times = [at for _, at in work.events(3_000)]
    disorder = max(highest - at for highest, at in zip(accumulate(times, max), times, strict=True))
    assert 3 < disorder < work.OUT_OF_ORDER_SECONDS
    assert len(work.expected_counts(3_000)) > 2_000


def test_the_latency_of_a_relay_that_fails_is_its_failure() -> None:
    async def fails(source: Topic, target: Topic) -> None:
        raise ValueError(f"cannot copy {source.subject} to {target.subject}")

    async def ends(source: Topic, target: Topic) -> None:
        return

    with NatsServer() as server:
        with pytest.raises(ValueError, match="cannot copy"):
            relay_latency(server.url, fails, 1_000_000)
        with pytest.raises(RuntimeError, match="ended before"):
            relay_latency(server.url, ends, 1_000_000)
