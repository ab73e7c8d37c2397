"""How records look as messages of a bucket's stream."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime
from typing import Any

from streamflow._jetstream.protocol import Incoming, Status, decode_headers
from streamflow.errors import FullError, StateError, shorten
from streamflow.state.bucket import MARKER_SECONDS, Record, Stale, Write
from streamflow.state.entry import Operation
from streamflow.state.jetstream.exchange import Answer, NotNow
from streamflow.state.keys import RESERVED

WRITERS = "Streamflow-Writers"
"""The header with who wrote a value: see `lineage`."""

_EXPECTED = b"Nats-Expected-Last-Subject-Sequence"
_PLAIN_ACK = re.compile(rb'\{"stream":"[-\w]+", ?"seq":(\d+)\}')
_REMEMBERED_WRITERS = 8
_DELETIONS = ("DEL", "PURGE")

_WRONG_LAST_SEQUENCE = (10071, 10164)
_FULL = (10077, 10023)
_INCOMPLETE_BATCH = 10176  # the connection was lost in the middle of it
_TOO_MANY_BATCHES = (10210, 10211)
_BATCH_TOO_LARGE = 10199
_DUPLICATE_IN_BATCH = 10201
_MESSAGE_NOT_FOUND = 10037
STREAM_NOT_FOUND = 10059


class Applied(Exception):
    """A commit that is sent again was applied already."""


def lineage(writer: str, after: Record | None) -> str:
    """Who wrote last, this writer first: ``<id>=<number>,…``.

    Each write of a value carries the last number of each of the latest writers before it. So a writer whose answer got
    lost finds its own number, also when others have written since.
    """
    before = after.writers if after is not None else ""
    own = writer.partition("=")[0] + "="
    if not before or ("," not in before and before.startswith(own)):
        return writer
    others = before.split(",")
    kept = [other for other in others if not other.startswith(own)]
    return ",".join([writer, *kept[: _REMEMBERED_WRITERS - 1]])


def has_written(writer: str, record: Record | None) -> bool:
    """Whether a record is the writer's own, or follows one that is."""
    if record is None or not record.writers:
        return False
    name, _, number = writer.partition("=")
    for other in record.writers.split(","):
        found, _, last = other.partition("=")
        if found == name and last.isdigit():
            return int(last) >= int(number)
    return False


def header_of(write: Write, writers: str, history: int) -> bytes:
    """The header of a write, without the end of the block."""
    header = b"NATS/1.0\r\nStreamflow-Writers: %b" % writers.encode()
    if write.expected is not None:
        header += b"\r\n%b: %d" % (_EXPECTED, write.expected)
    ttl = write.ttl
    if write.operation == "delete":
        header += b"\r\nKV-Operation: DEL"
        # With a history, what was before the mark of the deletion would be back when its time is up.
        ttl = MARKER_SECONDS if history == 1 else None
    elif ttl is not None and history > 1:
        header += b"\r\nNats-Rollup: sub"  # for the same reason
    if ttl is not None:
        header += b"\r\nNats-TTL: %ds" % ttl
    return header


def guard_header(subject: bytes, expected: int) -> bytes:
    """The header of a message that stores nothing to speak of, but only if another subject is as expected."""
    return b"NATS/1.0\r\nKV-Operation: DEL\r\nNats-TTL: 1s\r\n%b: %d\r\n%b-Subject: %b" % (
        _EXPECTED,
        expected,
        _EXPECTED,
        subject,
    )


def guard_subject(bucket: str) -> bytes:
    return f"$KV.{bucket}.{RESERVED}".encode()


def acknowledged(answer: Answer | Exception, what: object) -> int:
    """The revision that a write was given.

    Raises `Stale`, `NotNow` if it was not applied but may be later, else `StateError`.
    """
    if isinstance(answer, Exception):
        raise answer
    plain = _PLAIN_ACK.fullmatch(answer.data) if isinstance(answer, Incoming) else None
    if plain is not None:
        return int(plain[1])
    content = _json(answer, what)
    error = content.get("error")
    if not error:
        return int(content["seq"])
    code, reason = error.get("err_code"), f"{error.get('description')}"
    if code in _WRONG_LAST_SEQUENCE:
        raise Stale
    if code == _DUPLICATE_IN_BATCH:
        raise Applied
    if code == _BATCH_TOO_LARGE:
        raise StateError(f"{what} is too large for one atomic batch: {reason}")
    if code in _FULL:
        raise FullError(f"{what} was refused, the bucket or the server's store is full: {reason}")
    if code == _INCOMPLETE_BATCH or code in _TOO_MANY_BATCHES or error.get("code") in (429, 503):
        raise NotNow(reason)
    raise StateError(f"{what} was refused: {reason}")


def direct_record(answer: Incoming, prefix: str) -> Record:
    """A record as a direct get returns it."""
    headers = decode_headers(answer.header)
    return record_of(
        headers["Nats-Subject"].removeprefix(prefix),
        answer.data,
        headers,
        int(headers["Nats-Sequence"]),
        datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp(),
    )


def leader_record(answer: Answer, prefix: str, what: object) -> Record | None:
    """A record as the stream's leader returns it. Raises as `acknowledged` does."""
    content = _json(answer, what)
    error = content.get("error")
    if error:
        code = error.get("err_code")
        if code == _MESSAGE_NOT_FOUND:
            return None
        if code == STREAM_NOT_FOUND or error.get("code") in (429, 503):
            raise NotNow(str(error.get("description")))
        raise StateError(f"{what}: {error.get('description')}")
    message = content["message"]
    return record_of(
        message["subject"].removeprefix(prefix),
        base64.b64decode(message.get("data") or b""),
        decode_headers(base64.b64decode(message.get("hdrs") or b"")),
        int(message["seq"]),
        datetime.fromisoformat(message["time"]).timestamp(),
    )


def record_of(name: str, data: bytes, headers: dict[str, str], revision: int, at: float) -> Record:
    operation: Operation = "put"
    reason = headers.get("Nats-Marker-Reason")
    if reason is not None:  # the server's mark, in a bucket that wants it to leave one
        operation = "expire" if reason == "MaxAge" else "delete"
    elif headers.get("KV-Operation") in _DELETIONS:
        operation = "delete"
    return Record(name, data, revision, at, operation, headers.get(WRITERS, ""), headers.get("Nats-TTL", ""))


def _json(answer: Answer, what: object) -> dict[str, Any]:
    if isinstance(answer, Status):
        if answer.code == 503:
            raise NotNow("no stream answers")
        raise StateError(f"{what}: {answer.code} {answer.description}")
    try:
        content = json.loads(answer.data)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StateError(f"{what}: something that is not JetStream answered: {shorten(answer.data)}")
    return content
