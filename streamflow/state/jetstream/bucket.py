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

from streamflow._jetstream.admin import JetStreamError, request, stream_info
from streamflow._jetstream.connection import close
from streamflow._jetstream.protocol import Incoming, Outgoing
from streamflow.errors import ConnectorError, StateError, shorten
from streamflow.state.bucket import Record, Stale, Write, revision
from streamflow.state.jetstream.exchange import ANSWER_SECONDS, Exchange, NotNow, Unanswered
from streamflow.state.jetstream.feed import JetStreamFeed
from streamflow.state.jetstream.messages import (
    STREAM_NOT_FOUND,
    Ack,
    Applied,
    acknowledged,
    direct_record,
    guard_header,
    guard_subject,
    has_written,
    header_of,
    joined,
    leader_record,
    lineage,
)
from streamflow.state.keys import unescape

_FIRST_BACKOFF_SECONDS = 0.02
_LAST_BACKOFF_SECONDS = 0.5
_HEADER_BYTES = 1024
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

    async def get(self, name: str) -> Record | None:
        patience = self._patience(f"key {shorten(unescape(name))}")
        return await self._get(name, patience, direct=self._reads_directly)

    async def write(self, write: Write) -> Record:
        self._number += 1
        writer = f"{self._writer}={self._number}"
        writers = lineage(writer, write.after)
        lines = header_of(write, writers, self._history)
        if not write.expected:  # nothing to expect keeps a late copy of it out
            lines.append(b"Nats-Msg-Id: %b" % writer.encode())
        subject, header = f"{self.prefix}{write.name}".encode(), joined(lines)
        patience = self._patience(f"a write of key {shorten(unescape(write.name))}")
        unanswered = False
        while True:
            try:
                answer = await self._exchange.ask(subject, header, write.data)
                sequence = acknowledged(answer, patience.what).revision
                return _written(write, sequence, writers)
            except NotNow as reason:
                await self._wait(patience, reason)
                continue
            except Unanswered as reason:
                unanswered = True
                await patience.wait(reason, ambiguous=True)
            except Stale:
                if not unanswered:
                    raise
            if write.expected is None:
                continue  # the same id again: if it was applied, the answer is the first one's
            found = await self._get(write.name, patience, direct=False)
            if found is not None and has_written(writer, found):
                # Under what others wrote since, its revision is not known any more: only that it is not the last.
                own = found.writers.partition(",")[0] == writer
                return _written(write, found.revision if own else write.expected + 1, writers)
            if revision(found) != write.expected:
                raise Stale

    async def commit(self, writes: Sequence[Write], guards: Sequence[tuple[str, int]]) -> list[Record]:
        self._number += 1
        commit = f"{self._writer}.{self._number}"
        count = len(writes) + len(guards)
        patience = self._patience(f"a transaction of {count} keys")
        unanswered = False
        while True:
            try:
                last = (await self._send_batch(commit, writes, guards, patience)).revision
                first = last - count + 1
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

    def check(self, name: str, data: bytes) -> None:
        largest = self.client.max_payload - _HEADER_BYTES
        if len(data) > largest:
            raise StateError(
                f"bucket {self.name!r}, key {shorten(unescape(name))}: a value of {len(data)} bytes; the server "
                f"takes {largest} beside the headers (max_payload)"
            )

    def feed(self, pattern: str, *, history: bool = False, values: bool = True) -> JetStreamFeed:
        return JetStreamFeed(self, pattern, history=history, values=values)

    async def close(self) -> None:
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
                    return await self._ask_any(subject, patience.what)
                return await self._ask_leader(subject, patience.what)
            except Unanswered as reason:
                await patience.wait(reason)
            except NotNow as reason:
                await self._wait(patience, reason)

    async def _ask_any(self, subject: bytes, what: str) -> Record | None:
        question = b"$JS.API.DIRECT.GET.%b.%b" % (self.stream.encode(), subject)
        answer = await self._exchange.ask(question, b"", b"")
        if isinstance(answer, Incoming):
            return direct_record(answer, self.prefix)
        if answer.code == 404:
            return None
        if answer.code == 503:
            raise NotNow("no stream answers")
        raise StateError(f"bucket {self.name!r}, {what}: {answer.code} {answer.description}")

    async def _ask_leader(self, subject: bytes, what: str) -> Record | None:
        question = f"$JS.API.STREAM.MSG.GET.{self.stream}".encode()
        answer = await self._exchange.ask(question, b"", b'{"last_by_subj":"%b"}' % subject)
        return leader_record(answer, self.prefix, f"bucket {self.name!r}, {what}")

    async def _send_batch(
        self, commit: str, writes: Sequence[Write], guards: Sequence[tuple[str, int]], patience: _Patience
    ) -> Ack:
        """Send it once, under a batch id of its own."""
        batch = secrets.token_hex(8).encode()
        parts: list[tuple[bytes, list[bytes], bytes]] = []
        for write in writes:
            lines = header_of(write, lineage(f"{commit}=1", write.after), self._history)
            parts.append((f"{self.prefix}{write.name}".encode(), lines, write.data))
        if writes:
            parts[0][1].append(b"Nats-Msg-Id: %b" % commit.encode())
        for name, expected in guards:
            lines = guard_header(f"{self.prefix}{name}".encode(), expected)
            parts.append((guard_subject(self.name), lines, b""))
        for index, (_, lines, _) in enumerate(parts, 1):
            lines += [b"Nats-Batch-Id: %b" % batch, b"Nats-Batch-Sequence: %d" % index]
        parts[-1][1].append(b"Nats-Batch-Commit: 1")
        messages = [Outgoing(subject, b"", joined(lines), data) for subject, lines, data in parts]
        *before, last = messages
        size = sum(len(message.data) for message in messages)
        answer = await self._exchange.ask(
            last.subject,
            last.header,
            last.data,
            before=before,
            timeout=ANSWER_SECONDS + size / _BYTES_A_SECOND,
        )
        return acknowledged(answer, f"bucket {self.name!r}: {patience.what}")

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

    def _patience(self, what: str) -> _Patience:
        return _Patience(self.name, what, self._timeout)


class _Patience:
    """How long an operation may go on without success."""

    def __init__(self, bucket: str, what: str, timeout: float) -> None:
        self.what = what
        self._bucket = bucket
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._failures = 0
        self._ambiguous = False

    async def wait(self, reason: Exception, *, ambiguous: bool = False) -> None:
        self._ambiguous |= ambiguous
        if asyncio.get_running_loop().time() >= self._deadline:
            unknown = "; it may or may not have been applied" if self._ambiguous else ""
            raise StateError(
                f"bucket {self._bucket!r}, {self.what}: not done within {self._timeout:g} s: {reason}{unknown}"
            ) from reason
        delay = min(_FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 8), _LAST_BACKOFF_SECONDS)
        self._failures += 1
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))


def _written(write: Write, sequence: int, writers: str) -> Record:
    return Record(write.name, write.data, sequence, time.time(), write.operation, writers)
