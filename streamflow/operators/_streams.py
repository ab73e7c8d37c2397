"""What the functions on streams share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Step, Stream
from streamflow.policies import ErrorPolicy


class ZipOptions(TypedDict, total=False):
    """The arguments that `zip_with` and `zip_latest` both take."""

    state: Any
    name: str | None
    on_error: ErrorPolicy | None


def end(stream: Any, what: str) -> tuple[Step, int]:
    """Where a stream comes from; anything else is refused."""
    if not isinstance(stream, Stream):
        raise ConfigurationError(f"{what} takes streams, not {stream!r}")
    return stream.end


def ends(streams: Sequence[Any], what: str, *, least: int = 1) -> tuple[tuple[Step, int], ...]:
    """The same for several, of which there must be so many."""
    if len(streams) < least:
        raise ConfigurationError(f"{what}() needs at least {'one stream' if least == 1 else 'two streams'}")
    return tuple(end(stream, what) for stream in streams)


def joined(flow: Flow[Any, Any], inputs: tuple[tuple[Step, int], ...], name: Any) -> Stream[Any]:
    """The stream behind a step with several inputs."""
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigurationError(f"the name of a step must be a text, not {name!r}")
    return Stream(Step(flow, inputs, name))
