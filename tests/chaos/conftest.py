"""Servers to be killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamflow.testing import NatsServer


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server
