"""Where the outputs of a checkpoint are, until the streams that they are for have taken them.

They are stored in the same batch as the state, as ``$TX.<bucket>.<pipeline>.<partition>.<sink>.<number>.<subject>``.
An output stream *sources* them from there, with a subject transform that leaves ``<subject>``. What it has is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from streamflow.engine.observer import Observer
from streamflow.engine.outbox import Output
from streamflow.errors import ConnectorError
from streamflow.state.bucket import Bucket, Message
from streamflow.state.keys import escape_token

if TYPE_CHECKING:
    from nats.aio.client import Client

_LOOK_SECONDS = 1.0


class Place:
    """``stream`` is the stream that has the outputs, ``client`` a connection to its server; None in memory."""

    def __init__(self, bucket: Bucket, prefix: str, observer: Observer) -> None:
        self.bucket = bucket.name
        self.client: Client | None = getattr(bucket, "client", None)
        self.stream: str | None = getattr(bucket, "stream", None)
        self._prefix = prefix
        self._observer = observer
        self._takers: dict[str, tuple[Client, str]] = {}
        self._stored: dict[str, int] = {}
        """The sequence of the last output of a sink that has not been removed."""

    def subjects(self, sink: str) -> str:
        """What matches the outputs of a sink; its last wildcard is the subject that each is for."""
        return f"$TX.{self.bucket}.{self._prefix}.{escape_token(sink)}.*.>"

    def taken_by(self, sink: str, client: Client, stream: str) -> None:
        """Say which stream takes the outputs of a sink."""
        self._takers[sink] = (client, stream)

    def messages(self, outputs: Iterable[tuple[str, Output]], number: int) -> list[Message]:
        """Outputs as they are stored, the first with this number."""
        tokens: dict[str, bytes] = {}
        messages = []
        for sink, output in outputs:
            token = tokens.get(sink)
            if token is None:
                token = tokens[sink] = f"{self._prefix}.{escape_token(sink)}".encode()
            subject = b"%b.%d.%b" % (token, number, output.subject)
            messages.append(Message(subject, output.header, output.data))
            number += 1
        return messages

    def told(self, event: str, error: Exception) -> None:
        """Tell observers what is in the way."""
        self._observer.event(event, bucket=self.bucket, error=str(error))

    def stored(self, sinks: Iterable[str], sequence: int) -> None:
        """Outputs of these sinks have been stored, the last of them at this sequence or before."""
        for sink in sinks:
            self._stored[sink] = sequence

    async def forget(self) -> None:
        """Remove what has been taken, again and again. Runs beside the pipeline."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for sink, (client, stream) in self._takers.items():
                if sink in self._stored:
                    try:
                        await self._forget_of(sink, client, stream)
                    except ConnectorError as error:
                        self.told("outputs not removed", error)

    async def _forget_of(self, sink: str, client: Client, stream: str) -> None:
        from streamflow._jetstream.admin import request

        info = await request(client, f"STREAM.INFO.{stream}")
        taken = sequence_taken(info, self.stream, self.subjects(sink))
        if not taken:
            return
        # What is behind the purge is kept: outputs that were stored meanwhile.
        purge = {"filter": self.subjects(sink), "seq": taken + 1}
        assert self.client is not None
        await request(self.client, f"STREAM.PURGE.{self.stream}", purge)
        if taken >= self._stored[sink]:
            del self._stored[sink]


def sequence_taken(info: dict[str, Any], stream: str | None, subjects: str) -> int:
    """The last sequence that a stream has taken from this source; 0 if there is none, or the server does not say."""
    for source in info.get("sources") or ():
        transforms = source.get("subject_transforms") or ()
        if source.get("name") == stream and any(each.get("src") == subjects for each in transforms):
            return int(source.get("seq") or 0)
    return 0
