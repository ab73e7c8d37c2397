"""Files as sinks: lines of text, JSON Lines, CSV. Written chunk by chunk on a thread, zipped if the name ends in .gz.

The file is written in place: a run that fails leaves what it had written by then. At the end, and before a checkpoint
counts, everything is flushed to the disk.
"""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import gzip
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from typing import IO, Any, TypeVar

import attrs

from streamflow.codecs import Json
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.errors import CodecError, ConnectorError, shorten
from streamflow.graph import Flow, Sink
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy

T = TypeVar("T")

Path = str | PathLike[str]


class _FileSink(Sink[T, int], ABC):
    """What the file sinks share; `Pipeline.run` returns the number of elements written."""

    def __init__(self, path: Path, *, append: bool, on_error: ErrorPolicy | None) -> None:
        check_policy(on_error, type(self).__name__)
        self.path = fspath(path)
        self.append = append
        self.on_error = on_error

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(self.encode, on_error=self.on_error),)

    @abstractmethod
    def encode(self, value: T) -> Any:
        """What is written for an element."""

    async def open(self, context: SinkContext) -> Writer[int]:
        writer = FileWriter(self.path, self.append, self.joiner())
        await writer.start()
        return writer

    def joiner(self) -> Callable[[list[Any], bool], bytes]:
        """Makes the bytes of a chunk out of its encoded elements, told whether the file is empty so far."""
        return lambda lines, empty: b"".join(lines)


class TextFileSink(_FileSink[str]):
    """Write each string as a line. The file is replaced, or continued with ``append=True``.

    A string with a line break in it would come back as two: it goes to the error policy.
    """

    def __init__(
        self,
        path: Path,
        *,
        append: bool = False,
        encoding: str = "utf-8",
        on_error: ErrorPolicy | None = None,
    ) -> None:
        super().__init__(path, append=append, on_error=on_error)
        self.encoding = encoding

    def encode(self, value: str) -> bytes:
        if not isinstance(value, str):
            raise CodecError(f"TextFileSink writes strings, not {shorten(value)}")
        if "\n" in value or "\r" in value:
            raise CodecError(f"a line break inside {shorten(value)}")
        try:
            return f"{value}\n".encode(self.encoding)
        except UnicodeError as error:
            raise CodecError(f"cannot encode {shorten(value)}: {error}") from error


class JsonLinesSink(_FileSink[Any]):
    """Write each element as a line of JSON (see `streamflow.codecs.Json`)."""

    def __init__(self, path: Path, *, append: bool = False, on_error: ErrorPolicy | None = None) -> None:
        super().__init__(path, append=append, on_error=on_error)
        self._encode = Json().encode

    def encode(self, value: Any) -> bytes:
        return self._encode(value) + b"\n"


class CsvSink(_FileSink[Any]):
    """Write each element as a row of CSV, below a header. Elements are mappings, attrs or dataclass instances, Structs
    or named tuples. ``fields`` names the columns and their order (default: those of the first element); an element
    that lacks one, or has others, goes to the error policy if ``fields`` is given, else it fails the pipeline."""

    def __init__(
        self,
        path: Path,
        *,
        fields: Sequence[str] | None = None,
        append: bool = False,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        super().__init__(path, append=append, on_error=on_error)
        self.fields = None if fields is None else list(fields)

    def encode(self, value: Any) -> Mapping[str, Any]:
        row = _mapping(value)
        if self.fields is not None:
            _check_fields(row, self.fields)
        return row

    def joiner(self) -> Callable[[list[Any], bool], bytes]:
        fields = self.fields

        def joined(rows: list[Any], empty: bool) -> bytes:
            nonlocal fields
            if fields is None:
                fields = list(rows[0])
            text = io.StringIO(newline="")
            table = csv.writer(text, lineterminator="\n")
            if empty:
                table.writerow(fields)
            for row in rows:
                _check_fields(row, fields)
                table.writerow([row[name] for name in fields])
            return text.getvalue().encode()

        return joined


def _check_fields(row: Mapping[str, Any], fields: list[str]) -> None:
    if row.keys() != set(fields):
        raise CodecError(f"a row of {', '.join(map(str, row))} does not fit the columns {', '.join(fields)}")


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if attrs.has(type(value)):
        return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    names = getattr(value, "__struct_fields__", None) or getattr(value, "_fields", None)
    if names is None:
        raise CodecError(f"{shorten(value)} has no named fields for a row of CSV")
    return {name: getattr(value, name) for name in names}


class FileWriter(Writer[int]):
    """Writes chunks on a thread. What must be acknowledged is flushed with its chunk."""

    def __init__(self, path: str, append: bool, joined: Callable[[list[Any], bool], bytes]) -> None:
        self._path = path
        self._append = append
        self._joined = joined
        self._file: IO[bytes] | None = None
        self._empty = True
        self._count = 0

    async def start(self) -> None:
        await self._on_thread(self._open)

    async def write(self, chunk: Chunk) -> None:
        acknowledged = chunk.receipt is not None or chunk.lineage is not None
        await self._on_thread(lambda: self._write(chunk.values, flush=acknowledged))
        self._count += len(chunk)
        chunk.release()

    async def flush(self) -> None:
        await self._on_thread(self._sync)

    def result(self) -> int:
        return self._count

    async def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await self._on_thread(file.close)

    async def _on_thread(self, work: Callable[[], None]) -> None:
        """Do it on a thread, and wait for it also when cancelled: the file must not be closed under it."""
        doing = asyncio.get_running_loop().run_in_executor(None, self._guarded, work)
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait([doing])
            raise

    # On the thread

    def _open(self) -> None:
        mode = "ab" if self._append else "wb"
        self._empty = not (self._append and os.path.exists(self._path) and os.path.getsize(self._path) > 0)
        opener: Any = gzip.open if self._path.endswith(".gz") else open
        self._file = opener(self._path, mode)

    def _write(self, values: list[Any], *, flush: bool) -> None:
        assert self._file is not None
        self._file.write(self._joined(values, self._empty))
        self._empty = False
        if flush:
            self._file.flush()

    def _sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            raise ConnectorError(f"cannot write {self._path!r}: {error.strerror or error}") from error
        except CodecError as error:
            raise ConnectorError(f"cannot write {self._path!r}: {error}") from error
