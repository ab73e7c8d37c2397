"""Values that carry more than themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Generic, NamedTuple, TypeVar

from attrs import field, frozen

K = TypeVar("K")
T = TypeVar("T")
A = TypeVar("A")


class KeyedValue(NamedTuple, Generic[K, T]):
    """What `Keyed` emits: an output of the inner flow with the key it belongs to."""

    key: K
    value: T


@frozen
class Window(Generic[A]):
    """The result of one window: ``start`` and ``end`` in epoch seconds (``end`` excluded), and its ``value``.

    ``revision`` counts from 0 when a window is emitted more than once.
    """

    start: float
    end: float
    value: A
    revision: int = 0

    @property
    def start_at(self) -> datetime:
        """``start`` as a datetime in UTC."""
        return datetime.fromtimestamp(self.start, UTC)

    @property
    def end_at(self) -> datetime:
        """``end`` as a datetime in UTC."""
        return datetime.fromtimestamp(self.end, UTC)


@frozen
class Message(Generic[T]):
    """A decoded message together with what its stream knows of it (``JetStreamSource(with_metadata=True)``)."""

    value: T
    subject: str
    headers: Mapping[str, str] = field(factory=dict)
    sequence: int = 0
    """The message's sequence in its stream, from 1."""
    timestamp: datetime = field(default=datetime.fromtimestamp(0, UTC))
    """When the stream stored it."""
    deliveries: int = 1
    """How often this message has been delivered to this consumer, this time included."""
