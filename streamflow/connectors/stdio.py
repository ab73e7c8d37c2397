"""Standard input and output: lines in, lines out.

Both work on the descriptor, in a thread that waits only as long as the run lasts: what is blocked by the other end of a
pipe, or by a terminal where nobody types, is let go by a drain or stop. Pipes and terminals need a POSIX system.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO, TypeVar, overload

from attrs import field, frozen

from streamflow.codecs import Codec, Text, check_codec
from streamflow.connectors._blocking import Input, Output, reason
from streamflow.connectors._lines import (
    LineReader,
    LineWriter,
    joined,
    line_decoder,
    numbered_lines,
)
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import Reader, SinkContext, SourceContext, Writer
from streamflow.errors import CodecError, ConfigurationError, ConnectorError
from streamflow.graph import Flow, Sink, Source
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy

T = TypeVar("T")


class StdinSource(Source[T]):
    """Read standard input: each element is a line, without what ends it, as text or as ``codec`` decodes it.

    ``codec`` is ``Text()`` unless you say otherwise: ``StdinSource(Json())``, ``StdinSource(Text("latin-1"))``. Lines
    are handed on as they come; waiting for one blocks neither the event loop nor a drain or stop. What was read ahead
    by then is lost, and so is the place: a checkpoint cannot go on in a standard input. What `input` has already taken
    into its buffer is not seen.

    A line that does not decode is a `CodecError` that says which one; it goes to the error policy, ``on_error=`` or
    the pipeline's. Ends with the input. Raises `ConnectorError` if there is no standard input.
    """

    @overload
    def __init__(
        self: StdinSource[str],
        codec: None = None,
        *,
        name: str | None = ...,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self, codec: Codec[T], *, name: str | None = ..., on_error: ErrorPolicy | None = ...
    ) -> None: ...
    def __init__(
        self, codec: Codec[Any] | None = None, *, name: str | None = None, on_error: ErrorPolicy | None = None
    ) -> None:
        if codec is not None:
            check_codec(codec, "StdinSource")
        check_policy(on_error, "StdinSource")
        self.codec: Codec[Any] = Text() if codec is None else codec
        self.name = name
        self.on_error = on_error

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(line_decoder("standard input", self.codec.decode), on_error=self.on_error),)

    async def open(self, context: SourceContext) -> Reader:
        source = Input(_descriptor(sys.stdin, "input"), "standard input")
        return await LineReader(context, source, numbered_lines, numbered=True).open()


@frozen
class StdoutSink(Sink[T, int]):
    """Print each element on a line of its own, as ``format(x)`` says (default ``str``).

    `Pipeline.run` returns how many there were.

    ``codec`` encodes elements instead: ``StdoutSink(codec=Json())``. Elements that do not encode go to the error
    policy. A reader that is slow holds the stream back, and blocks neither the event loop nor a stop. Where
    `sys.stdout` was replaced, as in a notebook or a test, lines are written to what replaced it.

    >>> import asyncio
    >>> from streamflow import Source
    >>> asyncio.run(Source([1, 2]).to(StdoutSink()).run())
    1
    2
    2

    Raises `ConnectorError` if there is no standard output, or if its reader has gone.
    """

    format: Callable[[T], str] = field(default=str)
    codec: Codec[T] | None = field(default=None, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not callable(self.format):
            raise ConfigurationError(f"StdoutSink takes a function that makes text, not {self.format!r}")
        if self.codec is not None:
            check_codec(self.codec, "StdoutSink")
            if self.format is not str:
                raise ConfigurationError("StdoutSink takes format= or codec=, not both")
        check_policy(self.on_error, "StdoutSink")

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        encode = _printer(self.format) if self.codec is None else self.codec.encode
        return (Map(encode, on_error=self.on_error),)

    async def open(self, context: SinkContext) -> Writer[int]:
        if sys.stdout is not sys.__stdout__:
            return _ReplacedWriter()
        target = Output(_descriptor(sys.stdout, "output"), "standard output")
        return await LineWriter(context, target, _behind_printed).open()


def _printer(format: Callable[[Any], str]) -> Callable[[Any], bytes]:
    encoding, errors = _encoding()

    def line(value: Any) -> bytes:
        text = format(value)
        if not isinstance(text, str):
            raise CodecError(f"the format of StdoutSink makes {type(text).__name__}, not str")
        return text.encode(encoding, errors)

    return line


def _encoding() -> tuple[str, str]:
    """What standard output is written in, and what becomes of characters that are not in it."""
    encoding: str = getattr(sys.stdout, "encoding", None) or "utf-8"
    errors: str = getattr(sys.stdout, "errors", None) or "strict"
    return encoding, errors


def _behind_printed(lines: list[bytes]) -> bytes:
    """The lines as one piece, after what was printed before has left the buffer of `sys.stdout`."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:  # ValueError: closed
        raise ConnectorError(f"cannot write to standard output: {reason(error)}") from error
    return joined(lines)


class _ReplacedWriter(Writer[int]):
    """Writes to what `sys.stdout` was replaced with, as `print` does."""

    def __init__(self) -> None:
        self._count = 0

    async def write(self, chunk: Chunk) -> None:
        encoding, _ = _encoding()
        try:
            sys.stdout.write(joined(chunk.values).decode(encoding, "backslashreplace"))
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            raise ConnectorError(f"cannot write to standard output: {reason(error)}") from error
        self._count += len(chunk)
        chunk.release()

    def result(self) -> int:
        return self._count


def _descriptor(stream: TextIO | None, which: str) -> int:
    try:
        if stream is not None:
            return stream.fileno()
    except (OSError, ValueError) as error:
        raise ConnectorError(f"standard {which} is closed, or is no file") from error
    raise ConnectorError(f"standard {which} is closed, or is no file")
