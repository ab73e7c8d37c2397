"""Standard input and output."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import field, frozen

from streamflow.engine.channel import Signal
from streamflow.engine.chunk import CHUNK_SIZE, Chunk
from streamflow.engine.connector import Reader, SinkContext, SourceContext, Writer
from streamflow.errors import ConfigurationError, ConnectorError
from streamflow.graph import Flow, Sink, Source
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy

T = TypeVar("T")

_READ_BYTES = 64 * 1024


class StdinSource(Source[str]):
    """The lines of standard input, without their ends; it ends where the input does.

    Waiting for a line does not block the event loop, and a drain or stop does not wait for one.
    """

    def __init__(
        self, *, encoding: str = "utf-8", name: str | None = None, on_error: ErrorPolicy | None = None
    ) -> None:
        check_policy(on_error, "StdinSource")
        self.encoding = encoding
        self.name = name
        self.on_error = on_error

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        encoding = self.encoding

        def text(line: bytes) -> str:
            return line.decode(encoding)

        return (Map(text, on_error=self.on_error),)

    async def open(self, context: SourceContext) -> Reader:
        try:
            descriptor = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError) as error:
            raise ConnectorError("standard input is closed, or is no file") from error
        return LineReader(descriptor, context.step)


class LineReader(Reader):
    """Reads lines from a descriptor when there is something to read. It stays blocking, since others share it."""

    def __init__(self, descriptor: int, origin: str) -> None:
        self._descriptor = descriptor
        self._origin = origin
        self._rest = b""
        self._lines: list[bytes] = []
        self._ended = False
        self._readable = Signal()

    async def read(self) -> Chunk | None:
        while not self._lines and not self._ended:
            await self._wait()
            self._split(os.read(self._descriptor, _READ_BYTES))
        lines, self._lines = self._lines[:CHUNK_SIZE], self._lines[CHUNK_SIZE:]
        return Chunk(list(lines), self._origin) if lines else None

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(self._descriptor, self._readable.set)
        except (PermissionError, NotImplementedError, OSError):
            return  # a regular file, which is always readable
        try:
            await self._readable.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def _split(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data:
            self._ended = True
            lines += [self._rest] if self._rest else []
        self._lines += [line.removesuffix(b"\r") for line in lines]


@frozen
class StdoutSink(Sink[T, int]):
    """Print each element on a line of its own, as ``format(x)`` (default ``str``) says.

    `Pipeline.run` returns how many there were.
    """

    format: Callable[[T], str] = field(default=str)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not callable(self.format):
            raise ConfigurationError(f"StdoutSink takes a function that makes text, not {self.format!r}")
        check_policy(self.on_error, "StdoutSink")

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(self.format, on_error=self.on_error),)

    async def open(self, context: SinkContext) -> Writer[int]:
        return _Printer()


class _Printer(Writer[int]):
    def __init__(self) -> None:
        self._count = 0

    async def write(self, chunk: Chunk) -> None:
        text = "".join(f"{line}\n" for line in chunk.values)
        # A pipe that nobody reads blocks: not the event loop.
        printing = asyncio.get_running_loop().run_in_executor(None, _print, text)
        await asyncio.shield(printing)
        self._count += len(chunk)
        chunk.release()

    def result(self) -> int:
        return self._count


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise ConnectorError(f"cannot write to standard output: {error}") from error
