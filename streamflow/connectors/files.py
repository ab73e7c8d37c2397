"""Files of lines: text, JSON Lines and CSV; packed with gzip if the path ends in ``.gz``.

A thread reads, unpacks and splits a block at a time while the pipeline works on the one before; a thread writes. Ends,
failures and `stop` leave no thread behind. Named pipes and devices are read and written as well, as data comes and as
there is room.

The position of a source in a checkpoint is its line. What a sink has confirmed has been handed to the operating
system; it is on disk when the run has ended.
"""

from __future__ import annotations

import builtins
import os
from typing import Any, TypedDict, TypeVar, Unpack, overload

from streamflow.codecs import Json, check_encoding
from streamflow.connectors._blocking import Input
from streamflow.connectors._csv import records, row_decoder
from streamflow.connectors._lines import (
    LineReader,
    json_lines,
    line_decoder,
    text_lines,
)
from streamflow.engine.connector import Reader, SourceContext
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Source
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy

T = TypeVar("T")

Path = str | os.PathLike[str]


class SourceOptions(TypedDict, total=False):
    """The options that `JsonLinesSource` and `CsvSource` have in common."""

    name: str | None
    on_error: ErrorPolicy | None


class TextFileSource(Source[str]):
    """Read a text file: each element is a line, without the line feed (and carriage return) that ends it.

    ::

        b"one\\ntwo\\n"
          TextFileSource("words.txt")
        ──"one"──"two"──|

    ``encoding`` is UTF-8 unless you say otherwise. Ends with the file. Raises `ConnectorError` with the path, and the
    line where there is one: no such file, not allowed, no gzip file or one that was cut off, bytes that are no text.
    """

    def __init__(self, path: Path, *, encoding: str = "utf-8", name: str | None = None) -> None:
        check_encoding(encoding, "TextFileSource")
        self.path = checked_path(path, "TextFileSource")
        self.encoding = encoding
        self.name = name

    async def open(self, context: SourceContext) -> Reader:
        lines = text_lines(self.encoding)
        return await LineReader(context, Input(self.path, repr(self.path)), lines, numbered=False).open()


class JsonLinesSource(Source[T]):
    """Read a file of JSON Lines: each line is a value, decoded as by `Json`; blank lines are left out.

    ``type`` is what the lines are decoded into (default: dicts, lists and scalars). A line that does not decode is a
    `CodecError` that says which one; it goes to the error policy, ``on_error=`` or the pipeline's.

    >>> import asyncio, tempfile
    >>> from attrs import frozen
    >>> from streamflow import Skip
    >>> from streamflow.connectors import Collect
    >>> @frozen
    ... class Order:
    ...     total: float
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     _ = file.write('{"total": 5}\\n{"total": "five"}\\n')
    ...     file.flush()
    ...     asyncio.run(JsonLinesSource(file.name, Order, on_error=Skip()).to(Collect()).run())
    [Order(total=5.0)]

    Ends with the file. Raises `ConnectorError` as `TextFileSource` does.
    """

    @overload
    def __init__(self: JsonLinesSource[Any], path: Path, **options: Unpack[SourceOptions]) -> None: ...
    @overload
    def __init__(self, path: Path, type: builtins.type[T], **options: Unpack[SourceOptions]) -> None: ...
    @overload
    def __init__(
        self: JsonLinesSource[Any], path: Path, type: Any, **options: Unpack[SourceOptions]
    ) -> None: ...
    def __init__(
        self, path: Path, type: Any = Any, *, name: str | None = None, on_error: ErrorPolicy | None = None
    ) -> None:
        check_policy(on_error, "JsonLinesSource")
        self.path = checked_path(path, "JsonLinesSource")
        self.codec = Json(type)
        self.name = name
        self.on_error = on_error

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(line_decoder(self.path, self.codec.decode), on_error=self.on_error),)

    async def open(self, context: SourceContext) -> Reader:
        return await LineReader(context, Input(self.path, repr(self.path)), json_lines, numbered=True).open()


class CsvSource(Source[T]):
    """Read a CSV file: each record becomes a dict of strings by the names in the first line, or a value of a type.

    ``type`` is an attrs class, a dataclass, a msgspec Struct, a TypedDict or a named tuple. The text of the fields is
    turned into numbers, booleans, dates and so on as its annotations ask; an empty field is None where the annotation
    allows None and no text.

    A record that is malformed, has more or fewer fields than the header, or does not fit the type is a `CodecError`
    with its (last) line; it goes to the error policy, ``on_error=`` or the pipeline's. Quoted fields may contain line
    breaks. Empty lines are left out, and so is a byte order mark.

    >>> import asyncio, tempfile
    >>> from streamflow.connectors import Collect
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write('customer,total\\nada,5\\n"Grace, Hopper",7\\n')
    ...     file.flush()
    ...     asyncio.run(CsvSource(file.name).to(Collect()).run())
    [{'customer': 'ada', 'total': '5'}, {'customer': 'Grace, Hopper', 'total': '7'}]

    Ends with the file. Raises `ConnectorError` as `TextFileSource` does.
    """

    @overload
    def __init__(
        self: CsvSource[dict[str, str]],
        path: Path,
        type: None = None,
        *,
        delimiter: str = ...,
        encoding: str = ...,
        **options: Unpack[SourceOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        path: Path,
        type: builtins.type[T],
        *,
        delimiter: str = ...,
        encoding: str = ...,
        **options: Unpack[SourceOptions],
    ) -> None: ...
    def __init__(
        self,
        path: Path,
        type: Any = None,
        *,
        delimiter: str = ",",
        encoding: str = "utf-8",
        name: str | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        check_encoding(encoding, "CsvSource")
        check_policy(on_error, "CsvSource")
        self.path = checked_path(path, "CsvSource")
        self.delimiter = checked_delimiter(delimiter, "CsvSource")
        self.encoding = encoding
        self.name = name
        self.on_error = on_error
        self._decode = row_decoder(self.path, type)

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(self._decode, on_error=self.on_error),)

    async def open(self, context: SourceContext) -> Reader:
        blocks = records(self.encoding, self.delimiter)
        return await LineReader(context, Input(self.path, repr(self.path)), blocks, numbered=True).open()


def checked_path(path: Path, what: str) -> str:
    """The path as a string; refuses what is none."""
    text: Any = os.fspath(path) if hasattr(path, "__fspath__") else path
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigurationError(f"{what} takes the path of a file, not {path!r}")
    checked: str = text
    return checked


def checked_delimiter(delimiter: str, what: str) -> str:
    given: object = delimiter
    if not isinstance(given, str) or len(given) != 1 or given in '\r\n"':
        raise ConfigurationError(f"{what}'s delimiter must be one character, not {delimiter!r}")
    return delimiter
