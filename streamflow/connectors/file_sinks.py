"""Files of lines as sinks: text, JSON Lines and CSV; packed with gzip if the path ends in ``.gz``.

A thread writes each chunk as it comes, in place: a run that fails leaves what it had written by then. What a sink has
confirmed has been handed to the operating system; before a checkpoint counts, and at the end, it is on the disk. Named
pipes and devices are written as there is room.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen

from streamflow.codecs import Json, check_encoding
from streamflow.connectors._blocking import Input, Output
from streamflow.connectors._csv import RowEncoder, existing_header
from streamflow.connectors._lines import LineWriter, joined
from streamflow.connectors.files import Path, checked_delimiter, checked_path
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.errors import CodecError, ConfigurationError, ConnectorError, StepError, shorten
from streamflow.graph import Flow, Sink
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy


@frozen
class TextFileSink(Sink[str, int]):
    """Write each string as a line; `Pipeline.run` returns how many.

    The file is made, or emptied, when the run starts, and grows as elements come; with ``append=True`` what was there
    stays. A string with a line break in it would not come back as one line: it goes to the error policy, as do elements
    that are no strings or cannot be encoded.

    ``encoding`` is UTF-8 unless you say otherwise; to append in one that begins with a byte order mark, name the byte
    order (``utf-16-le``). Raises `ConnectorError` with the path: not allowed, no such
    directory, disk full.
    """

    path: Path
    append: bool = field(default=False, kw_only=True)
    encoding: str = field(default="utf-8", kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        checked_path(self.path, "TextFileSink")
        check_encoding(self.encoding, "TextFileSink")
        check_policy(self.on_error, "TextFileSink")

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(_text_encoder(self.encoding), on_error=self.on_error),)

    async def open(self, context: SinkContext) -> Writer[int]:
        path = os.fspath(self.path)
        return await LineWriter(context, Output(path, repr(path), append=self.append), b"".join).open()


def _text_encoder(encoding: str) -> Callable[[str], bytes]:
    # One encoder for the whole file: some begin it with a byte order mark.
    encode = codecs.getincrementalencoder(encoding)().encode

    def line(text: str) -> bytes:
        if not isinstance(text, str):
            raise CodecError(
                f"TextFileSink writes str, not {type(text).__name__}: put .via(Map(str)) before it"
            )
        if "\n" in text or text.endswith("\r"):
            raise CodecError(f"a line break in {shorten(text)}: it would not come back as one line")
        return encode(text + "\n")

    return line


@frozen
class JsonLinesSink(Sink[Any, int]):
    """Write each element as a line of JSON, encoded as by `Json`; `Pipeline.run` returns how many.

    The file is made, or emptied, when the run starts; with ``append=True`` what was there stays. Elements that do not
    encode go to the error policy. Raises `ConnectorError` as `TextFileSink` does.

    >>> import asyncio, tempfile
    >>> from streamflow import KeyedValue, Source
    >>> with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
    ...     asyncio.run(Source([KeyedValue("ada", 5), 7]).to(JsonLinesSink(file.name)).run())
    ...     print(file.read())
    2
    b'{"key":"ada","value":5}\\n7\\n'
    """

    path: Path
    append: bool = field(default=False, kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        checked_path(self.path, "JsonLinesSink")
        check_policy(self.on_error, "JsonLinesSink")

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        return (Map(Json().encode, on_error=self.on_error),)

    async def open(self, context: SinkContext) -> Writer[int]:
        path = os.fspath(self.path)
        return await LineWriter(context, Output(path, repr(path), append=self.append), joined).open()


@frozen
class CsvSink(Sink[Any, int]):
    """Write each element as a record of a CSV file; `Pipeline.run` returns how many, the header not counted.

    Elements are dicts, named tuples, attrs or dataclass instances, or Structs, whose fields are scalars; None is an
    empty field. ``fields`` names the columns (default: the fields of the first element, in their order). Elements that
    have other fields or fewer go to the error policy.

    The file is made, or emptied, when the run starts; with ``append=True`` what was there stays, and its header names
    the columns. Raises `ConnectorError` as `TextFileSink` does.

    >>> import asyncio, tempfile
    >>> from streamflow import Source
    >>> with tempfile.NamedTemporaryFile(suffix=".csv") as file:
    ...     asyncio.run(Source([{"name": "ada", "total": 5}]).to(CsvSink(file.name)).run())
    ...     print(file.read())
    1
    b'name,total\\nada,5\\n'
    """

    path: Path
    fields: Sequence[str] | None = None
    append: bool = field(default=False, kw_only=True)
    delimiter: str = field(default=",", kw_only=True)
    on_error: ErrorPolicy | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        checked_path(self.path, "CsvSink")
        checked_delimiter(self.delimiter, "CsvSink")
        check_policy(self.on_error, "CsvSink")
        if isinstance(self.fields, str) or (self.fields is not None and not self.fields):
            raise ConfigurationError(
                f"CsvSink's fields must be the names of the columns, not {self.fields!r}"
            )

    async def open(self, context: SinkContext) -> Writer[int]:
        path = os.fspath(self.path)
        return await _CsvWriter(context, Output(path, repr(path), append=self.append), self).open()


class _CsvWriter(LineWriter):
    """Encodes records itself, since the columns may be those of a file that is already there."""

    def __init__(self, context: SinkContext, target: Output, sink: CsvSink) -> None:
        super().__init__(context, target, b"".join)
        self._context = context
        self._sink = sink
        self._encode = RowEncoder(sink.fields, sink.delimiter)

    def _begin(self) -> None:
        encode, sink = self._encode, self._sink
        path = os.fspath(sink.path)
        there = existing_header(Input(path, repr(path)), sink.delimiter) if sink.append else None
        if there is not None and encode.fields not in (None, there):
            raise ConnectorError(f"cannot append to {path!r}: its columns are {there}, not {encode.fields}")
        encode.fields = there or encode.fields
        super()._begin()
        if there is None:
            self._target.write(encode.header())

    async def write(self, chunk: Chunk) -> None:
        lines: list[bytes] = []
        failure: StepError | None = None
        for record in chunk.values:
            try:
                lines.append(self._encode(record))
            except BaseException as error:
                try:
                    self._context.guard.decide(error, self._context.step, record)
                except StepError as decided:
                    failure = decided
                    break
        if failure is not None:
            # What came before it is written, and nothing of the chunk confirmed.
            await self._put_in_thread(lines, confirms=False)
            raise failure
        await self._take(lines, chunk)
