"""Requests and their answers, with any number under way.

Each request has a reply subject of its own below one subscription, as those of nats-py's ``request`` have. Requests
that are made in one turn of the event loop are written in one piece, in the order in which they were made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from nats.aio.client import Client

from streamflow._jetstream.admin import forbids
from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.protocol import Incoming, Outgoing, Status
from streamflow._jetstream.wire import Inbox, Wire, open_wire
from streamflow.errors import ConnectorError, StateError

ANSWER_SECONDS = 5.0

Answer = Incoming | Status

Done = Callable[[Answer | Exception], None]
"""Told how a request ended. It runs where answers are read, so it must not raise."""


class Unanswered(Exception):
    """A request was sent, and no answer will come: it may have been served or not."""


class NotNow(Exception):
    """A request was not served, but may be soon."""


class _Request(NamedTuple):
    done: Done
    subject: bytes
    deadline: float


class Exchange:
    """Asks the server. Made by `open`, ended by `close`."""

    def __init__(self, wire: Wire) -> None:
        self.client: Client = wire.client
        self.max_payload = self.client.max_payload
        self._wire = wire
        self._inbox = Inbox(self._answered)
        self._prefix = self.client.new_inbox().encode()
        self._number = 0
        self._requests: dict[bytes, _Request] = {}
        self._outgoing: list[Outgoing] = []
        self._sender: asyncio.Task[None] | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._leave = watch(self.client, self._heard)

    @classmethod
    async def open(cls, client: Client, *, wire: Wire | None = None) -> Self:
        self = cls(wire or open_wire(client))
        try:
            await self._wire.subscribe(f"{self._prefix.decode()}.*", self._inbox)
        except BaseException:
            self._leave()
            raise
        return self

    def begin(
        self,
        subject: bytes,
        header: bytes,
        data: bytes,
        done: Done,
        *,
        before: Sequence[Outgoing] = (),
        timeout: float | None = None,
    ) -> None:
        """Send a request and call ``done``, later, with its answer. ``before`` is sent right in front of it.

        Without an answer ``done`` gets `NotNow` if it could not be sent, `Unanswered` if it was sent and the connection
        was lost or the time is over, `StateError` if it is forbidden or the connection is closed.
        """
        loop = asyncio.get_running_loop()
        if not self.client.is_connected:
            closed = self.client.is_closed
            loop.call_soon(
                done, StateError("the connection to NATS was closed") if closed else NotNow("no connection")
            )
            return
        self._number += 1
        reply = b"%b.%d" % (self._prefix, self._number)
        self._requests[reply] = _Request(done, subject, loop.time() + (timeout or ANSWER_SECONDS))
        self._outgoing += before
        self._outgoing.append(Outgoing(subject, reply, header, data))
        if self._sender is None:
            self._sender = loop.create_task(self._send(), name="streamflow-state-sender")
        if self._sweep_timer is None:
            self._sweep_timer = loop.call_later(1.0, self._sweep)

    async def ask(
        self, message: Outgoing, *, before: Sequence[Outgoing] = (), timeout: float | None = None
    ) -> Answer:
        """Send a request and return its answer; raises what `begin` tells."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(outcome: Answer | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        subject, _, header, data = message
        self.begin(subject, header, data, done, before=before, timeout=timeout)
        return await future

    async def close(self) -> None:
        """End the subscription; whoever waits for an answer gets none."""
        self._leave()
        self._fail(Unanswered("the store was closed"))
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
        await self._wire.unsubscribe(self._inbox)

    async def _send(self) -> None:
        try:
            while self._outgoing:
                burst, self._outgoing = self._outgoing, []
                await self._wire.publish(burst)
        except ConnectorError as error:
            self._fail(Unanswered(error.message))
        finally:
            self._sender = None

    def _answered(self, messages: int, size: int) -> None:
        inbox, pop = self._inbox, self._requests.pop
        arrived: list[Answer] = [*inbox.messages, *inbox.statuses]
        inbox.messages, inbox.statuses = [], []
        for answer in arrived:
            request = pop(answer.subject, None)
            if request is not None:  # else one that was given up
                request.done(answer)

    def _heard(self, event: ConnectionEvent) -> None:
        if event.kind in ("disconnected", "closed"):
            self._fail(
                Unanswered(f"the connection was {'lost' if event.kind == 'disconnected' else 'closed'}")
            )
        elif event.kind == "reconnected":
            self.max_payload = self.client.max_payload
        elif event.error is not None:
            for reply, request in [*self._requests.items()]:
                subject = request.subject.decode()
                if forbids(event.error, f'"{subject}"'):
                    self._end(reply, StateError(f"these credentials do not allow {subject}: {event.error}"))

    def _fail(self, error: Exception) -> None:
        for reply in [*self._requests]:
            self._end(reply, error)

    def _end(self, reply: bytes, error: Exception) -> None:
        request = self._requests.pop(reply, None)
        if request is not None:
            request.done(error)

    def _sweep(self) -> None:
        """Give up on requests whose time is over."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for reply in [reply for reply, request in self._requests.items() if request.deadline <= now]:
            self._end(reply, Unanswered("no answer in time"))
        self._sweep_timer = loop.call_later(1.0, self._sweep) if self._requests else None
