"""Streams and consumers: make sure they exist, look at them, and say clearly what is wrong.

Nothing that exists is ever changed. A stream or consumer that is there and differs from what was asked for is a
`ConnectorError` that lists each setting as wanted and as found.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.js.api import ConsumerInfo, StreamInfo

from streamflow._jetstream.connection import ConnectionEvent, watch
from streamflow._jetstream.settings import ConsumerSettings, StreamSettings
from streamflow.errors import ConfigurationError, ConnectorError

T = TypeVar("T")

REQUEST_SECONDS = 5.0
_ELECTION_SECONDS = 15.0

_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_MESSAGE_NOT_FOUND = 10037
_STREAM_EXISTS = 10058
_CONSUMER_EXISTS = 10148
_SUBJECTS_OVERLAP = 10065
_NOT_ENABLED = (10076, 10039)  # on the server, for the account
_INVALID_IN_NAME = frozenset(">*. /\\\t\r\n")
_UNLIMITED = (-1, 0)

# How our settings are called where the server's API calls them otherwise.
_OUR_NAMES = {
    "num_replicas": "replicas",
    "max_msgs": "max_messages",
    "max_msgs_per_subject": "max_messages_per_subject",
    "max_msg_size": "max_message_size",
    "deliver_policy": "deliver",
    "opt_start_seq": "start_sequence",
    "ack_policy": "ack",
    "durable_name": "durable",
}
_DURATIONS = ("max_age", "duplicate_window", "ack_wait")


class JetStreamError(ConnectorError):
    """JetStream answered a request with an error. ``code`` is like an HTTP status, ``err_code`` says exactly which."""

    def __init__(self, message: str, code: int, err_code: int) -> None:
        super().__init__(message)
        self.code = code
        self.err_code = err_code


class UnansweredError(ConnectorError):
    """Nobody answered a request to JetStream in time: it may have been served or not."""


async def ensure_stream(client: Client, name: str, create: StreamSettings | None = None) -> StreamInfo:
    """Find the stream, or create it as ``create`` says; without ``create`` it must exist.

    A stream that exists must have the settings in ``create``; it may take in more subjects.
    """
    if create is not None:
        config = create.config()
        return await ensure_stream_like(client, name, config, config, what=f"stream {name!r}")
    found = await _patiently(lambda: stream_info(client, name))
    if found is None:
        raise ConnectorError(
            f"there is no stream {name!r}. Create it, or let it be created: "
            f'create=StreamSettings(["<its subjects>"])'
        )
    return found


async def ensure_stream_like(
    client: Client,
    name: str,
    config: Mapping[str, Any],
    required: Mapping[str, Any],
    *,
    what: str,
    names: Mapping[str, str] = _OUR_NAMES,
) -> StreamInfo:
    """Find the stream, or create it with ``config``; what is ``required`` it must have, and may have more subjects.

    Errors call it ``what``, and its settings by ``names`` where the server's API calls them otherwise.
    """

    async def ensured() -> dict[str, Any]:
        found = await _find(client, f"STREAM.INFO.{_name(name, 'stream')}", _STREAM_NOT_FOUND)
        return await _create_stream(client, name, config, what) if found is None else found

    found = await _patiently(ensured)
    _compare(what, _stream_conflicts(required, found["config"], names))
    info: StreamInfo = StreamInfo.from_response(found)
    return info


async def ensure_consumer(client: Client, stream: str, settings: ConsumerSettings) -> ConsumerInfo:
    """Find the consumer, or create it. One that exists must match, but may allow more time and more unacknowledged."""
    name = _name(settings.name, "consumer")
    lookup = f"CONSUMER.INFO.{_name(stream, 'stream')}.{name}"

    async def ensured() -> dict[str, Any]:
        found = await _find(client, lookup, _CONSUMER_NOT_FOUND, _STREAM_NOT_FOUND)
        return await _create_consumer(client, stream, settings) if found is None else found

    found = await _patiently(ensured)
    _compare(f"consumer {name!r} of stream {stream!r}", _consumer_conflicts(settings, found["config"]))
    info: ConsumerInfo = ConsumerInfo.from_response(found)
    return info


async def stream_info(client: Client, name: str) -> StreamInfo | None:
    """The stream's settings and state, None if it does not exist."""
    found = await _find(client, f"STREAM.INFO.{_name(name, 'stream')}", _STREAM_NOT_FOUND)
    return None if found is None else StreamInfo.from_response(found)


async def consumer_info(client: Client, stream: str, consumer: str) -> ConsumerInfo | None:
    """The consumer's settings and state, e.g. ``num_pending``; None if it, or the stream, does not exist."""
    request = f"CONSUMER.INFO.{_name(stream, 'stream')}.{_name(consumer, 'consumer')}"
    found = await _find(client, request, _CONSUMER_NOT_FOUND, _STREAM_NOT_FOUND)
    return None if found is None else ConsumerInfo.from_response(found)


async def last_sequence(client: Client, stream: str, subject: str = ">") -> int | None:
    """The sequence of the last message that is stored under ``subject`` (wildcards allowed), None if there is none."""
    request = f"STREAM.MSG.GET.{_name(stream, 'stream')}"
    found = await _find(client, request, _MESSAGE_NOT_FOUND, payload={"last_by_subj": subject})
    return None if found is None else int(found["message"]["seq"])


async def request(client: Client, name: str, payload: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask the JetStream API, e.g. ``STREAM.INFO.ORDERS``, and return its answer.

    An error in the answer is a `JetStreamError`. No JetStream, no answer within 5 s and a missing permission are
    `ConnectorError`\\ s that say so.
    """
    subject = f"$JS.API.{name}"
    data = json.dumps(payload).encode() if payload is not None else b""
    try:
        answer = await _answer(client, subject, data)
    except nats.errors.NoRespondersError as error:
        raise ConnectorError(
            "JetStream is not enabled on this NATS server (nothing answers its API): start nats-server with -js"
        ) from error
    except TimeoutError as error:
        raise UnansweredError(f"JetStream did not answer {subject} within {REQUEST_SECONDS:.0f} s") from error
    except nats.errors.Error as error:
        raise ConnectorError(f"cannot ask JetStream for {subject}: {error}") from error
    response: dict[str, Any] = json.loads(answer)
    if "error" in response:
        raise _api_error(response["error"])
    return response


async def _answer(client: Client, subject: str, data: bytes) -> bytes:
    """The answer to one request. The server does not answer what is forbidden: it reports that to the connection."""
    refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def heard(event: ConnectionEvent) -> None:
        if event.error is not None and forbids(event.error, subject, "_inbox.") and not refused.done():
            refused.set_result(event.error)

    leave = watch(client, heard)
    asking = asyncio.ensure_future(client.request(subject, data, timeout=REQUEST_SECONDS))
    try:
        await asyncio.wait((asking, refused), return_when=asyncio.FIRST_COMPLETED)
        if refused.done():
            error = refused.result()
            raise ConnectorError(
                f"these credentials do not allow to use JetStream ({subject}): {error}"
            ) from error
        return asking.result().data
    finally:
        leave()
        asking.cancel()


def forbids(error: Exception, *subjects: str) -> bool:
    """Whether this error of the connection says that one of the subjects is not permitted."""
    text = str(error).lower()  # nats-py lower-cases what the server says
    return "permissions violation" in text and any(subject.lower() in text for subject in subjects)


async def _find(
    client: Client, name: str, *absent: int, payload: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    try:
        return await request(client, name, payload)
    except JetStreamError as error:
        if error.err_code in absent:
            return None
        raise


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again when nobody answers: a cluster elects a leader, which takes some seconds."""
    deadline = asyncio.get_running_loop().time() + _ELECTION_SECONDS
    while True:
        try:
            return await ask()
        except UnansweredError:
            if asyncio.get_running_loop().time() >= deadline:
                raise


async def _create_stream(client: Client, name: str, config: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        return await request(client, f"STREAM.CREATE.{name}", {"name": name, **config})
    except JetStreamError as error:
        if error.err_code == _STREAM_EXISTS:  # somebody else created it meanwhile
            return await request(client, f"STREAM.INFO.{name}")
        if error.err_code == _SUBJECTS_OVERLAP:
            owners = await _owners(client, config["subjects"])
            raise ConnectorError(
                f"cannot create {what}: of its subjects {config['subjects']} some belong to another "
                f"stream already: {', '.join(owners) or 'unknown'}"
            ) from error
        raise ConnectorError(f"cannot create {what}: {error.message}") from error


async def _owners(client: Client, subjects: Sequence[str]) -> list[str]:
    owners: set[str] = set()
    for subject in subjects:
        owners.update((await request(client, "STREAM.NAMES", {"subject": subject})).get("streams") or ())
    return sorted(owners)


async def _create_consumer(client: Client, stream: str, settings: ConsumerSettings) -> dict[str, Any]:
    # "create" instead of the default, which would change one that somebody else created meanwhile.
    payload = {"stream_name": stream, "config": settings.config(), "action": "create"}
    try:
        return await request(client, f"CONSUMER.CREATE.{stream}.{settings.name}", payload)
    except JetStreamError as error:
        if error.err_code == _CONSUMER_EXISTS:
            return await request(client, f"CONSUMER.INFO.{stream}.{settings.name}")
        if error.err_code == _STREAM_NOT_FOUND:
            raise ConnectorError(f"there is no stream {stream!r}") from error
        raise ConnectorError(
            f"cannot create consumer {settings.name!r} on stream {stream!r}: {error.message}"
        ) from error


def _stream_conflicts(
    required: Mapping[str, Any], found: Mapping[str, Any], names: Mapping[str, str]
) -> list[str]:
    wanted = dict(required)
    existing = found.get("subjects") or []
    missing = [s for s in wanted.pop("subjects") if not any(covers(pattern, s) for pattern in existing)]
    conflicts = [_conflict("subjects", missing, existing)] if missing else []
    return conflicts + [
        _conflict(key, value, found.get(key), names=names)
        for key, value in wanted.items()
        if found.get(key) != value
    ]


def _consumer_conflicts(settings: ConsumerSettings, found: Mapping[str, Any]) -> list[str]:
    wanted = settings.config()
    conflicts = []
    if found.get("deliver_subject"):
        conflicts.append(_conflict("kind", "a pull consumer", "a push consumer"))
    if _filters(wanted) != _filters(found):
        conflicts.append(_conflict("subjects", sorted(_filters(wanted)), sorted(_filters(found))))
    for key in (
        "deliver_policy",
        "opt_start_seq",
        "ack_policy",
        "max_deliver",
        "replay_policy",
        "durable_name",
    ):
        if wanted.get(key) != found.get(key):
            conflicts.append(_conflict(key, wanted.get(key), found.get(key)))
    for key in ("ack_wait", "max_ack_pending"):
        if key in wanted and found.get(key, 0) not in _UNLIMITED and found[key] < wanted[key]:
            conflicts.append(_conflict(key, wanted[key], found[key], "at least "))
    return conflicts


def _filters(config: Mapping[str, Any]) -> set[str]:
    several = config.get("filter_subjects")
    return set(several) if several else {config.get("filter_subject") or ">"}


def covers(pattern: str, subject: str) -> bool:
    """Whether every subject that ``subject`` stands for is matched by ``pattern``; both may have wildcards."""
    wide, narrow = pattern.split("."), subject.split(".")
    for index, token in enumerate(wide):
        if token == ">":
            return len(narrow) > index
        if index >= len(narrow) or narrow[index] == ">":
            return False
        if token != "*" and token != narrow[index]:
            return False
    return len(wide) == len(narrow)


def overlap(first: str, second: str) -> bool:
    """Whether some subject is matched by both patterns."""
    one, other = first.split("."), second.split(".")
    for left, right in zip(one, other, strict=False):
        if ">" in (left, right):
            return True
        if left != right and "*" not in (left, right):
            return False
    return len(one) == len(other)


def _conflict(
    key: str, wanted: Any, found: Any, bound: str = "", names: Mapping[str, str] = _OUR_NAMES
) -> str:
    return f"{names.get(key, key)}: wanted {bound}{_shown(key, wanted)}, found {_shown(key, found)}"


def _shown(key: str, value: Any) -> str:
    if key in _DURATIONS and isinstance(value, int):
        return str(timedelta(microseconds=value / 1000)) if value else "no limit"
    if key.startswith("max_") and value in (*_UNLIMITED, None):
        return "no limit"
    return "nothing" if value is None else str(value)


def _compare(what: str, conflicts: list[str]) -> None:
    if conflicts:
        lines = "\n".join(f"  {conflict}" for conflict in conflicts)
        raise ConnectorError(
            f"{what} exists with other settings, and is not changed. Ask for what it has, or change it:\n{lines}"
        )


def _api_error(error: Mapping[str, Any]) -> ConnectorError:
    code, err_code = int(error.get("code", 0)), int(error.get("err_code", 0))
    description = str(error.get("description", "unknown error"))
    if err_code in _NOT_ENABLED:
        description = f"JetStream is not enabled here ({description})"
    return JetStreamError(description, code, err_code)


def _name(name: str, what: str) -> str:
    if not name or any(character in _INVALID_IN_NAME for character in name):
        raise ConfigurationError(
            f"{name!r} is not a name for a {what}: no dots, wildcards, slashes or white space"
        )
    return name
