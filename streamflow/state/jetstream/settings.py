"""What a bucket's stream is like."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from attrs import field, frozen

from streamflow.errors import ConfigurationError
from streamflow.policies import positive
from streamflow.state.bucket import whole_seconds

_NAME = re.compile(r"[-_a-zA-Z0-9]+")
_NANOSECONDS = 1_000_000_000
_LONGEST_HISTORY = 64
_DUPLICATE_WINDOW_SECONDS = 120

NAMES = {
    "max_msgs_per_subject": "history",
    "max_age": "ttl",
    "num_replicas": "replicas",
}
"""How the parameters of `ObjectStore.open` are called in a stream's settings."""


def _lifetime(ttl: timedelta | float | None) -> int | None:
    return whole_seconds(ttl)


@frozen
class BucketSettings:
    """A bucket to create if it is not there. What is None is as it is in one that exists."""

    name: str
    history: int | None = None
    ttl: int | None = field(default=None, converter=_lifetime)
    replicas: int | None = None
    storage: str | None = None
    max_bytes: int | None = None
    messages: bool = False
    """Whether its stream also takes what a commit has beside the records."""

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"{self.name!r} is not a name for a bucket: only ASCII letters, digits, - and _"
            )
        for name in ("history", "replicas", "max_bytes"):
            if getattr(self, name) is not None:
                positive(getattr(self, name), name)
        if (self.history or 1) > _LONGEST_HISTORY:
            raise ConfigurationError(f"history must be {_LONGEST_HISTORY} or less, not {self.history}")
        if self.storage not in (None, "file", "memory"):
            raise ConfigurationError(f"storage must be 'file' or 'memory', not {self.storage!r}")

    @property
    def stream(self) -> str:
        return f"KV_{self.name}"

    def required(self) -> dict[str, Any]:
        """What the stream must be, as the server's API names it."""
        given = {
            "max_msgs_per_subject": self.history,
            "max_age": None if self.ttl is None else self.ttl * _NANOSECONDS,
            "num_replicas": self.replicas,
            "storage": self.storage,
            "max_bytes": self.max_bytes,
        }
        return {
            "subjects": [f"$KV.{self.name}.>", *([f"$TX.{self.name}.>"] if self.messages else [])],
            "retention": "limits",
            "discard": "new",
            "allow_atomic": True,
            "allow_msg_ttl": True,
            "allow_direct": True,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            **{name: value for name, value in given.items() if value is not None},
        }

    def config(self) -> dict[str, Any]:
        """What it is created with."""
        window = min(_DUPLICATE_WINDOW_SECONDS, self.ttl or _DUPLICATE_WINDOW_SECONDS)
        defaults = {"max_msgs_per_subject": 1, "num_replicas": 1, "storage": "file"}
        return {**defaults, "duplicate_window": window * _NANOSECONDS, **self.required()}
