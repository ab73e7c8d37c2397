"""What a stream or a consumer should be like, as plain descriptions.

`StreamSettings` is what users write behind ``create=``. `ConsumerSettings` is what the source derives from a pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

from attrs import field, frozen

from streamflow.errors import ConfigurationError
from streamflow.policies import positive, seconds

_NANOSECONDS = 1_000_000_000
_DUPLICATE_WINDOW = timedelta(minutes=2)


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@frozen
class StreamSettings:
    """A stream to create if it does not exist yet.

    ``subjects`` are what it stores, wildcards allowed. ``storage`` is "file" or "memory"; ``replicas`` is 1, 3 or 5
    servers of a cluster. ``retention``: "limits" keeps messages until a limit is reached, "workqueue" until they are
    acknowledged, "interest" until every consumer has acknowledged them.

    The limits ``max_age``, ``max_bytes``, ``max_messages``, ``max_messages_per_subject`` and ``max_message_size``
    (bytes) are None by default: none is set, and a stream that exists may have any. ``discard`` says what happens at
    a limit: the "old"est messages go, or "new" ones are refused. ``duplicate_window`` is how long the ids of messages
    are remembered to drop repeats (at most ``max_age``).

    A stream that exists is never changed. Its settings must be the same, but may have more subjects.
    """

    subjects: tuple[str, ...] = field(converter=_texts)
    storage: Literal["file", "memory"] = field(default="file", kw_only=True)
    replicas: int = field(default=1, kw_only=True)
    retention: Literal["limits", "workqueue", "interest"] = field(default="limits", kw_only=True)
    max_age: timedelta | None = field(default=None, kw_only=True)
    max_bytes: int | None = field(default=None, kw_only=True)
    max_messages: int | None = field(default=None, kw_only=True)
    max_messages_per_subject: int | None = field(default=None, kw_only=True)
    max_message_size: int | None = field(default=None, kw_only=True)
    discard: Literal["old", "new"] = field(default="old", kw_only=True)
    duplicate_window: timedelta = field(default=_DUPLICATE_WINDOW, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.subjects:
            raise ConfigurationError("a stream needs at least one subject")
        _one_of(self.storage, "storage", "file", "memory")
        _one_of(self.retention, "retention", "limits", "workqueue", "interest")
        _one_of(self.discard, "discard", "old", "new")
        positive(self.replicas, "replicas")
        for name in ("max_bytes", "max_messages", "max_messages_per_subject", "max_message_size"):
            if getattr(self, name) is not None:
                positive(getattr(self, name), name)
        if self.max_age is not None:
            _duration(self.max_age, "max_age")
        _duration(self.duplicate_window, "duplicate_window")

    def config(self) -> dict[str, Any]:
        """These settings as the server's API names them; what is None is left out."""
        window = self.duplicate_window if self.max_age is None else min(self.duplicate_window, self.max_age)
        return _given(
            {
                "subjects": list(self.subjects),
                "storage": self.storage,
                "num_replicas": self.replicas,
                "retention": self.retention,
                "max_age": _nanoseconds(self.max_age),
                "max_bytes": self.max_bytes,
                "max_msgs": self.max_messages,
                "max_msgs_per_subject": self.max_messages_per_subject,
                "max_msg_size": self.max_message_size,
                "discard": self.discard,
                "duplicate_window": _nanoseconds(window),
            }
        )


@frozen
class ConsumerSettings:
    """A pull consumer to create if it does not exist yet.

    ``name`` is the durable's name, or of a consumer that the server forgets after ``inactive`` without a pull
    (``durable=False``). ``subjects`` filter the stream; none means all of it. ``deliver`` says where it starts when it
    is created ("sequence" from ``start_sequence``). ``ack_wait`` is after how long an unacknowledged message comes
    again, ``max_ack_pending`` how many may be unacknowledged, ``max_deliver`` how often one is delivered (None: no
    limit). An existing durable with a larger ``ack_wait`` or ``max_ack_pending`` is fine. ``headers_only`` leaves the
    payloads out.
    """

    name: str
    subjects: tuple[str, ...] = field(default=(), converter=_texts)
    durable: bool = field(default=True, kw_only=True)
    deliver: Literal["all", "new", "last", "last_per_subject", "sequence"] = field(
        default="all", kw_only=True
    )
    start_sequence: int | None = field(default=None, kw_only=True)
    ack: Literal["explicit", "all", "none"] = field(default="explicit", kw_only=True)
    ack_wait: timedelta = field(default=timedelta(seconds=30), kw_only=True)
    max_ack_pending: int = field(default=10_000, kw_only=True)
    max_deliver: int | None = field(default=None, kw_only=True)
    inactive: timedelta = field(default=timedelta(minutes=5), kw_only=True)
    headers_only: bool = field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _one_of(self.deliver, "deliver", "all", "new", "last", "last_per_subject", "sequence")
        _one_of(self.ack, "ack", "explicit", "all", "none")
        positive(self.max_ack_pending, "max_ack_pending")
        _duration(self.ack_wait, "ack_wait")
        _duration(self.inactive, "inactive")
        if (self.deliver == "sequence") != (self.start_sequence is not None):
            raise ConfigurationError('deliver="sequence" and start_sequence= belong together')

    def config(self) -> dict[str, Any]:
        """These settings as the server's API names them."""
        acknowledged = self.ack != "none"
        return _given(
            {
                "name": self.name,
                "durable_name": self.name if self.durable else None,
                "filter_subjects": list(self.subjects) if len(self.subjects) > 1 else None,
                "filter_subject": self.subjects[0] if len(self.subjects) == 1 else None,
                "deliver_policy": "by_start_sequence" if self.deliver == "sequence" else self.deliver,
                "opt_start_seq": self.start_sequence,
                "ack_policy": self.ack,
                "ack_wait": _nanoseconds(self.ack_wait) if acknowledged else None,
                "max_ack_pending": self.max_ack_pending if acknowledged else None,
                "max_deliver": -1 if self.max_deliver is None else self.max_deliver,
                "inactive_threshold": None if self.durable else _nanoseconds(self.inactive),
                "headers_only": self.headers_only or None,
                "replay_policy": "instant",
            }
        )


def _given(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}


def _nanoseconds(value: timedelta | None) -> int | None:
    return None if value is None else round(value.total_seconds() * _NANOSECONDS)


def _duration(value: object, name: str) -> None:
    if not isinstance(value, timedelta):
        raise ConfigurationError(f"{name} must be a timedelta, not {value!r}")
    seconds(value, name)


def _one_of(value: object, name: str, *allowed: str) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
