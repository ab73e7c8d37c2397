"""One value of a store with what is known about it."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from attrs import frozen

T_co = TypeVar("T_co", covariant=True)

Operation = Literal["put", "delete", "expire", "absent"]
"""How a key came to be as it is: a value was put, it was deleted, its time was up, or there was none."""


@frozen
class Entry(Generic[T_co]):
    """A key as it was at some revision.

    ``value`` is what `ObjectStore.read` returns for it: of a key without a value the store's initial value, or None.
    ``revision`` counts the writes to the bucket, all keys together; 0 stands for a key without a value in
    `ObjectStore.entry`. ``at`` is when it was stored, in epoch seconds by the server's clock.
    """

    key: str
    value: T_co
    revision: int
    at: float
    operation: Operation

    @property
    def exists(self) -> bool:
        """Whether the key has a value of its own."""
        return self.operation == "put"
