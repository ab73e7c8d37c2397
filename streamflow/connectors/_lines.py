"""Lines: from bytes to blocks of lines, a reader that has the next block fetched by a thread, and a writer."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable, Iterator
from typing import Any, AnyStr, TypeVar

from streamflow.connectors._blocking import FAILURES, Input, Output, Worker, reason
from streamflow.engine.chunk import CHUNK_SIZE, Chunk
from streamflow.engine.connector import Reader, SinkContext, SourceContext, Writer
from streamflow.errors import CodecError, ConnectorError

T = TypeVar("T")

LONGEST = 64 * 1024 * 1024
"""Characters or bytes in a line; beyond that the input is taken for something that has no lines."""

Blocks = Callable[[Input, int], Iterator[list[Any]]]
"""From an open input and the number of lines to leave out: lists of elements, in the worker's thread."""


def byte_lines(source: Input, skip: int) -> Iterator[list[bytes]]:
    """Blocks of lines as bytes, without what ends them."""
    yield from _counted(source, split(_pieces(source), b"\n", b"\r"), skip)


def text_lines(encoding: str) -> Blocks:
    """Blocks of lines as text, without what ends them."""

    def blocks(source: Input, skip: int) -> Iterator[list[str]]:
        yield from _counted(source, split(text_pieces(source, encoding), "\n", "\r"), skip)

    return blocks


def numbered_lines(source: Input, skip: int) -> Iterator[list[tuple[int, bytes]]]:
    """Blocks of lines as bytes, each with its number from 1."""
    number = skip
    for lines in byte_lines(source, skip):
        yield list(enumerate(lines, number + 1))
        number += len(lines)


def json_lines(source: Input, skip: int) -> Iterator[list[tuple[int, bytes]]]:
    """The same, without blank lines and a byte order mark."""
    for block in numbered_lines(source, skip):
        if block[0][0] == 1:
            block[0] = (1, block[0][1].removeprefix(codecs.BOM_UTF8))
        if filled := [numbered for numbered in block if numbered[1] and not numbered[1].isspace()]:
            yield filled


def line_decoder(name: str, decode: Callable[[bytes], T]) -> Callable[[tuple[int, bytes]], T]:
    """Decodes numbered lines; errors say which line of what."""

    def decode_line(numbered: tuple[int, bytes]) -> T:
        try:
            return decode(numbered[1])
        except Exception as error:
            cause = error.__cause__ if isinstance(error, CodecError) else error
            raise CodecError(f"{name}, line {numbered[0]}: {error}") from cause

    return decode_line


def joined(lines: list[bytes]) -> bytes:
    """The lines with line feeds, as one piece."""
    return b"\n".join(lines) + b"\n"


def _pieces(source: Input) -> Iterator[bytes]:
    while piece := source.read():
        yield piece


def text_pieces(source: Input, encoding: str) -> Iterator[str]:
    """What is read, decoded; what comes before an undecodable byte is handed out before the error."""
    decoder = codecs.getincrementaldecoder(encoding)()
    ended = False
    while not ended:
        piece = source.read()
        ended = not piece
        state = decoder.getstate()
        try:
            text = decoder.decode(piece, ended)
        except UnicodeDecodeError as error:
            # The error counts from the bytes that waited in the decoder.
            good = piece[: max(0, error.start - len(state[0]))]
            decoder.setstate(state)
            yield decoder.decode(good)
            raise
        yield text


def split(pieces: Iterator[AnyStr], newline: Any, carriage: Any = None) -> Iterator[list[AnyStr]]:
    """Cut pieces into lines, as many at a time as a piece ends. The last one needs no newline.

    ``carriage`` is taken off the end of a line, once. What an error cuts off is no line.
    """
    empty = newline[:0]
    held: list[Any] = []
    length = 0
    for piece in pieces:
        lines: list[Any] = piece.split(newline)
        held.append(lines[0])
        length += len(lines[0])
        if length > LONGEST:
            raise ValueError(f"a line is longer than {LONGEST} characters")
        if len(lines) == 1:
            continue
        lines[0] = empty.join(held)
        held = [lines.pop()]
        length = len(held[0])
        if carriage is not None and (carriage in piece or carriage in lines[0]):
            lines = [line.removesuffix(carriage) for line in lines]
        yield lines
    last = empty.join(held)
    if last:
        yield [last if carriage is None else last.removesuffix(carriage)]


def _counted(source: Input, blocks: Iterator[list[AnyStr]], skip: int) -> Iterator[list[AnyStr]]:
    """Leave out the first lines, and say in which line reading fails."""
    number = 0
    try:
        for lines in blocks:
            start = number
            number += len(lines)
            if number > skip:
                yield lines[skip - start :] if start < skip else lines
    except (*FAILURES, ValueError) as error:
        raise unreadable(source, number + 1, error) from error
    check_reached(source, number, skip)


def unreadable(source: Input, line: int, error: BaseException) -> ConnectorError:
    return ConnectorError(f"cannot read {source.name}, line {line}: {reason(error)}")


def check_reached(source: Input, number: int, skip: int) -> None:
    """Refuse to go on behind the end: what is there is not what was read before."""
    if number < skip:
        raise ConnectorError(
            f"cannot go on in {source.name}: it ends with line {number}, and {skip} lines of it were read before"
        )


class LineReader(Reader):
    """Hands out blocks that a thread reads, one in hand and one ahead.

    ``numbered`` elements are tuples that begin with their line; the position is that of the last one handed out.
    Otherwise each element is a line.
    """

    def __init__(self, context: SourceContext, source: Input, blocks: Blocks, *, numbered: bool) -> None:
        self._origin = context.step
        self._source = source
        self._make = blocks
        self._numbered = numbered
        self._position: int = context.position or 0
        self._worker = Worker(context.step)
        self._next: asyncio.Future[list[Any] | None] | None = None
        self._values: list[Any] = []
        self._taken = 0

    async def open(self) -> LineReader:
        """Open the input and begin to read it."""
        try:
            await self._worker.submit(self._source.open)
        except BaseException:
            await self.close()
            raise
        self._blocks = self._make(self._source, self._position)
        self._fetch()
        return self

    def _fetch(self) -> None:
        self._next = self._worker.submit(next, self._blocks, None)

    async def read(self) -> Chunk | None:
        while self._taken == len(self._values):
            if self._next is None:
                return None
            await asyncio.wait(
                [self._next]
            )  # unlike awaiting the future, this leaves it alone when cancelled
            fetched, self._next = self._next, None
            values = fetched.result()
            if values is not None:
                self._values, self._taken = values, 0
                self._fetch()
        values = self._values[self._taken : self._taken + CHUNK_SIZE]
        self._taken += len(values)
        self._position = values[-1][0] if self._numbered else self._position + len(values)
        return Chunk(values, self._origin)

    def position(self) -> int | None:
        return self._position if self._source.repeats else None

    @property
    def caught_up(self) -> bool:
        waiting = self._next is not None and not self._next.done()
        return waiting and self._source.waits and self._taken == len(self._values)

    async def close(self) -> None:
        self._source.interrupt()
        if self._next is not None:
            self._next.add_done_callback(_look_at)
        await self._worker.close(self._source.close)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Nobody asks any more what reading ahead ended with."""
    if not future.cancelled():
        future.exception()


class LineWriter(Writer[int]):
    """Writes each chunk as one piece, in a thread. ``join`` makes the piece of the chunk's values, in that thread."""

    def __init__(self, context: SinkContext, target: Output, join: Callable[[list[Any]], bytes]) -> None:
        self._target = target
        self._join = join
        self._worker = Worker(context.step)
        self._count = 0
        self._at_work = False

    async def open(self) -> LineWriter:
        """Open the output."""
        try:
            await self._worker.submit(self._begin)
        except BaseException:
            await self.close()
            raise
        return self

    def _begin(self) -> None:
        self._target.open()

    async def write(self, chunk: Chunk) -> None:
        await self._take(chunk.values, chunk)

    async def _take(self, values: list[Any], chunk: Chunk) -> None:
        """Write what a chunk has become, and release it."""
        await self._put_in_thread(values, confirms=chunk.receipt is not None or chunk.lineage is not None)
        chunk.release()

    async def _put_in_thread(self, values: list[Any], *, confirms: bool) -> None:
        self._at_work = True
        await self._worker.submit(self._put, values, confirms)
        self._at_work = False
        self._count += len(values)

    def _put(self, values: list[Any], confirms: bool) -> None:
        self._target.write(self._join(values))
        if confirms:
            self._target.flush()

    async def flush(self) -> None:
        await self._worker.submit(self._target.sync)

    def result(self) -> int:
        return self._count

    async def close(self) -> None:
        if self._at_work:  # and was cancelled, or failed
            self._target.interrupt()
        await self._worker.close(self._target.close)
