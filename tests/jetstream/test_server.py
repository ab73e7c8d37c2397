from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamflow._jetstream.admin import request
from streamflow.errors import ConfigurationError, ConnectorError, StreamflowError
from streamflow.testing.server import NatsServer
from tests.jetstream.support import add, bounded, connected, contents, filled

OWNER = """
import sys
from streamflow.testing.server import NatsServer
server = NatsServer().start()
print(server.pid, server._folder, flush=True)
{rest}
"""


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline, "the server outlived its owner"
        time.sleep(0.01)


def owner(rest: str) -> tuple[subprocess.Popen[str], int, Path]:
    """Another process that starts a server and tells its pid and folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(rest=rest)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    pid, folder = process.stdout.readline().split()
    return process, int(pid), Path(folder)


def test_starts_serves_and_leaves_nothing() -> None:
    @bounded
    async def use(url: str) -> None:
        async with connected(url) as client:
            await filled(client, [b"1"])
            assert await contents(client) == [b"1"]

    with NatsServer() as server:
        pid, folder = server.pid, server._folder
        assert folder is not None
        assert folder.exists()
        assert server.running
        use(server.url)
    assert not server.running
    assert not alive(pid)
    assert not folder.exists()


@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill])
def test_goes_on_with_port_and_store(server: NatsServer, end: object) -> None:
    @bounded
    async def write() -> None:
        async with connected(server.url) as client:
            await filled(client, [b"kept"])

    @bounded
    async def read() -> None:
        async with connected(server.url) as client:
            assert await contents(client) == [b"kept"]
            await add(client, [b"more"])

    assert callable(end)
    url, pid = server.url, server.pid
    write()
    end(server)
    assert not server.running
    assert not alive(pid)
    server.start()
    assert server.url == url
    read()
    server.restart()
    assert server.url == url


@bounded
async def test_asynchronous_context() -> None:
    async with NatsServer() as server, connected(server.url) as client:
        assert (await request(client, "INFO"))["streams"] == 0
    assert not server.running


@bounded
async def test_configuration_is_passed_on() -> None:
    with NatsServer(config="max_payload: 1234\nauthorization { user: u, password: p }") as server:
        with pytest.raises(ConnectorError, match="refused the credentials"):
            async with connected(server.url):
                pass
        async with connected(server.url, user="u", password="p") as client:
            assert client.max_payload == 1234


@bounded
async def test_without_jetstream() -> None:
    with NatsServer(jetstream=False) as server:
        async with connected(server.url) as client:
            with pytest.raises(ConnectorError, match="JetStream is not enabled"):
                await request(client, "INFO")


def test_fixed_port_in_use_is_reported(server: NatsServer) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(StreamflowError, match="address already in use"):
        NatsServer(port=port).start()


def test_impossible_configuration_shows_the_log() -> None:
    with pytest.raises(
        StreamflowError, match=r"ended at once(.|\n)*nonsense|ended at once(.|\n)*Parse error"
    ):
        NatsServer(config="nonsense {").start()


def test_not_started_says_so() -> None:
    with pytest.raises(StreamflowError, match="was not started"):
        _ = NatsServer().url


@pytest.mark.skipif(
    sys.platform != "linux", reason="asks the Linux kernel for a signal at the parent's death"
)
def test_dies_with_a_killed_owner() -> None:
    process, pid, folder = owner("sys.stdin.read()")
    with process:
        assert alive(pid)
        process.send_signal(signal.SIGKILL)
    wait_for_end(pid)
    shutil.rmtree(folder)  # nobody was left to do it


@pytest.mark.skipif(sys.platform == "win32", reason="reads /proc")
def test_dies_with_an_owner_that_forgets_it() -> None:
    process, pid, folder = owner("")
    with process:
        assert process.wait(20) == 0
    wait_for_end(pid)
    assert not folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_does_not_see_the_terminals_interrupt(server: NatsServer) -> None:
    assert os.getpgid(server.pid) != os.getpgid(0)
    assert os.getsid(server.pid) != os.getsid(0)


def test_a_missing_program_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"nats-streamflow\[server\]"):
        NatsServer().start()
