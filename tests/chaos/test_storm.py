"""Storms: ``make chaos`` has the long ones."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from streamflow.testing import NatsServer
from tests.chaos.storm import Report, Storm, Weather

_LONG = bool(os.environ.get("STREAMFLOW_CHAOS"))


def blow(servers: list[NatsServer], replicas: int, folder: Path, storm: Storm) -> None:
    async def work() -> Report:
        return await Weather(servers, replicas, folder, storm).blow()

    report = asyncio.run(work())
    print(f"\n{storm}: {report}")
    assert report.wrong == []
    assert (report.lost, report.repeated) == (0, 0)
    assert report.hits >= report.kills * 0.8, "most hits came while nothing worked"


def test_a_short_storm(server: NatsServer, tmp_path: Path) -> None:
    blow([server], 1, tmp_path, Storm(kills=3, zombies=1, servers=1))


@pytest.mark.skipif(not _LONG, reason="takes minutes: make chaos")
def test_a_long_storm(server: NatsServer, tmp_path: Path) -> None:
    blow([server], 1, tmp_path, Storm(kills=30, zombies=3, servers=5))


@pytest.mark.skipif(not _LONG, reason="takes minutes: make chaos")
def test_a_storm_over_a_cluster(cluster: list[NatsServer], tmp_path: Path) -> None:
    """The leader of the checkpoints' stream is killed, too: everything has three replicas."""
    blow(cluster, 3, tmp_path, Storm(kills=5, zombies=1, servers=3))
