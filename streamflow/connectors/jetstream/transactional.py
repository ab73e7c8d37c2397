"""`JetStreamSink` in `exactly_once`: outputs are committed with the checkpoint, where the stream takes them from."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.client import Client

from streamflow._jetstream.admin import request, stream_info
from streamflow._jetstream.protocol import encode_headers, encode_subject
from streamflow.engine.chunk import Chunk
from streamflow.engine.connector import SinkContext, Writer
from streamflow.engine.outbox import Outbox, Output
from streamflow.errors import ConfigurationError, ConnectorError
from streamflow.state.checkpoints.place import Place

_MESSAGE_ID = "nats-msg-id"
_KNOWN_SUBJECTS = 4096


async def open_transactional(
    context: SinkContext, client: Client, stream: str, *, may_change: bool
) -> Writer[int]:
    """See that a stream, which exists, takes what will be committed. ``may_change``: if it does not, have it do so."""
    outbox = context.outbox
    assert outbox is not None
    place = outbox.place
    if not isinstance(place, Place) or place.stream is None:
        raise ConfigurationError(
            "delivery='exactly_once' needs a checkpoint in a JetStream bucket, from where the output stream takes its "
            "messages"
        )
    here = await stream_info(client, place.stream)
    there = await stream_info(place.client, place.stream) if place.client is not None else None
    if here is None or there is None or here.created != there.created:
        raise ConfigurationError(
            f"stream {stream!r} cannot take outputs from stream {place.stream!r}, which is not on its server: "
            "give Checkpoint and sink the same servers"
        )
    await _ensure_source(client, stream, place, outbox.sink, may_change=may_change)
    place.taken_by(outbox.sink, client, stream)
    return TransactionalWriter(context, outbox)


async def _ensure_source(client: Client, stream: str, place: Place, step: str, *, may_change: bool) -> None:
    """Have the output stream take the outputs of this sink."""
    config = (await request(client, f"STREAM.INFO.{stream}"))["config"]
    if config.get("retention", "limits") != "limits":
        raise ConfigurationError(
            f"stream {stream!r} keeps messages by {config['retention']}: after a crash of the server it could "
            "take outputs twice, or leave some out; exactly_once needs a stream that keeps them by limits"
        )
    wanted = {"src": place.subjects(step), "dest": ">"}
    sources = config.get("sources") or []
    own = [source for source in sources if source.get("name") == place.stream]
    if any(wanted in (source.get("subject_transforms") or ()) for source in own):
        return
    source = {"name": place.stream, "subject_transforms": [wanted]}
    if not may_change:
        raise ConfigurationError(
            f"stream {stream!r} does not take outputs from the checkpoint's bucket. Add this to its sources, or "
            f"give the sink create=StreamSettings(…) as the consent to have it done: {source}"
        )
    # A stream has one source of a name: the outputs of several sinks share it.
    others = [each for each in sources if each.get("name") != place.stream]
    transforms = [each for taken in own for each in taken.get("subject_transforms") or ()]
    source["subject_transforms"] = [*transforms, wanted]
    await request(client, f"STREAM.UPDATE.{stream}", {**config, "sources": [*others, source]})


class TransactionalWriter(Writer[int]):
    """Puts everything into the outbox. What counts as written is committed, or will be before the run ends well."""

    def __init__(self, context: SinkContext, outbox: Outbox) -> None:
        self._context = context
        self._outbox = outbox
        self._count = 0
        self._subjects: dict[str, bytes] = {}

    async def write(self, chunk: Chunk) -> None:
        outputs = []
        for subject, payload, headers in chunk.values:
            try:
                outputs.append(Output(self._encoded(subject), _header(headers), payload))
            except ConnectorError as error:
                failure = self._context.guard.failure(error, self._context.step, None)
                if not self._context.guard.absorbs(failure):
                    raise failure from failure.cause
        self._count += len(outputs)
        chunk.release()
        await self._outbox.put(outputs)

    def _encoded(self, subject: str) -> bytes:
        encoded = self._subjects.get(subject)
        if encoded is None:
            if len(self._subjects) >= _KNOWN_SUBJECTS:
                self._subjects.clear()
            encoded = self._subjects[subject] = encode_subject(subject)
        return encoded

    def result(self) -> int:
        return self._count


def _header(headers: Mapping[str, str] | None) -> bytes:
    """The header block of an output. An id of the user's is left out: there are no repeats to be dropped."""
    if not headers:
        return b""
    kept = {}
    for name, value in headers.items():
        if name.lower() == _MESSAGE_ID:
            continue
        if name.lower().startswith("nats-"):
            raise ConnectorError(
                f"header {name!r} tells the server what to do with a message, and would do so in the bucket of the "
                "checkpoint as well: exactly_once cannot send it"
            )
        kept[name] = value
    return encode_headers(kept)
