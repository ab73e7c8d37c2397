"""Kills processes and servers while a pipeline works, and compares what comes out with the model."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats.errors
from attrs import define, field, frozen
from nats.aio.client import Client

from streamflow import Source
from streamflow._jetstream.admin import request
from streamflow._jetstream.connection import close, connect
from streamflow.codecs import Json
from streamflow.connectors import Collect
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.errors import ConnectorError
from streamflow.testing import NatsServer
from tests.chaos.job import WINDOW

_JOB = Path(__file__).parent / "job.py"
_PATIENCE = 60.0
_KEYS = 20
_FLUSH = 1e6


@frozen
class Storm:
    """How often what is hit."""

    kills: int
    """SIGKILL of the process that works."""
    zombies: int
    """SIGSTOP of it for longer than its lease, then SIGCONT."""
    servers: int
    """SIGKILL of a server, and its start."""
    seed: int = 1


@define
class Report:
    """What happened, for the closing note."""

    messages: int = 0
    hits: int = 0
    kills: int = 0
    lost: int = 0
    repeated: int = 0
    wrong: list[str] = field(factory=list)


class Jobs:
    """Two processes with the same pipeline: one works, the other stands by."""

    def __init__(self, urls: list[str], replicas: int, log: Path) -> None:
        self._arguments = [sys.executable, str(_JOB), ",".join(urls), str(replicas)]
        self._log = log
        self.processes: list[asyncio.subprocess.Process] = []
        self.gave_up = 0

    async def start(self) -> None:
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._arguments, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )
        self.processes.append(process)

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        self.processes.remove(process)
        process.kill()
        await process.wait()

    async def supervise(self) -> None:
        """Start again what ended by itself: a process that begins while no server is there gives up at once."""
        for process in [*self.processes]:
            if process.returncode is not None:
                self.gave_up += 1
                self.processes.remove(process)
                await self.start()

    async def close(self) -> None:
        for process in [*self.processes]:
            if process.returncode is None:
                await self.kill(process)


class Weather:
    """One storm over one set of servers."""

    def __init__(self, servers: list[NatsServer], replicas: int, folder: Path, storm: Storm) -> None:
        self.servers = servers
        self.urls = [server.url for server in servers]
        self.report = Report()
        self._replicas = replicas
        self._storm = storm
        self._chance = random.Random(storm.seed)
        self._jobs = Jobs(self.urls, replicas, folder / "log")
        self._over = asyncio.Event()

    async def blow(self) -> Report:
        feeding = asyncio.create_task(self._feed())
        try:
            await self._until("the first events", lambda: self._count("EVENTS"))
            for _ in range(2):
                await self._jobs.start()
            await self._hit_all()
            assert self._jobs.gave_up <= self._storm.servers, self._jobs._log.read_text()[-3000:]
            self._over.set()
            self.report.messages = await feeding
            await self._compare()
        finally:
            feeding.cancel()
            await self._jobs.close()
        return self.report

    # Events

    async def _feed(self) -> int:
        async def events() -> AsyncIterator[dict[str, Any]]:
            number = 0
            while not self._over.is_set():
                yield {"key": f"k{number % _KEYS}", "value": number, "at": number * 0.01}
                number += 1
                if number % 20 == 0:
                    await asyncio.sleep(0.02)
            for key in range(_KEYS):
                yield {"key": f"k{key}", "value": 0, "at": _FLUSH}

        sink: Any = JetStreamSink(
            "EVENTS",
            "events.new",
            codec=Json(),
            create=StreamSettings("events.>", replicas=self._replicas),
            timeout=_PATIENCE,
            servers=self.urls,
        )
        count: int = await Source(events).to(sink).run()
        return count

    # Hits

    async def _hit_all(self) -> None:
        storm = self._storm
        hits = (
            [self._kill_job] * storm.kills
            + [self._suspend] * storm.zombies
            + [self._kill_server] * storm.servers
        )
        self._chance.shuffle(hits)
        for hit in hits:
            await self._progress()
            await asyncio.sleep(self._chance.uniform(0.0, 0.6))
            working = await self._count("SUMS") < await self._count("EVENTS")
            await hit()
            self.report.kills += 1
            self.report.hits += working
            sums = await self._count("SUMS")
            assert sums <= await self._count("EVENTS"), "more outputs than events"

    async def _progress(self, more: int = 1) -> None:
        before = await self._count("SUMS")
        await self._until("progress", lambda: self._has_more("SUMS", before + more - 1))

    async def _owner(self) -> asyncio.subprocess.Process:
        """The process that works."""
        found: list[asyncio.subprocess.Process] = []

        async def look() -> bool:
            async with self._connected() as client:
                try:
                    entry = await (await client.jetstream().key_value("chaos")).get("chaos.0.owner")
                except (nats.errors.Error, TimeoutError):
                    return False
            pid = (entry.value or b"").split(b".")[-2:-1]
            found[:] = [process for process in self._jobs.processes if [b"%d" % process.pid] == pid]
            return bool(found)

        await self._until("an owner", look)
        return found[0]

    async def _kill_job(self) -> None:
        await self._jobs.kill(await self._owner())
        await self._jobs.start()

    async def _suspend(self) -> None:
        zombie = await self._owner()
        zombie.send_signal(signal.SIGSTOP)
        try:
            await self._progress(200)
        finally:
            zombie.send_signal(signal.SIGCONT)

    async def _kill_server(self) -> None:
        server = await self._leader()
        server.kill()
        await asyncio.sleep(self._chance.uniform(0.0, 0.5))
        await server.start_async()

    async def _leader(self) -> NatsServer:
        """The server that leads the checkpoints' stream."""
        if len(self.servers) == 1:
            return self.servers[0]
        info = await self._ask("STREAM.INFO.KV_chaos")
        name: str = info["cluster"]["leader"]
        return self.servers[int(name.removeprefix("n"))]

    # Looking

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        client = await connect(self.urls)
        try:
            yield client
        finally:
            await close(client)

    async def _ask(self, name: str) -> dict[str, Any]:
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    async with self._connected() as client:
                        return await request(client, name)
                except ConnectorError as error:
                    if getattr(error, "err_code", 0) == 10059:  # the stream is not there yet
                        return {"state": {"messages": 0}}
                    await asyncio.sleep(0.05)

    async def _count(self, stream: str) -> int:
        return int((await self._ask(f"STREAM.INFO.{stream}"))["state"]["messages"])

    async def _has_more(self, stream: str, than: int) -> bool:
        return await self._count(stream) > than

    async def _until(self, what: str, look: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                while not await look():
                    await self._jobs.supervise()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log = self._jobs._log
            tail = log.read_text()[-4000:] if log.exists() else ""
            raise AssertionError(f"no sign of {what} within {_PATIENCE:g} s:\n{tail}") from None

    async def _contents(self, stream: str) -> list[bytes]:
        source = JetStreamSource(stream, until="end", servers=self.urls)
        contents: list[bytes] = await source.to(Collect()).run()
        return contents

    async def _compare(self) -> None:
        """Everything in the output streams, with what follows from the events as they are stored."""
        report = self.report
        await self._until("the last sum", lambda: self._has_more("SUMS", report.messages - 1))
        events = [json.loads(event) for event in await self._contents("EVENTS")]
        report.messages = len(events)
        sums, windows = _model(events)
        await self._until("the last window", lambda: self._has_more("WINDOWS", len(windows) - 1))
        await asyncio.sleep(1.0)  # for more than there should be
        found_sums: dict[str, list[int]] = defaultdict(list)
        for message in await self._contents("SUMS"):
            pair = json.loads(message)
            found_sums[pair["key"]].append(pair["value"])
        found_windows: dict[tuple[str, float], list[int]] = defaultdict(list)
        for message in await self._contents("WINDOWS"):
            pair = json.loads(message)
            found_windows[pair["key"], pair["value"]["start"]].append(pair["value"]["value"])
        for key in sums:
            if found_sums[key] != sums[key]:
                report.wrong.append(f"sums of {key}")
        for place, value in windows.items():
            if found_windows[place] != [value]:
                report.wrong.append(f"window {place}: {found_windows[place]} instead of {value}")
        found = sum(map(len, found_sums.values())) + sum(map(len, found_windows.values()))
        expected = len(events) + len(windows)
        report.lost, report.repeated = max(0, expected - found), max(0, found - expected)


def _model(events: list[dict[str, Any]]) -> tuple[dict[str, list[int]], dict[tuple[str, float], int]]:
    """Running sums by key, and sums of the windows that the last events close."""
    sums: dict[str, list[int]] = defaultdict(list)
    windows: dict[tuple[str, float], int] = defaultdict(int)
    for event in events:
        key = event["key"]
        sums[key].append((sums[key][-1] if sums[key] else 0) + event["value"])
        if event["at"] < _FLUSH:
            windows[key, event["at"] // WINDOW * WINDOW] += event["value"]
    return sums, windows
