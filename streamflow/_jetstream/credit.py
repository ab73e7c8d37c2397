"""How much a pull subscription may still ask for, in messages and in bytes.

A message counts from the request that asks for it until the reader has taken it. Requests are made in halves of the
window, so that there is nearly always one open at the server. Bytes are reserved per request, by the size of recent
messages; the server holds each request to its reservation, so the bound also holds when messages suddenly get larger.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

_FIRST_GUESS = 1024.0  # bytes of a message, before any was seen
_SLACK = 64 * 1024  # bytes that each request may have on top


class Ask(NamedTuple):
    """A request to make: so many messages, of so many bytes at most (None: however large)."""

    messages: int
    max_bytes: int | None


class Credit:
    """The account of one subscription: what is asked for, what has arrived, what is free."""

    def __init__(self, window: int, max_bytes: int | None) -> None:
        self._window = window
        self._max_bytes = max_bytes
        self._size = _FIRST_GUESS  # of a message, lately
        self._too_small = 0  # bytes into which the next message does not fit
        self._bursts: deque[tuple[int, int]] = deque()  # what is buffered, as it came: messages and bytes
        self.batch = window
        """The largest number of messages in one request. Lower it if the consumer has a limit."""
        self.asked = 0
        """Messages asked for and not arrived."""
        self.asked_bytes = 0
        self.buffered = 0
        """Messages arrived and not taken."""
        self.buffered_bytes = 0

    def arrived(self, messages: int, size: int) -> None:
        """A burst of so many messages came, of ``size`` bytes together."""
        self._bursts.append((messages, size))
        self.buffered += messages
        self.buffered_bytes += size
        self.asked = max(0, self.asked - messages)
        self.asked_bytes = max(0, self.asked_bytes - size)
        self._size = (self._size + size / messages) / 2
        self._too_small = 0

    def taken(self, messages: int) -> None:
        """The reader took so many, oldest first."""
        self.buffered -= messages
        while messages:
            count, size = self._bursts.popleft()
            part = size if count <= messages else size * messages // count
            if count > messages:
                self._bursts.appendleft((count - messages, size - part))
            self.buffered_bytes -= part
            messages -= min(count, messages)

    def returned(self, messages: int | None, size: int | None) -> None:
        """The server ended a request with so much of it unused; None: it did not say, so nothing counts as open."""
        self.asked = 0 if messages is None else max(0, self.asked - messages)
        self.asked_bytes = 0 if size is None else max(0, self.asked_bytes - size)

    def forget(self) -> None:
        """The open requests are lost."""
        self.asked = self.asked_bytes = 0

    def did_not_fit(self, size: int | None) -> None:
        """The next message is larger than these bytes, which a request had left (None: larger than any)."""
        self._too_small = (self._max_bytes or 0) if size is None else size

    def next(self, taking: int = 0) -> Ask | None:
        """The request to make now, None if it is too early. ``taking`` messages are about to be taken."""
        kept = self.buffered - taking
        room = self._window - self.asked - kept
        messages = min(room, self.batch)
        if 2 * room < self._window:
            return None
        if self._max_bytes is None:
            return Ask(messages, None)
        if self.asked == 0:
            self.asked_bytes = 0  # what finished requests did not use
        free = self._max_bytes - self.asked_bytes - (self.buffered_bytes if kept else 0)
        if free <= self._too_small:
            return Ask(1, None) if self.asked == 0 and not kept else None
        if 2 * free < self._max_bytes:
            return None
        likely = round(2 * messages * self._size) + _SLACK
        return Ask(messages, min(free, likely) if likely > self._too_small else free)

    def sent(self, ask: Ask) -> None:
        """The request was sent."""
        self.asked += ask.messages
        self.asked_bytes += ask.max_bytes or 0
