"""A connection that can be held and cut: requests arrive and their answers get lost, or the requests do."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Stands between clients and a server on this machine."""

    def __init__(self, target: str) -> None:
        self._target = int(target.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._generation = 0
        self.release()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def hold(self, direction: str) -> None:
        """Pass nothing on any more "up" to the server, or "down" to the client."""
        self._open[direction].clear()

    def release(self) -> None:
        for event in self._open.values():
            event.set()

    async def cut(self) -> None:
        """Lose what was held, and every connection; new ones are fine."""
        self._generation += 1
        self.release()
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks])

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers += [writer, far_writer]
        for source, target, direction in ((reader, far_writer, "up"), (far_reader, writer, "down")):
            task = asyncio.ensure_future(self._pass_on(source, target, direction))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: str
    ) -> None:
        generation = self._generation
        try:
            while data := await source.read(65536):
                await self._open[direction].wait()
                if generation != self._generation:
                    break
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()
