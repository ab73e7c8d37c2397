"""How messages look on the wire: subjects, header blocks, statuses, and the reply subjects of JetStream messages.

Pure functions over bytes. Headers are encoded once per message and decoded only for those who ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from streamflow.errors import ConnectorError

MESSAGE_ID = "Nats-Msg-Id"

_HEADER_LINE = b"NATS/1.0"
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Tokens without white space, separated by dots, none of them empty or a wildcard.
_SUBJECT = re.compile(r"(?!.*(?:^|\.)[*>](?:\.|$))[^\s.]+(?:\.[^\s.]+)*")
_PLAIN_REPLY_TOKENS = 9


class Incoming(NamedTuple):
    """A message as it came over the wire. Absent parts are empty bytes; ``header`` is for `decode_headers`."""

    subject: bytes
    reply: bytes
    data: bytes
    header: bytes


class Outgoing(NamedTuple):
    """A message to send. ``header`` is an encoded header block (`encode_headers`) or empty; ``reply`` may be empty.

    Nothing in it is checked again: take subjects from `encode_subject` or from the server.
    """

    subject: bytes
    reply: bytes
    header: bytes
    data: bytes


class Status(NamedTuple):
    """What the server says instead of a message: 503 (no responders), 408 (request timeout), 100 (heartbeat), …"""

    subject: bytes
    code: int
    description: str
    headers: Mapping[str, str]


class Delivery(NamedTuple):
    """What JetStream tells in the reply subject of a message.

    ``deliveries`` counts from 1; ``timestamp_ns`` is when the stream stored it, in nanoseconds since the epoch;
    ``pending`` is how many messages the consumer had yet to deliver after this one.
    """

    stream_sequence: int
    consumer_sequence: int
    deliveries: int
    timestamp_ns: int
    pending: int


def encode_subject(subject: object) -> bytes:
    """Check a subject to publish to and encode it."""
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise ConnectorError(
            f"{subject!r} is not a subject to publish to: it needs tokens separated by dots, without white space, "
            "empty tokens or wildcards"
        )
    return subject.encode()


def encode_headers(headers: Mapping[str, str] | None = None, message_id: str | None = None) -> bytes:
    """Encode headers and, if there is one, the id by which JetStream drops repeats; empty if there is neither.

    An id among ``headers`` is the user's, and goes before ``message_id``.

    A name must be a token of ASCII characters, a value must not contain CR or LF: a line break in it would end the
    header block.
    """
    if not headers:
        if message_id is None:
            return b""
        if not message_id.isprintable():
            _refuse_value(MESSAGE_ID, message_id)
        return b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % message_id.encode()
    pairs: list[tuple[object, object]] = [*headers.items()]
    named = {str(name).lower() for name in headers}
    if message_id is not None and MESSAGE_ID.lower() not in named:
        pairs.append((MESSAGE_ID, message_id))
    lines = ["NATS/1.0"]
    for name, value in pairs:
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConnectorError(
                f"{name!r} is not a header name: only ASCII letters, digits and !#$%&'*+-.^_`|~"
            )
        if not isinstance(value, str) or "\r" in value or "\n" in value:
            _refuse_value(name, value)
        lines.append(f"{name}: {value.strip()}")
    return "\r\n".join([*lines, "", ""]).encode()


def decode_headers(header: bytes) -> dict[str, str]:
    """Decode a header block; empty bytes give an empty dict. Of a repeated name the last value counts."""
    headers = {}
    for line in header.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    return headers


def parse_status(subject: bytes, header: bytes) -> Status:
    """Read a status such as ``NATS/1.0 408 Request Timeout`` and the headers below it."""
    line = header.partition(b"\r\n")[0][len(_HEADER_LINE) :].split(None, 1)
    description = line[1].strip().decode("utf-8", "replace") if len(line) > 1 else ""
    return Status(subject, int(line[0]), description, decode_headers(header))


def parse_reply(reply: bytes) -> Delivery:
    """Read ``$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns>.<pending>``.

    Also the long form, which has a domain and an account hash after ``$JS.ACK`` and a random token at the end.
    """
    tokens = reply.split(b".")
    first = 4 if len(tokens) == _PLAIN_REPLY_TOKENS else 6
    try:
        deliveries, stream_sequence, consumer_sequence, timestamp, pending = map(
            int, tokens[first : first + 5]
        )
    except ValueError:
        raise ConnectorError(f"{reply!r} is not the reply subject of a JetStream message") from None
    return Delivery(stream_sequence, consumer_sequence, deliveries, timestamp, pending)


def stream_sequence(reply: bytes) -> int:
    """Only the stream sequence of `parse_reply`, in a fraction of its time."""
    tokens = reply.split(b".")
    return int(tokens[5 if len(tokens) == _PLAIN_REPLY_TOKENS else 7])


def _refuse_value(name: str, value: object) -> NoReturn:
    raise ConnectorError(f"header {name}: {value!r} is not a value: it must be a text without line breaks")
