"""The kit that tests pipelines: virtual time, a checkpoint store in memory, an embedded NATS server.

The tests of this project use the same kit.
"""

from typing import TYPE_CHECKING

from streamflow.testing.store import MemoryStore
from streamflow.testing.virtual import VirtualClock, run_virtual

if TYPE_CHECKING:
    from streamflow.testing.server import NatsServer

__all__ = ["MemoryStore", "NatsServer", "VirtualClock", "run_virtual"]


def __getattr__(name: str) -> object:
    # The server comes with an extra, and is imported when it is used.
    if name == "NatsServer":
        from streamflow.testing.server import NatsServer

        return NatsServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
