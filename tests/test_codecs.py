"""Codecs: what goes in comes out, what does not fit is a `CodecError`, named tuples are objects."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import pytest
from attrs import define, field, frozen
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from hypothesis import given
from hypothesis import strategies as st

from streamflow import CodecError, ConfigurationError, KeyedValue, Message, StreamflowError, Window
from streamflow.codecs import Bytes, Codec, Json, MessagePack, Protobuf, Text, check_codec

T = TypeVar("T")
STRUCTURED: list[Callable[..., Any]] = [Json, MessagePack]


class Point(NamedTuple):
    x: int
    y: int = 7


class Color(Enum):
    RED = "red"


@frozen
class Order:
    customer: str
    total: float
    tags: list[str] = field(factory=list)


@define
class Mutable:
    order: Order
    at: datetime
    color: Color = Color.RED


@dataclass(frozen=True)
class Data:
    name: str
    corner: Point
    path: tuple[Point, ...] = ()


@dataclass(slots=True)
class Slotted:
    corner: Any


class Struct(msgspec.Struct, frozen=True, rename="camel"):
    first_corner: Point
    other: Point | None = None


class Array(msgspec.Struct, array_like=True):
    corner: Any


@frozen
class Tree:
    at: Point
    children: list[Tree] = field(factory=list)


@frozen
class Box(Generic[T]):
    inside: T


class Checked(msgspec.Struct):
    amount: int

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise KeyError("negative")


integers = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(codec="utf-8"))
points = st.builds(Point, integers, integers)
orders = st.builds(Order, text, st.floats(allow_nan=False, allow_infinity=False), st.lists(text, max_size=3))
moments = st.datetimes(timezones=st.just(UTC))
trees = st.recursive(
    st.builds(Tree, points), lambda inner: st.builds(Tree, points, st.lists(inner, max_size=3))
)
keyed = st.builds(
    KeyedValue, text, st.builds(Window, st.floats(0, 1e9), st.floats(0, 1e9), points, st.integers(0, 9))
)
documents = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
)

TYPED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Order, orders),
    (Mutable, st.builds(Mutable, orders, moments)),
    (Point, points),
    (Data, st.builds(Data, text, points, st.lists(points, max_size=3).map(tuple))),
    (Struct, st.builds(Struct, points, st.none() | points)),
    (Tree, trees),
    (list[Point], st.lists(points, max_size=4)),
    (dict[str, Point], st.dictionaries(text, points, max_size=4)),
    (tuple[Point, int], st.tuples(points, integers)),
    (set[Point], st.sets(points, max_size=4)),
    (Point | None, st.none() | points),
    (Point | Order, points | orders),
    (dict[str, Point] | list[Point] | int, st.dictionaries(text, points) | st.lists(points) | integers),
    (KeyedValue[str, Window[Point]], keyed),
    (Window[list[Point]], st.builds(Window, st.just(0.0), st.just(1.0), st.lists(points, max_size=3))),
    (
        KeyedValue[str, KeyedValue[int, Point]],
        st.builds(KeyedValue, text, st.builds(KeyedValue, integers, points)),
    ),
    (Box[Box[Point]], st.builds(Box, st.builds(Box, points))),
]


@pytest.mark.parametrize("make", STRUCTURED)
@given(data=st.data())
@pytest.mark.parametrize(("kind", "values"), TYPED, ids=lambda value: getattr(value, "__name__", ""))
def test_typed_values_come_back(
    make: Any, kind: Any, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    value = data.draw(values)
    codec = make(kind)
    assert codec.decode(codec.encode(value)) == value
    assert type(codec.decode(codec.encode(value))) is type(value)


@pytest.mark.parametrize("make", STRUCTURED)
@given(value=documents)
def test_untyped_values_come_back(make: Any, value: Any) -> None:
    codec = make()
    assert codec.decode(codec.encode(value)) == value


@given(value=documents)
def test_json_is_json(value: Any) -> None:
    assert json.loads(Json().encode(value)) == value
    assert Json().decode(json.dumps(value).encode()) == value


@given(value=text)
def test_text_comes_back(value: str) -> None:
    assert Text().decode(Text().encode(value)) == value
    assert Text("utf-16").decode(Text("utf-16").encode(value)) == value


@given(value=st.binary())
def test_bytes_come_back(value: bytes) -> None:
    assert Bytes().decode(value) == value == Bytes().encode(value)
    assert Bytes().encode(bytearray(value)) == value  # type: ignore[arg-type]


@given(seconds=st.integers(0, 2**40))
def test_protobuf_comes_back(seconds: int) -> None:
    codec = Protobuf(Timestamp)
    assert codec.decode(codec.encode(Timestamp(seconds=seconds))) == Timestamp(seconds=seconds)


# Named tuples


def test_keyed_windows_are_objects() -> None:
    encoded = Json().encode(KeyedValue("ada", Window(0.0, 60.0, 3)))
    assert json.loads(encoded) == {
        "key": "ada",
        "value": {"start": 0.0, "end": 60.0, "value": 3, "revision": 0},
    }


Plain = namedtuple("Plain", "a b", defaults=[5])


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (Point(1), {"x": 1, "y": 7}),
        (Plain(1), {"a": 1, "b": 5}),
        ([1, Point(1)], [1, {"x": 1, "y": 7}]),
        ((1, (2, Point(1))), [1, [2, {"x": 1, "y": 7}]]),
        ({"p": {"q": Point(1)}, "r": 1}, {"p": {"q": {"x": 1, "y": 7}}, "r": 1}),
        ({Point(1)}, [{"x": 1, "y": 7}]),
        (Window(0.0, 1.0, [KeyedValue("a", Point(1))]), None),
        (
            Data("d", Point(1), (Point(2),)),
            {"name": "d", "corner": {"x": 1, "y": 7}, "path": [{"x": 2, "y": 7}]},
        ),
        (Slotted([Point(1)]), {"corner": [{"x": 1, "y": 7}]}),
        (Struct(Point(1)), {"firstCorner": {"x": 1, "y": 7}, "other": None}),
        (Array(Point(1)), [{"x": 1, "y": 7}]),
        (Box(Box(Point(1))), {"inside": {"inside": {"x": 1, "y": 7}}}),
        ((1, 2), [1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("make", STRUCTURED)
def test_named_tuples_are_objects_wherever_they_are(make: Any, value: Any, form: Any) -> None:
    if form is None:
        form = {"start": 0.0, "end": 1.0, "value": [{"key": "a", "value": {"x": 1, "y": 7}}], "revision": 0}
    before = repr(value)
    assert make().decode(make().encode(value)) == form
    assert repr(value) == before


def test_a_message_with_its_metadata_encodes() -> None:
    message = Message(KeyedValue("a", 1), "s", {"h": "1"}, 5)
    assert json.loads(Json().encode(message))["value"] == {"key": "a", "value": 1}


def test_missing_fields_take_their_defaults_and_unknown_ones_are_ignored() -> None:
    assert Json(Point).decode(b'{"x": 1}') == Point(1)
    assert Json(Point).decode(b'{"y": 2, "z": 3, "x": 1}') == Point(1, 2)
    assert Json(Plain).decode(b'{"a": 1}') == Plain(1)
    assert Json(Order).decode(b'{"total": 2, "customer": "ada", "more": {}}') == Order("ada", 2.0)


def test_arrays_are_still_read_as_named_tuples() -> None:
    assert Json(Point).decode(b"[1,2]") == Point(1, 2)


def test_a_union_takes_the_named_tuple_only_if_the_object_is_one() -> None:
    codec = Json(Point | dict[str, int])
    assert codec.decode(b'{"x": 1, "y": 2}') == Point(1, 2)
    assert codec.decode(b'{"x": 1, "other": 2}') == {"x": 1, "other": 2}


def test_classes_without_room_for_a_named_tuple_are_not_looked_into() -> None:
    class Trap(msgspec.Struct):
        number: int
        names: list[str]

    reads: list[str] = []

    def read(self: object, name: str) -> Any:
        reads.append(name)
        return object.__getattribute__(self, name)

    Trap.__getattribute__ = read  # type: ignore[method-assign]
    Json().encode(Trap(1, ["a"]))
    assert not [name for name in reads if not name.startswith("__")]


# What does not fit


@pytest.mark.parametrize(
    ("codec", "data", "says"),
    [
        (Json(), b"", "truncated"),
        (Json(), b"{", "truncated"),
        (Json(), b'"\xff"', "utf-8"),
        (Json(), b"nope", "malformed"),
        (Json(), b"[" * 100_000, "RecursionError"),
        (Json(Order), b"[]", "Expected `object`, got `array`"),
        (Json(Order), b'{"customer": 1, "total": 2}', r"Expected `str`, got `int` - at `\$.customer`"),
        (Json(Order), b'{"customer": "ada"}', "missing required field `total`"),
        (Json(Point), b"{}", "missing required field `x`"),
        (Json(Point), b'{"x": "1"}', "Expected `int`, got `str`"),
        (Json(Point), b"3", "Expected `array`, got `int`"),
        (Json(dict[str, Point]), b"[]", "Expected `object`, got `array`"),
        (Json(tuple[Point, int]), b"[[1]]", "length 2"),
        (Json(Data), b"[]", "Expected `object`, got `array`"),
        (Json(Color), b'"blue"', "Invalid enum value"),
        (Json(Checked), b'{"amount": -1}', "KeyError: 'negative'"),
        (MessagePack(), b"", "truncated"),
        (MessagePack(), b"\xc1", "malformed"),
        (MessagePack(Order), b"\x01", "Expected `object`, got `int`"),
        (MessagePack(Point), b"\x80", "missing required field `x`"),
        (Text(), b"\xff", "invalid start byte"),
        (Text("ascii"), "ë".encode(), "ordinal not in range"),
        (Text(), None, "NoneType"),
        (Protobuf(Timestamp), b"\xff", "DecodeError"),
    ],
    ids=repr,
)
def test_payloads_that_do_not_decode(codec: Codec[Any], data: Any, says: str) -> None:
    with pytest.raises(CodecError, match=says) as caught:
        codec.decode(data)
    assert str(caught.value).startswith(f"{codec!r} cannot decode: ")
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value.__cause__, StreamflowError)


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("codec", "value", "says"),
    [
        (Json(), object(), "a object: TypeError: Encoding objects of type object"),
        (Json(), [len], "a list: TypeError"),
        (MessagePack(), 10**40, "OverflowError"),
        (Json(), "\ud800", "surrogates"),
        (Json(), looped(), "RecursionError"),
        (Json(), {(1, 2): 3}, "a dict: "),
        (Json(), KeyedValue("a", object()), "a KeyedValue: "),
        (MessagePack(), object(), "a object: "),
        (Text(), 1, "a int: only str"),
        (Text("ascii"), "ë", "ordinal not in range"),
        (Bytes(), "text", "a str: only bytes"),
        (Bytes(), 5, "a int: only bytes"),
        (Protobuf(Timestamp), Int64Value(value=1), "a Int64Value"),
        (Protobuf(Timestamp), b"", "a bytes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_do_not_encode(codec: Codec[Any], value: Any, says: str) -> None:
    with pytest.raises(CodecError) as caught:
        codec.encode(value)
    assert str(caught.value).startswith(f"{codec!r} cannot encode")
    assert says in str(caught.value)


@pytest.mark.parametrize("make", STRUCTURED)
@given(data=st.binary())
def test_any_bytes_decode_or_are_a_codec_error(make: Any, data: bytes) -> None:
    for kind in (Any, Order, Point, Tree, KeyedValue[str, Window[float]]):
        with suppress(CodecError):
            make(kind).decode(data)


@given(data=st.binary())
def test_any_bytes_are_protobuf_or_a_codec_error(data: bytes) -> None:
    with suppress(CodecError):
        Protobuf(StringValue).decode(data)


class Unknown:
    pass


class Sender(msgspec.Struct):
    unknown: Unknown


@pytest.mark.parametrize("make", STRUCTURED)
@pytest.mark.parametrize("kind", [Unknown, list[Unknown], Sender, 3, "Order", Point | Plain])
def test_a_type_that_nothing_decodes_into_is_refused_at_once(make: Any, kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot decode into that"):
        make(kind)


def test_other_nonsense_is_refused_at_once() -> None:
    for encoding in ("no-such", "base64", "a\0b", 3):
        with pytest.raises(ConfigurationError, match="Text"):
            Text(encoding)  # type: ignore[arg-type]
    for message in (int, 3, Timestamp()):
        with pytest.raises(ConfigurationError, match="protobuf message class"):
            Protobuf(message)  # type: ignore[arg-type, type-var]
    for codec in (Json, None, "json", Order):
        with pytest.raises(ConfigurationError, match="Source: codec must be a codec"):
            check_codec(codec, "Source")


def test_a_codec_of_ones_own_is_a_codec() -> None:
    class Upper:
        def encode(self, value: str, /) -> bytes:
            return value.upper().encode()

        def decode(self, data: bytes, /) -> str:
            return data.decode()

    codec: Codec[str] = Upper()
    for each in (codec, Json(), Bytes(), Text(), Protobuf(Timestamp)):
        check_codec(each, "Source")


def test_codecs_say_what_they_are() -> None:
    shown = [
        repr(codec) for codec in (Json(), Json(Order), MessagePack(list[int]), Text(), Protobuf(Timestamp))
    ]
    assert shown == [
        "Json()",
        "Json(Order)",
        "MessagePack(list[int])",
        "Text('utf-8')",
        "Protobuf(Timestamp)",
    ]


def test_msgspec_and_protobuf_are_imported_when_a_codec_needs_them() -> None:
    code = """
import sys, streamflow, streamflow.codecs
assert not {"msgspec", "google.protobuf"} & set(sys.modules)
streamflow.codecs.Json()
assert "msgspec" in sys.modules and "google.protobuf" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
