"""Requests and their answers, with any number under way.

Each request has a reply subject of its own below one subscription, as those of nats-py's ``request`` have. Requests
that are made in one turn of the event loop are written in one piece, in the order in which they were made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Self

from nats.aio.client import Client

from streamflow._jetstream.admin import forbids
from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.protocol import Incoming, Outgoing, Status
from streamflow._jetstream.wire import Inbox, Wire, open_wire
from streamflow.errors import ConnectorError, StateError

ANSWER_SECONDS = 5.0

Answer = Incoming | Status


class Unanswered(Exception):
    """A request was sent, and no answer will come: it may have been served or not."""


class NotNow(Exception):
    """A request was not served, but may be soon."""


class _Request(NamedTuple):
    future: asyncio.Future[Answer]
    subject: str
    deadline: float


class Exchange:
    """Asks the server. Made by `open`, ended by `close`."""

    def __init__(self, wire: Wire) -> None:
        self.client: Client = wire.client
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

    async def ask(
        self,
        subject: bytes,
        header: bytes,
        data: bytes,
        *,
        before: Sequence[Outgoing] = (),
        timeout: float = ANSWER_SECONDS,
    ) -> Answer:
        """Send a request and return its answer. ``before`` is sent right in front of it.

        Raises `NotNow` if it cannot be sent, `Unanswered` if it was sent and the connection was lost or the time is
        over, `StateError` if it is forbidden or the connection is closed.
        """
        if not self.client.is_connected:
            if self.client.is_closed:
                raise StateError("the connection to NATS was closed")
            raise NotNow("not connected")
        loop = asyncio.get_running_loop()
        self._number += 1
        reply = b"%b.%d" % (self._prefix, self._number)
        future: asyncio.Future[Answer] = loop.create_future()
        self._requests[reply] = _Request(future, subject.decode(), loop.time() + timeout)
        self._outgoing += before
        self._outgoing.append(Outgoing(subject, reply, header, data))
        if self._sender is None:
            self._sender = loop.create_task(self._send(), name="streamflow-state-sender")
        if self._sweep_timer is None:
            self._sweep_timer = loop.call_later(1.0, self._sweep)
        try:
            return await future
        finally:
            self._requests.pop(reply, None)

    async def close(self) -> None:
        """End the subscription; whoever waits for an answer gets none."""
        self._leave()
        self._fail("closed")
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
            self._fail(error.message)
        finally:
            self._sender = None

    def _answered(self, messages: int, size: int) -> None:
        inbox, requests = self._inbox, self._requests
        arrived: list[Answer] = [*inbox.messages, *inbox.statuses]
        inbox.messages, inbox.statuses = [], []
        for answer in arrived:
            request = requests.get(answer.subject)
            if request is not None and not request.future.done():  # else one that was given up
                request.future.set_result(answer)

    def _heard(self, event: ConnectionEvent) -> None:
        if event.kind in ("disconnected", "closed"):
            self._fail(f"the connection was {'lost' if event.kind == 'disconnected' else 'closed'}")
        elif event.error is not None:
            for request in [*self._requests.values()]:
                if forbids(event.error, f'"{request.subject}"') and not request.future.done():
                    request.future.set_exception(
                        StateError(f"these credentials do not allow {request.subject}: {event.error}")
                    )

    def _fail(self, reason: str) -> None:
        for request in [*self._requests.values()]:
            if not request.future.done():
                request.future.set_exception(Unanswered(reason))

    def _sweep(self) -> None:
        """Give up on requests whose time is over."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for request in self._requests.values():
            if request.deadline <= now and not request.future.done():
                request.future.set_exception(Unanswered("no answer in time"))
        self._sweep_timer = loop.call_later(1.0, self._sweep) if self._requests else None
