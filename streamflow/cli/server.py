"""``streamflow server``: the embedded server in the foreground."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from streamflow.errors import ConfigurationError, StreamflowError
from streamflow.testing.server import NatsServer

_LOOK_SECONDS = 0.5


def serve(port: int, store: Path | None, say: Callable[[str], object]) -> None:
    """Run a server until SIGINT or SIGTERM. Port 0 takes any free one; without a ``store`` streams are temporary.

    Raises `StreamflowError` if it does not start, or ends by itself.
    """
    if port:
        _check_free(port)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    with _server(port, store) as server:
        say(
            f"NATS with JetStream at {server.url}, its streams in {store or 'a temporary folder'}. Ctrl-C ends it."
        )
        while not asked.wait(_LOOK_SECONDS):
            if not server.running:
                raise StreamflowError(
                    f"nats-server ended by itself; the end of its log:\n{server.log()[-2000:]}"
                )
    say("stopped")


def _server(port: int, store: Path | None) -> NatsServer:
    if store is None:
        return NatsServer(port=port or None)
    # JSON's strings are strings of the server's configuration too.
    folder = json.dumps(str(store.resolve()))
    return NatsServer(port=port or None, jetstream=False, config=f"jetstream {{ store_dir: {folder} }}")


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} of 127.0.0.1 cannot be used ({error.strerror}); choose another: --port"
            ) from error
