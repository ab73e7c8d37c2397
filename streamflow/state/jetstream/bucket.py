"""A key-value bucket of JetStream, below `ObjectStore`.

Writes go out with the revision they expect. When an answer is lost, the record that is there now is read from the
stream's leader: it says whether the write was applied (`messages.lineage`), or whether it can be sent again.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

from streamflow._jetstream.admin import JetStreamError, request, stream_info
from streamflow._jetstream.connection import close
from streamflow._jetstream.protocol import Incoming, Outgoing
from streamflow.errors import ConnectorError, StateError, shorten
from streamflow.state.bucket import Done, Message, Record, Stale, Write, revision
from streamflow.state.jetstream.exchange import ANSWER_SECONDS, Answer, Exchange, NotNow, Unanswered
from streamflow.state.jetstream.feed import JetStreamFeed
from streamflow.state.jetstream.messages import (
    STREAM_NOT_FOUND,
    Applied,
    acknowledged,
    direct_record,
    guard_header,
    guard_subject,
    has_written,
    header_of,
    leader_record,
    lineage,
)
from streamflow.state.keys import unescape

_FIRST_BACKOFF_SECONDS = 0.02
_LAST_BACKOFF_SECONDS = 0.5
_HEADER_BYTES = 1024
_END = b"\r\n\r\n"
_BYTES_A_SECOND = 10e6


class JetStreamBucket:
    """Made by `streamflow.state.jetstream.open_bucket`."""

    def __init__(
        self, name: str, exchange: Exchange, *, history: int, replicas: int, timeout: float, owned: bool
    ) -> None:
        self.name = name
        self.stream = f"KV_{name}"
        self.prefix = f"$KV.{name}."
        self.client = exchange.client
        self.keeps_history = history > 1
        self._history = history
        # Of several replicas any may answer a direct get, also one that is behind.
        self._reads_directly = replicas == 1
        self._exchange = exchange
        self._timeout = timeout
        self._owned = owned
        self._writer = secrets.token_hex(6)
        self._number = 0
        self._tasks: set[asyncio.Task[Record]] = set()

    async def get(self, name: str) -> Record | None:
        patience = _Patience(_About(self.name, name), self._timeout)
        return await self._get(name, patience, direct=self._reads_directly)

    def begin(self, write: Write, done: Done) -> None:
        self._number += 1
        writer = f"{self._writer}={self._number}"
        writers = lineage(writer, write.after)
        header = header_of(write, writers, self._history)
        if not write.expected:  # nothing to expect keeps a late copy of it out
            header += b"\r\nNats-Msg-Id: %b" % writer.encode()
        subject = f"{self.prefix}{write.name}".encode()
        sent = _Sent(self, subject, header + _END, write, writers, done)
        self._exchange.begin(subject, sent.header, write.data, sent.answered)

    async def _insist(self, sent: _Sent, reason: Exception) -> Record:
        """Go on with a write that was not answered, until it is known to be applied or not to be."""
        write, writers = sent.write, sent.writers
        patience = _Patience(_About(self.name, write.name), self._timeout)
        writer = writers.partition(",")[0]
        message = Outgoing(sent.subject, b"", sent.header, write.data)
        unanswered = False
        while True:
            if isinstance(reason, NotNow):
                await self._wait(patience, reason)
            else:
                unanswered = True
                await patience.wait(reason, ambiguous=True)
            # Without an expectation it is sent again as it is: if it was applied, the answer is the first one's.
            if unanswered and write.expected is not None:
                found = await self._get(write.name, patience, direct=False)
                if found is not None and has_written(writer, found):
                    # Under what others wrote since, its revision is not known any more: only that it is not the last.
                    own = found.writers.partition(",")[0] == writer
                    return _written(write, found.revision if own else write.expected + 1, writers)
                if revision(found) != write.expected:
                    raise Stale
            try:
                answer = await self._exchange.ask(message)
                return _written(write, acknowledged(answer, patience.about), writers)
            except (NotNow, Unanswered) as error:
                reason = error
            except Stale:
                if not unanswered:
                    raise
                reason = Unanswered("another write came first")  # perhaps the one without an answer

    def insist(self, sent: _Sent, reason: Exception) -> None:
        """Go on with a write in a task of its own."""

        def ended(task: asyncio.Task[Record]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                sent.done(StateError(f"bucket {self.name!r} was closed"))
            else:
                error = task.exception()
                sent.done(error if isinstance(error, Exception) else task.result())

        task = asyncio.get_running_loop().create_task(self._insist(sent, reason))
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def commit(
        self,
        writes: Sequence[Write],
        guards: Sequence[tuple[str, int]],
        messages: Sequence[Message] = (),
    ) -> list[Record]:
        self._number += 1
        commit = f"{self._writer}.{self._number}"
        count = len(writes) + len(guards) + len(messages)
        patience = _Patience(_About(self.name, count), self._timeout)
        unanswered = False
        while True:
            try:
                first = await self._send_batch(commit, writes, guards, messages, patience) - count + 1
                return [
                    _written(write, first + index, lineage(f"{commit}=1", write.after))
                    for index, write in enumerate(writes)
                ]
            except Applied:
                return []
            except NotNow as reason:
                await self._wait(patience, reason)
                continue
            except Unanswered as reason:
                unanswered = True
                await patience.wait(reason, ambiguous=True)
            except Stale:
                if not unanswered:
                    raise
            if await self._was_applied(f"{commit}=1", writes, guards, patience):
                return []

    @property
    def max_value(self) -> int:
        return self._exchange.max_payload - _HEADER_BYTES

    def check(self, name: str, data: bytes) -> None:
        largest = self.max_value
        if len(data) > largest:
            raise StateError(
                f"bucket {self.name!r}, key {shorten(unescape(name))}: a value of {len(data)} bytes; the server "
                f"takes {largest} beside the headers (max_payload)"
            )

    def feed(self, pattern: str, *, history: bool = False, values: bool = True) -> JetStreamFeed:
        return JetStreamFeed(self, pattern, history=history, values=values)

    async def close(self) -> None:
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks])
        await self._exchange.close()
        if self._owned:
            await close(self.client)

    async def destroy(self) -> None:
        try:
            await request(self.client, f"STREAM.DELETE.{self.stream}")
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise StateError(f"cannot delete bucket {self.name!r}: {error}") from error
        except ConnectorError as error:
            raise StateError(f"cannot delete bucket {self.name!r}: {error}") from error

    async def exists(self) -> bool:
        """Whether the stream is there; yes as long as nobody says no."""
        try:
            return await stream_info(self.client, self.stream) is not None
        except ConnectorError:
            return True

    def gone(self) -> StateError:
        return StateError(f"bucket {self.name!r} was deleted")

    async def _get(self, name: str, patience: _Patience, *, direct: bool) -> Record | None:
        subject = f"{self.prefix}{name}".encode()
        while True:
            try:
                if direct:
                    return await self._ask_any(subject, patience.about)
                return await self._ask_leader(subject, patience.about)
            except Unanswered as reason:
                await patience.wait(reason)
            except NotNow as reason:
                await self._wait(patience, reason)

    async def _ask_any(self, subject: bytes, what: object) -> Record | None:
        question = b"$JS.API.DIRECT.GET.%b.%b" % (self.stream.encode(), subject)
        answer = await self._exchange.ask(Outgoing(question, b"", b"", b""))
        if isinstance(answer, Incoming):
            return direct_record(answer, self.prefix)
        if answer.code == 404:
            return None
        if answer.code == 503:
            raise NotNow("no stream answers")
        raise StateError(f"{what}: {answer.code} {answer.description}")

    async def _ask_leader(self, subject: bytes, what: object) -> Record | None:
        question = f"$JS.API.STREAM.MSG.GET.{self.stream}".encode()
        last = b'{"last_by_subj":"%b"}' % subject
        answer = await self._exchange.ask(Outgoing(question, b"", b"", last))
        return leader_record(answer, self.prefix, what)

    async def _send_batch(
        self,
        commit: str,
        writes: Sequence[Write],
        guards: Sequence[tuple[str, int]],
        messages: Sequence[Message],
        patience: _Patience,
    ) -> int:
        """Send it once, under a batch id of its own."""
        batch = secrets.token_hex(8).encode()
        parts: list[tuple[bytes, bytes, bytes]] = []
        for write in writes:
            header = header_of(write, lineage(f"{commit}=1", write.after), self._history)
            if not parts:
                header += b"\r\nNats-Msg-Id: %b" % commit.encode()
            parts.append((f"{self.prefix}{write.name}".encode(), header, write.data))
        for name, expected in guards:
            header = guard_header(f"{self.prefix}{name}".encode(), expected)
            parts.append((guard_subject(self.name), header, b""))
        place = f"$TX.{self.name}.".encode()
        for subject, header, data in messages:
            parts.append((place + subject, header.removesuffix(_END) or b"NATS/1.0", data))
        outgoing = []
        for index, (subject, header, data) in enumerate(parts, 1):
            header += b"\r\nNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d" % (batch, index)
            if index == len(parts):
                header += b"\r\nNats-Batch-Commit: 1"
            outgoing.append(Outgoing(subject, b"", header + _END, data))
        *before, last = outgoing
        size = sum(len(message.data) for message in outgoing)
        timeout = ANSWER_SECONDS + size / _BYTES_A_SECOND
        answer = await self._exchange.ask(last, before=before, timeout=timeout)
        return acknowledged(answer, patience.about)

    async def _was_applied(
        self, writer: str, writes: Sequence[Write], guards: Sequence[tuple[str, int]], patience: _Patience
    ) -> bool:
        """Whether a commit without an answer was applied. Raises `Stale` if it was not and cannot be any more."""
        for write in writes:
            if has_written(writer, await self._get(write.name, patience, direct=False)):
                return True
        fences = [(write.name, write.expected) for write in writes if write.expected is not None]
        for name, expected in [*fences, *guards]:
            if revision(await self._get(name, patience, direct=False)) != expected:
                raise Stale
        return False

    async def _wait(self, patience: _Patience, reason: Exception) -> None:
        """Wait before the next try, unless there is nothing to wait for."""
        await patience.wait(reason)
        if self.client.is_connected and not await self.exists():
            raise self.gone()


class _Sent:
    """A write on its way."""

    __slots__ = ("_bucket", "done", "header", "subject", "write", "writers")

    def __init__(
        self, bucket: JetStreamBucket, subject: bytes, header: bytes, write: Write, writers: str, done: Done
    ) -> None:
        self._bucket = bucket
        self.subject = subject
        self.header = header
        self.write = write
        self.writers = writers
        self.done = done

    def __str__(self) -> str:
        return str(_About(self._bucket.name, self.write.name))

    def answered(self, answer: Answer | Exception) -> None:
        try:
            record = _written(self.write, acknowledged(answer, self), self.writers)
        except (NotNow, Unanswered) as reason:
            self._bucket.insist(self, reason)
        except Exception as error:
            self.done(error)
        else:
            self.done(record)


class _About(NamedTuple):
    """What an operation is about, for its errors: a name, or the number of keys in a transaction."""

    bucket: str
    subject: str | int

    def __str__(self) -> str:
        if isinstance(self.subject, int):
            return f"bucket {self.bucket!r}, a transaction of {self.subject} keys"
        return f"bucket {self.bucket!r}, key {shorten(unescape(self.subject))}"


class _Patience:
    """How long an operation may go on without success."""

    def __init__(self, about: _About, timeout: float) -> None:
        self.about = about
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._failures = 0
        self._ambiguous = False

    async def wait(self, reason: Exception, *, ambiguous: bool = False) -> None:
        self._ambiguous |= ambiguous
        if asyncio.get_running_loop().time() >= self._deadline:
            unknown = "; it may or may not have been applied" if self._ambiguous else ""
            raise StateError(
                f"{self.about}: not done within {self._timeout:g} s: {reason}{unknown}"
            ) from reason
        delay = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 8), _LAST_BACKOFF_SECONDS)
        self._failures += 1
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))


def _written(write: Write, sequence: int, writers: str) -> Record:
    return Record(write.name, write.data, sequence, time.time(), write.operation, writers)
