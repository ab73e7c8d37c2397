"""Comma-separated values: records out of lines and into lines, quoted line breaks included."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from streamflow._named_tuples import arrays_for, fields_of
from streamflow.connectors._blocking import FAILURES, Input
from streamflow.connectors._lines import Blocks, check_reached, split, text_pieces, unreadable
from streamflow.engine.chunk import CHUNK_SIZE
from streamflow.errors import CodecError, ConfigurationError, shorten

Record = tuple[int, list[str], list[str] | csv.Error]
"""What is read: the last line of a record, the header, and the fields or why they cannot be told."""


def records(encoding: str, delimiter: str) -> Blocks:
    """Blocks of records, without those that end in the lines to leave out."""

    def blocks(source: Input, skip: int) -> Iterator[list[Record]]:
        lines = _Lines(split(text_pieces(source, encoding), "\n"))
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        block: list[Record] = []
        failure: Exception | None = None
        try:
            for fields in _each(reader):
                if header is None:
                    header = _checked_header(fields)
                elif reader.line_num > skip:
                    block.append((reader.line_num, header, fields))
                    if lines.used_up or len(block) == CHUNK_SIZE:
                        yield block
                        block = []
        except (*FAILURES, csv.Error, ValueError) as error:
            failure = error
        if block:
            yield block
        if failure is not None:
            raise unreadable(source, reader.line_num + 1, failure) from failure
        check_reached(source, reader.line_num, skip)

    return blocks


_NESTED = (dict, list, tuple)


class _Lines(Iterator[str]):
    """Single lines, with what ends them, for the csv module."""

    def __init__(self, blocks: Iterator[list[str]]) -> None:
        self._blocks = blocks
        self._lines: Iterator[str] = iter(())
        self._left = 0
        self._first = True

    @property
    def used_up(self) -> bool:
        """Whether the next line must first be read."""
        return self._left == 0

    def __next__(self) -> str:
        while not self._left:
            block = next(self._blocks)
            if self._first and block:
                # A byte order mark would hide the quotes of the first name.
                block[0] = block[0].removeprefix("\ufeff")
                self._first = False
            self._lines, self._left = iter(block), len(block)
        self._left -= 1
        return next(self._lines) + "\n"


def _each(reader: Any) -> Iterator[list[str] | csv.Error]:
    """Each record that is not empty. A malformed one is an error among them, and the next line begins the next."""
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield error
            continue
        if fields is None:
            return
        if fields:
            yield fields


def _checked_header(fields: list[str] | csv.Error) -> list[str]:
    if isinstance(fields, csv.Error):
        raise fields
    for name in fields:
        if fields.count(name) > 1:
            raise ValueError(f"the header has {name!r} twice")
    return fields


def row_decoder(path: str, kind: Any) -> Callable[[Record], Any]:
    """From a record to a dict, or to a value of the type."""
    convert = _converter(kind)

    def decode(record: Record) -> Any:
        line, header, fields = record
        if isinstance(fields, csv.Error):
            raise CodecError(f"{path}, line {line}: malformed: {fields}") from fields
        if len(fields) != len(header):
            raise CodecError(f"{path}, line {line}: {len(fields)} fields, and the header has {len(header)}")
        row = dict(zip(header, fields, strict=True))
        if convert is None:
            return row
        try:
            return convert(row)
        except Exception as error:
            raise CodecError(f"{path}, line {line}: {type(error).__name__}: {error}") from error

    return decode


def _converter(kind: Any) -> Callable[[dict[str, Any]], Any] | None:
    if kind is None:
        return None
    from msgspec import inspect, json

    try:
        fields = getattr(inspect.type_info(kind), "fields", None)
        if fields is None:
            raise TypeError("it has no fields")
        to_arrays = arrays_for(kind)
        decode = json.Decoder(kind, strict=False).decode
    except Exception as error:
        raise ConfigurationError(f"CsvSource cannot make a {kind!r} of a record: {error}") from error
    # By way of JSON, which takes a third of the time of msgspec.convert.
    encode = json.Encoder().encode
    optional = {field.encode_name for field in fields if _is_optional(field.type)}

    def converted(row: dict[str, Any]) -> Any:
        for name in optional:
            if row.get(name) == "":
                row[name] = None
        return decode(encode(row if to_arrays is None else to_arrays(row)))

    return converted


def _is_optional(info: Any) -> bool:
    """Whether an empty field stands for None: the type allows None, and no text that could be empty."""
    names = {type(member).__name__ for member in getattr(info, "types", ())}
    return "NoneType" in names and "StrType" not in names


class RowEncoder:
    """From records to lines. The first record names the columns, unless they are known.

    Records are mappings, named tuples, attrs or dataclass instances or Structs; fields are scalars.
    """

    def __init__(self, fields: Sequence[str] | None, delimiter: str) -> None:
        self.fields = None if fields is None else list(fields)
        self._writerow: Callable[[Iterable[Any]], str] = csv.writer(_Echo(), delimiter=delimiter).writerow

    def header(self) -> bytes:
        """The line with the names, if they are known."""
        return b"" if self.fields is None else self._line(self.fields)

    def __call__(self, record: Any) -> bytes:
        row = _as_dict(record)
        for name, value in row.items():
            if isinstance(value, _NESTED):
                raise CodecError(f"field {name!r} of {shorten(record)} is no scalar; CSV has nothing else")
        if self.fields is None:
            line = self._line(row.values())
            self.fields = list(row)
            return self.header() + line
        if list(row) == self.fields:
            return self._line(row.values())
        if row.keys() != set(self.fields):
            columns = ", ".join(map(str, self.fields))
            raise CodecError(f"a record of {', '.join(map(str, row))} does not fit the columns {columns}")
        return self._line([row[name] for name in self.fields])

    def _line(self, fields: Iterable[Any]) -> bytes:
        # Told to end lines with a line feed alone, the module would leave carriage returns unquoted.
        return (self._writerow(fields)[:-2] + "\n").encode()


class _Echo:
    """A file for csv.writer that hands back what is written."""

    def write(self, text: str) -> str:
        return text


def _as_dict(record: Any) -> dict[str, Any]:
    """The fields of a record in their order, as builtins."""
    from msgspec import to_builtins

    if isinstance(record, Mapping):
        row = dict(record)
    else:
        names = _names[type(record)]
        if not names:
            raise CodecError(f"{shorten(record)} has no named fields for a row of CSV")
        row = {written: getattr(record, name) for name, written in names}
    try:
        builtins: dict[str, Any] = to_builtins(row)
    except Exception as error:
        raise CodecError(f"cannot encode {shorten(record)}: {error}") from error
    return builtins


class _Names(dict[type, list[tuple[str, str]]]):
    """The fields of each class, and what they are called outside."""

    def __missing__(self, kind: type) -> list[tuple[str, str]]:
        names: Sequence[str] = getattr(kind, "_fields", None) or [name for name, _ in fields_of(kind)]
        self[kind] = list(zip(names, getattr(kind, "__struct_encode_fields__", names), strict=True))
        return self[kind]


_names = _Names()


def existing_header(source: Input, delimiter: str) -> list[str] | None:
    """The header of a file; None if there is no file, or nothing in it. To be used in a worker's thread."""
    if not os.path.exists(str(source.target)):
        return None
    source.open()
    try:
        if not source.repeats:
            return None
        lines = _Lines(split(text_pieces(source, "utf-8"), "\n"))
        header = next(_each(csv.reader(lines, delimiter=delimiter, strict=True)), None)
        return None if header is None else _checked_header(header)
    except (*FAILURES, csv.Error, ValueError) as error:
        raise unreadable(source, 1, error) from error
    finally:
        source.close()
