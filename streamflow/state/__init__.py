"""Values that survive: typed, with revisions, in a NATS key-value bucket or in memory."""

from streamflow.errors import ConflictError
from streamflow.state.entry import Entry
from streamflow.state.memory import MemoryBucket
from streamflow.state.store import ObjectStore
from streamflow.state.transaction import Transaction
from streamflow.state.watch import Watch

__all__ = ["ConflictError", "Entry", "MemoryBucket", "ObjectStore", "Transaction", "Watch"]
