"""`JetStreamSource`: the messages of a stream, acknowledged when the pipeline is done with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from nats.aio.client import Client

from streamflow._jetstream.protocol import Incoming, decode_headers, parse_reply
from streamflow._jetstream.settings import StreamSettings
from streamflow.codecs import Bytes, Codec, check_codec
from streamflow.engine.connector import Reader, SourceContext
from streamflow.errors import ConfigurationError
from streamflow.graph import Flow, Source
from streamflow.message import Message
from streamflow.operators import Map
from streamflow.policies import ErrorPolicy, check_policy, positive, seconds

T = TypeVar("T")

V = TypeVar("V")

Subject = str | Sequence[str] | None
Start = Literal["all", "new", "last"] | int


class SourceOptions(TypedDict, total=False):
    """The options of `JetStreamSource` that do not change the type of its elements."""

    durable: str | None
    until: Literal["end"] | int | None
    start: Start
    create: StreamSettings | None
    ack_wait: timedelta | float
    max_pending: int | None
    servers: str | Sequence[str] | None
    connection: Client | None
    name: str | None
    on_error: ErrorPolicy | None


class JetStreamSource(Source[T]):
    """Read a stream through a pull consumer of its own.

    ``stream`` must exist unless ``create=StreamSettings(…)`` is given. ``subject`` filters it: one subject or several,
    wildcards allowed; none means everything.

    ``durable`` names the consumer. The server keeps its place: a run with the same name goes on behind what was
    acknowledged, and several workers with one name share the messages. Without a name the consumer lives for one run
    and starts anew with the next. ``start`` says where a new consumer begins: "all" (the default), "new", "last", or a
    sequence.

    A message is acknowledged when everything it became is delivered or was dropped on the way. What the pipeline
    holds longer is kept alive with in-progress signals; what was pulled and not used when the run ends is handed back
    at once. After a crash it comes again when ``ack_wait`` (default 30 s) is over.

    With a checkpoint nothing is acknowledged: the checkpoint says where a restart goes on. The pipeline then reads with
    a consumer of its own for each run, named after ``durable``, in order, and without sharing; a lost connection or
    consumer costs and repeats nothing. The stream must keep messages by limits. A restart is refused if the stream was
    made anew, or has removed messages that were not read.

    ``max_pending`` is how many messages this worker may have read and not settled. A small number shares the work
    evenly and drains quickly. The default is as many as flow, or a few hundred in front of `MapAsync` and executors.

    ``codec`` decodes payloads (default: the bytes themselves); one that does not decode goes to the error policy.
    With ``with_metadata=True`` each element is a `Message`: the value with its subject, headers, sequence, timestamp
    and number of deliveries.

    ``until="end"`` ends the stream at the last message that is there when the run starts, ``until=<sequence>`` at that
    sequence; both when all messages up to there are settled, by whichever worker. The default is to go on for ever.

    ``servers`` is a URL or a list, ``connection`` an open nats-py client, which is left open.

    Raises `ConnectorError` at the start of a run: no server, no JetStream, refused credentials, no such stream, or a
    stream or consumer whose settings are in conflict, each of which is listed. Restarts of the server are survived.
    """

    acknowledges = True

    @overload
    def __init__(
        self: JetStreamSource[bytes],
        stream: str,
        subject: Subject = ...,
        *,
        with_metadata: Literal[False] = ...,
        **options: Unpack[SourceOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: JetStreamSource[Message[bytes]],
        stream: str,
        subject: Subject = ...,
        *,
        with_metadata: Literal[True],
        **options: Unpack[SourceOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        stream: str,
        subject: Subject = ...,
        *,
        codec: Codec[T],
        with_metadata: Literal[False] = ...,
        **options: Unpack[SourceOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: JetStreamSource[Message[V]],
        stream: str,
        subject: Subject = ...,
        *,
        codec: Codec[V],
        with_metadata: Literal[True],
        **options: Unpack[SourceOptions],
    ) -> None: ...
    def __init__(
        self,
        stream: str,
        subject: Subject = None,
        *,
        durable: str | None = None,
        codec: Codec[Any] | None = None,
        with_metadata: bool = False,
        until: Literal["end"] | int | None = None,
        start: Start = "all",
        create: StreamSettings | None = None,
        ack_wait: timedelta | float = 30.0,
        max_pending: int | None = None,
        servers: str | Sequence[str] | None = None,
        connection: Client | None = None,
        name: str | None = None,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        if isinstance(until, str) and until != "end":
            raise ConfigurationError(f"JetStreamSource's until must be 'end' or a sequence, not {until!r}")
        if until is not None and until != "end":
            positive(until, "JetStreamSource's until")
        if not isinstance(start, str):
            positive(start, "JetStreamSource's start")
        elif start not in ("all", "new", "last"):
            raise ConfigurationError(
                f"JetStreamSource's start must be 'all', 'new', 'last' or a sequence, not {start!r}"
            )
        if max_pending is not None:
            positive(max_pending, "JetStreamSource's max_pending")
        check_policy(on_error, "JetStreamSource")
        if codec is not None:
            check_codec(codec, "JetStreamSource")
        if servers is not None and connection is not None:
            raise ConfigurationError("JetStreamSource takes servers= or connection=, not both")
        self.stream = stream
        self.subjects = _subjects(subject)
        self.durable = durable
        self.codec: Codec[Any] = Bytes() if codec is None else codec
        self.with_metadata = with_metadata
        self.until: Literal["end"] | int | None = until
        self.start: Start = start
        self.create = create
        self.ack_wait = seconds(ack_wait, "JetStreamSource's ack_wait")
        self.max_pending = max_pending
        self.servers = servers
        self.connection = connection
        self.name = name
        self.on_error = on_error

    def flows(self) -> tuple[Flow[Any, Any], ...]:
        if self.with_metadata:
            return (Map(_with_metadata(self.codec), on_error=self.on_error),)
        if isinstance(self.codec, Bytes):
            return ()
        return (Map(self.codec.decode, on_error=self.on_error),)

    async def open(self, context: SourceContext) -> Reader:
        if context.exclusive:
            from streamflow.connectors.jetstream.exclusive import open_exclusive

            return await open_exclusive(self, context)
        from streamflow.connectors.jetstream.reader import open_reader

        return await open_reader(self, context)


def _subjects(subject: Subject) -> tuple[str, ...]:
    if subject is None:
        return ()
    given: object = subject
    texts: tuple[object, ...] = (
        (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Sequence) else ()
    )
    subjects = tuple(text for text in texts if isinstance(text, str) and text)
    if not subjects or len(subjects) < len(texts):
        raise ConfigurationError(f"JetStreamSource's subject must be a subject or several, not {subject!r}")
    return subjects


def _with_metadata(codec: Codec[T]) -> Callable[[Incoming], Message[T]]:
    decode = codec.decode

    def message(incoming: Incoming) -> Message[T]:
        delivery = parse_reply(incoming.reply)
        return Message(
            decode(incoming.data),
            incoming.subject.decode(),
            decode_headers(incoming.header),
            delivery.stream_sequence,
            datetime.fromtimestamp(delivery.timestamp_ns / 1e9, UTC),
            delivery.deliveries,
        )

    return message
