"""`streamflow server`: a server in the foreground, gone with the command."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from streamflow.connectors import Collect
from streamflow.connectors.jetstream import JetStreamSink, JetStreamSource, StreamSettings
from streamflow.graph import Source
from streamflow.settings import Settings
from tests.child import child, left_behind


def url_of(line: str) -> str:
    match = re.search(r"nats://127\.0\.0\.1:\d+", line)
    assert match is not None
    return match[0]


def serve(folder: Path, *arguments: str) -> tuple[str, ...]:
    (folder / "temporary").mkdir(exist_ok=True)
    return ("-m", "streamflow.cli", "server", *arguments)


def publish(url: str, *values: bytes) -> int:
    sink: JetStreamSink[bytes] = JetStreamSink("WORDS", "words.all", create=StreamSettings(["words.>"]))
    return asyncio.run(Source(values).to(sink).run(settings=Settings(servers=(url,))))


def read(url: str) -> list[bytes]:
    source = JetStreamSource("WORDS", until="end")
    return asyncio.run(source.to(Collect()).run(settings=Settings(servers=(url,))))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_told_to_end_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    arguments = serve(tmp_path, "--port", "0")
    with child(*arguments, cwd=tmp_path, TMPDIR=str(tmp_path / "temporary")) as server:
        url = url_of(server.wait_for("NATS with JetStream"))
        assert publish(url, b"one", b"two") == 2
        assert read(url) == [b"one", b"two"]
        assert left_behind(tmp_path / "temporary")
        server.send(number, group=True)
        assert server.end() == 0, server.output
    assert not left_behind(tmp_path / "temporary")


def test_a_store_is_kept(tmp_path: Path) -> None:
    store = tmp_path / 'the "store"'
    for expected in ([b"one"], [b"one", b"two"]):
        with child(*serve(tmp_path, "--port", "0", "--store-dir", str(store)), cwd=tmp_path) as server:
            url = url_of(server.wait_for("NATS with JetStream"))
            publish(url, expected[-1])
            assert read(url) == expected
            server.send(signal.SIGTERM)
            assert server.end() == 0, server.output


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with child(*serve(tmp_path, "--port", str(port)), cwd=tmp_path) as server:
            assert server.end() == 1
            assert server.lines == [
                f"Error: port {port} of 127.0.0.1 cannot be used (Address already in use); choose another: --port\n"
            ]


def test_a_server_that_dies_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    with child(*serve(tmp_path, "--port", "0"), cwd=tmp_path, TMPDIR=str(tmp_path / "temporary")) as server:
        server.wait_for("NATS with JetStream")
        kill_server(tmp_path / "temporary")
        assert server.end() == 1
        assert "Error: nats-server ended by itself" in server.output


def kill_server(folder: Path) -> None:
    for pid in left_behind(folder):
        if isinstance(pid, int):
            os.kill(pid, signal.SIGKILL)
