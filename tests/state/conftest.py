"""Fixtures: one server for the tests that only use it, and both places where a store can be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamflow.testing import NatsServer
from tests.state.support import Lab, MemoryLab, ServerLab


@pytest.fixture(scope="session")
def shared_server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A server of the test's own, to be stopped and killed."""
    with NatsServer() as server:
        yield server


@pytest.fixture(params=["memory", "jetstream"])
def lab(request: pytest.FixtureRequest) -> Lab:
    if request.param == "memory":
        return MemoryLab()
    return ServerLab(request.getfixturevalue("shared_server"))
