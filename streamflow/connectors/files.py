"""Files as sources: lines of text, JSON Lines, CSV. Read block by block on a thread, unzipped if the name ends in .gz.

The thread is one block ahead of the pipeline, no more. A file that cannot be read is a `ConnectorError` with its path
and line; a line that does not decode goes to the error policy of the source's step.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from os import PathLike, fspath
from typing import IO, Any, TypeVar, overload

from streamflow.codecs import Json
from streamflow.engine.chunk import CHUNK_SIZE, Chunk
from streamflow.engine.connector import Reader, SourceContext
from streamflow.errors import CodecError, ConnectorError
from streamflow.graph import Flow, Source
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy

T = TypeVar("T")

Path = str | PathLike[str]
Numbered = tuple[int, Any]
"""A line of the file: its number, from 1, and what it holds."""


class _FileSource(Source[T], ABC):
    """What the file sources share."""

    def __init__(self, path: Path, *, encoding: str, name: str | None, on_error: ErrorPolicy | None) -> None:
        check_policy(on_error, type(self).__name__)
        self.path = fspath(path)
        self.encoding = encoding
        self.name = name
        self.on_error = on_error

    async def open(self, context: SourceContext) -> Reader:
        reader = BlockReader(self.path, self.open_file, self.records, context)
        await reader.start()
        return reader

    def open_file(self) -> IO[Any]:
        """Open the file; called on the thread."""
        return _opened(self.path, "rt", encoding=self.encoding, newline="")

    @abstractmethod
    def records(self, file: IO[Any]) -> Iterator[Numbered]:
        """The records of the file; called on the thread."""


def _opened(path: str, mode: str, **options: Any) -> IO[Any]:
    opener: Any = gzip.open if path.endswith(".gz") else open
    file: IO[Any] = opener(path, mode, **options)
    return file


class TextFileSource(_FileSource[str]):
    """The lines of a text file, without their ends (``\\\\n``, ``\\\\r\\\\n``). A name that ends in .gz is unzipped."""

    def __init__(
        self,
        path: Path,
        *,
        encoding: str = "utf-8",
        name: str | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        super().__init__(path, encoding=encoding, name=name, on_error=on_error)

    def records(self, file: IO[Any]) -> Iterator[Numbered]:
        for number, line in enumerate(file, 1):
            yield number, line.removesuffix("\n").removesuffix("\r")

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(_text, on_error=self.on_error),)


def _text(line: Numbered) -> str:
    text: str = line[1]
    return text


class JsonLinesSource(_FileSource[T]):
    """A file with one JSON value a line, decoded into ``type`` (default: dicts, lists and so on). Blank lines are
    skipped; a line that does not decode is an error that names its number."""

    @overload
    def __init__(
        self: JsonLinesSource[Any], path: Path, *, name: str | None = ..., on_error: ErrorPolicy | None = ...
    ) -> None: ...
    @overload
    def __init__(
        self, path: Path, type: type[T], *, name: str | None = ..., on_error: ErrorPolicy | None = ...
    ) -> None: ...
    def __init__(
        self, path: Path, type: Any = Any, *, name: str | None = None, on_error: ErrorPolicy | None = None
    ) -> None:
        super().__init__(path, encoding="utf-8", name=name, on_error=on_error)
        self.codec: Json[Any] = Json(type)

    def open_file(self) -> IO[Any]:
        return _opened(self.path, "rb")

    def records(self, file: IO[Any]) -> Iterator[Numbered]:
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield number, line

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(_numbered(self.codec.decode), on_error=self.on_error),)


class CsvSource(_FileSource[T]):
    """The rows of a CSV file whose first row names the fields: dicts of strings, or ``type`` (an attrs class, a
    dataclass, a Struct), whose fields are converted from text. A row with too few or too many fields is an error."""

    @overload
    def __init__(
        self: CsvSource[dict[str, str]],
        path: Path,
        *,
        encoding: str = ...,
        name: str | None = ...,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        path: Path,
        type: type[T],
        *,
        encoding: str = ...,
        name: str | None = ...,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    def __init__(
        self,
        path: Path,
        type: Any = None,
        *,
        encoding: str = "utf-8",
        name: str | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        super().__init__(path, encoding=encoding, name=name, on_error=on_error)
        self.type = type

    def records(self, file: IO[Any]) -> Iterator[Numbered]:
        rows = csv.DictReader(file)
        for row in rows:
            yield rows.line_num, row

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(_numbered(self._convert), on_error=self.on_error),)

    def _convert(self, row: dict[str | None, Any]) -> Any:
        if None in row or None in row.values():
            raise CodecError("the row has another number of fields than the header")
        if self.type is None:
            return row
        import msgspec

        try:
            return msgspec.convert(row, self.type, strict=False)
        except msgspec.ValidationError as error:
            raise CodecError(str(error)) from error


def _numbered(decode: Callable[[Any], Any]) -> Callable[[Numbered], Any]:
    """Decode a record; the error of one that does not decode names its line."""

    def decoded(line: Numbered) -> Any:
        number, record = line
        try:
            return decode(record)
        except CodecError as error:
            raise CodecError(f"line {number}: {error}") from error

    return decoded


class BlockReader(Reader):
    """Reads records on a thread, a block ahead. The position is the number of records read."""

    def __init__(
        self,
        path: str,
        open_file: Callable[[], IO[Any]],
        records: Callable[[IO[Any]], Iterator[Numbered]],
        context: SourceContext,
    ) -> None:
        self._path = path
        self._open_file = open_file
        self._parse = records
        self._origin = context.step
        self._count: int = context.position or 0
        self._file: IO[Any] | None = None
        self._records: Iterator[Numbered] = iter(())
        self._line = 0
        self._ahead: asyncio.Future[list[Numbered]] | None = None

    async def start(self) -> None:
        """Open the file, and go to where the last run stopped."""
        await asyncio.to_thread(self._guarded, self._begin)

    async def read(self) -> Chunk | None:
        if self._ahead is None:
            self._ahead = self._fetch()
        # The thread's result stays in the future if this is cancelled.
        await asyncio.wait([self._ahead])
        block = self._ahead.result()
        self._ahead = self._fetch() if block else self._ahead
        self._count += len(block)
        return Chunk(block, self._origin) if block else None

    def position(self) -> int:
        return self._count

    async def close(self) -> None:
        if self._ahead is not None:
            await asyncio.wait([self._ahead])
            self._ahead.exception()  # nobody reads it any more
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    def _fetch(self) -> asyncio.Future[list[Numbered]]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(None, self._guarded, self._block)

    # On the thread

    def _begin(self) -> None:
        self._file = self._open_file()
        self._records = self._parse(self._file)
        for number, _ in islice(self._records, self._count):
            self._line = number

    def _block(self) -> list[Numbered]:
        block: list[Numbered] = []
        for record in islice(self._records, CHUNK_SIZE):
            self._line = record[0]
            block.append(record)
        return block

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (OSError, EOFError, UnicodeError, csv.Error, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            where = f", after line {self._line}" if self._line else ""
            raise ConnectorError(f"cannot read {self._path!r}{where}: {reason}") from error
