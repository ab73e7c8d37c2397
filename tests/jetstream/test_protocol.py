from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow._jetstream.protocol import (
    Delivery,
    Status,
    decode_headers,
    encode_headers,
    encode_subject,
    parse_reply,
    parse_status,
    stream_sequence,
)
from streamflow.errors import ConnectorError

names = st.text("abcXYZ019-_.!#$%&'*+^`|~", min_size=1)
values = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]))


@given(st.dictionaries(names, values), st.none() | st.text("abc:/.-é", min_size=1))
def test_headers_come_back(headers: dict[str, str], message_id: str | None) -> None:
    expected = headers | ({"Nats-Msg-Id": message_id} if message_id is not None else {})
    assert decode_headers(encode_headers(headers, message_id)) == expected


def test_no_headers_are_no_bytes() -> None:
    assert encode_headers() == encode_headers({}) == b""
    assert decode_headers(b"") == {}


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\r"])
def test_line_breaks_cannot_get_into_a_header_block(text: str) -> None:
    for headers, message_id in (({"A": text}, None), ({text: "a"}, None), (None, text), ({"A": "a"}, text)):
        with pytest.raises(ConnectorError, match="header"):
            encode_headers(headers, message_id)


@pytest.mark.parametrize(
    "subject", ["", " ", "a b", "a\r\nPUB b", "a..b", ".a", "a.", "*", "a.*", "a.>", ">", 5, None]
)
def test_refuses_what_is_no_subject(subject: object) -> None:
    with pytest.raises(ConnectorError, match="not a subject"):
        encode_subject(subject)


@pytest.mark.parametrize("subject", ["a", "orders.new.4711", "$KV.bucket.key", "größe.x", "a*b.c>"])
def test_takes_subjects(subject: str) -> None:
    assert encode_subject(subject) == subject.encode()


def test_reply_subjects_of_both_forms() -> None:
    expected = Delivery(stream_sequence=7, consumer_sequence=9, deliveries=2, timestamp_ns=1234, pending=5)
    for reply in (
        b"$JS.ACK.S.C.2.7.9.1234.5",
        b"$JS.ACK.hub.hash.S.C.2.7.9.1234.5.rnd",
        b"$JS.ACK._.h.S.C.2.7.9.1234.5",
    ):
        assert parse_reply(reply) == expected
        assert stream_sequence(reply) == 7
    with pytest.raises(ConnectorError, match="not the reply subject"):
        parse_reply(b"_INBOX.abc")


def test_statuses() -> None:
    header = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n"
    assert parse_status(b"s", header) == Status(b"s", 408, "Request Timeout", {"Nats-Pending-Messages": "3"})
    assert parse_status(b"s", b"NATS/1.0 503\r\n\r\n") == Status(b"s", 503, "", {})
