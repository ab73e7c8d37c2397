"""Fixtures: a real server for each test, and both ways to reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from nats.aio.client import Client

from streamflow._jetstream.wire import HookedWire, PublicWire, Wire
from streamflow.testing.server import NatsServer


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture(params=[HookedWire, PublicWire], ids=["hooked", "public"])
def wired(request: pytest.FixtureRequest) -> Callable[[Client], Wire]:
    """Makes a wire on a client: once with the hooks into nats-py, once on its public API."""
    make: Callable[[Client], Wire] = request.param
    return make
