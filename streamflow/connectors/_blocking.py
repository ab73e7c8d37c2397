"""Files and descriptors that block, off the event loop: a thread for each connector, and a way to end its waiting."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import select
import selectors
import stat
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from streamflow.errors import ConnectorError

T = TypeVar("T")

PIECE = 256 * 1024
"""Bytes that are read at a time."""

_GZIP = zlib.MAX_WBITS | 16

FAILURES = (OSError, EOFError, zlib.error)
"""What reading and writing raise; EOFError is a gzip file that was cut off."""


def reason(error: BaseException) -> str:
    """What went wrong, without the path that an OSError repeats."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} is no {error.encoding} text: {error.reason}"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{said} (its reader has gone)" if isinstance(error, BrokenPipeError) else said


class Worker:
    """One thread for the blocking calls of one connector; they run in the order in which they are submitted."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"streamflow {name}")

    def submit(self, call: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    async def close(self, last: Callable[[], T]) -> T:
        """Make the last call, behind all others, and end the thread. The others must be about to return."""
        done = self.submit(last)
        try:
            await asyncio.wait([done])
        finally:
            # Cancelled while it waits, the thread ends by itself behind the last call.
            self._executor.shutdown(wait=done.done())
        return done.result()


class Gate:
    """Waits until a descriptor is ready, and not for ever: `stop` ends it, from any thread."""

    def __init__(self, descriptor: int, event: int) -> None:
        self._waiting, self._stopping = os.pipe()
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        self._selector.register(descriptor, event)
        self._selector.register(self._waiting, selectors.EVENT_READ)

    def wait(self) -> bool:
        """True when the descriptor is ready, False after `stop`."""
        return all(key.fd != self._waiting for key, _ in self._selector.select())

    def stop(self) -> None:
        os.write(self._stopping, b"\0")

    def close(self) -> None:
        self._selector.close()
        os.close(self._waiting)
        os.close(self._stopping)


class _GatedFile(io.RawIOBase):
    """Reads a pipe, terminal or device until its end or until its gate is stopped, whichever is first."""

    def __init__(self, raw: io.FileIO, gate: Gate) -> None:
        self._raw = raw
        self._gate = gate

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._gate.wait():
            count: int | None = self._raw.readinto(buffer)
            if count is not None:  # else somebody else was faster
                return count
        return 0


class _Descriptor:
    """An open file: its own, by path, or one that is only borrowed, such as standard input."""

    def __init__(self, target: str | int, name: str) -> None:
        self.target = target
        self.name = name
        self._raw: io.FileIO | None = None
        self._gate: Gate | None = None

    def open(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything."""
        if self._gate is not None:
            self._gate.close()
        if self._raw is not None:
            self._raw.close()

    def _open(self, mode: str, event: int) -> io.FileIO:
        raw = self._raw = io.FileIO(
            self.target, mode, closefd=isinstance(self.target, str), opener=_open_without_waiting
        )
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            self._gate = Gate(raw.fileno(), event)
        return raw

    @property
    def packed(self) -> bool:
        return isinstance(self.target, str) and self.target.endswith(".gz")

    @property
    def waits(self) -> bool:
        """Whether it is something that others write or read at the same time, such as a pipe or a terminal."""
        return self._gate is not None

    @property
    def repeats(self) -> bool:
        """Whether it can be read again from the beginning."""
        return isinstance(self.target, str) and self._gate is None

    def interrupt(self) -> None:
        """End the waiting in the thread, now and from now on. Regular files never wait."""
        if self._gate is not None:
            self._gate.stop()


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its other end.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


class Input(_Descriptor):
    """Reads bytes, unpacked if the path ends in .gz. To be used in the worker's thread, but for `interrupt`."""

    def open(self) -> None:
        try:
            file = self._open("rb", selectors.EVENT_READ)
        except FAILURES as error:
            raise ConnectorError(f"cannot read {self.name}: {reason(error)}") from error
        raw: io.RawIOBase = file if self._gate is None else _GatedFile(file, self._gate)
        self._file: io.RawIOBase | gzip.GzipFile = raw
        if self.packed:
            self._file = gzip.GzipFile(fileobj=io.BufferedReader(raw, PIECE))

    def read(self) -> bytes:
        """The next bytes as soon as there are any; empty at the end, and after `interrupt`."""
        return self._file.read(PIECE) or b""


class Output(_Descriptor):
    """Writes bytes, packed if the path ends in .gz. To be used in the worker's thread, but for `interrupt`."""

    def __init__(self, target: str | int, name: str, *, append: bool = False) -> None:
        super().__init__(target, name)
        self._append = append
        self._packer: Any = None
        self._failed = False

    def open(self) -> None:
        try:
            self._open("ab" if self._append else "wb", selectors.EVENT_WRITE)
        except FAILURES as error:
            raise self._failure(error) from error
        if self.packed:
            self._packer = zlib.compressobj(wbits=_GZIP)

    def write(self, data: bytes) -> None:
        """Write all of it; what is packed may wait in the packer until `flush`."""
        self._put(data if self._packer is None else self._packer.compress(data))

    def flush(self) -> None:
        """Hand all of it to the operating system, and leave nothing in the packer."""
        if self._packer is not None:
            self._put(self._packer.flush(zlib.Z_SYNC_FLUSH))

    def sync(self) -> None:
        """Have all of it on the disk."""
        self.flush()
        self._sync()

    def close(self) -> None:
        """End the file, on the disk. After a failure it is only closed."""
        try:
            if self._raw is not None and not self._failed:
                if self._packer is not None:
                    self._put(self._packer.flush(zlib.Z_FINISH))
                self._sync()
        finally:
            super().close()

    def _sync(self) -> None:
        if self._raw is not None and self.repeats:  # pipes and devices refuse it
            try:
                os.fsync(self._raw.fileno())
            except OSError as error:
                raise self._failure(error) from error

    def _put(self, data: bytes) -> None:
        assert self._raw is not None, "open it first"
        left = memoryview(data)
        try:
            while left:
                if self._gate is None:
                    left = left[self._raw.write(left) :]
                elif not self._gate.wait():
                    raise InterruptedError("stopped while it waits for its reader")
                else:
                    # As much as a pipe that is ready takes without blocking.
                    left = left[self._raw.write(left[: select.PIPE_BUF]) or 0 :]
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> ConnectorError:
        self._failed = True
        return ConnectorError(f"cannot write to {self.name}: {reason(error)}")
