"""Codecs: how a value becomes the bytes of a message, and back.

=====================  ================================================================================
`Bytes`                the payload itself
`Text`                 a string
`Json`                 JSON, typed: into attrs classes, dataclasses, msgspec Structs and builtins
`MessagePack`          the same, smaller and faster
`Protobuf`             a protobuf message class
=====================  ================================================================================

A codec of your own is any object with ``encode`` and ``decode``. Whatever goes wrong is a `CodecError`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload, runtime_checkable

from streamflow._named_tuples import arrays_for, finders, with_objects
from streamflow.errors import CodecError, ConfigurationError

if TYPE_CHECKING:
    from types import ModuleType

T = TypeVar("T")
M = TypeVar("M", bound="ProtobufMessage")

__all__ = ["Bytes", "Codec", "Json", "MessagePack", "Protobuf", "Text", "check_codec"]


@runtime_checkable
class Codec(Protocol[T]):
    """Turns values into bytes and back. Both raise `CodecError` for what they cannot turn."""

    def encode(self, value: T, /) -> bytes: ...

    def decode(self, data: bytes, /) -> T: ...


def check_codec(codec: Any, what: str) -> None:
    """Refuse a ``codec=`` that is none, e.g. the class itself instead of an instance."""
    if isinstance(codec, type) or not isinstance(codec, Codec):
        hint = f"; did you mean {codec.__name__}()?" if isinstance(codec, type) else ""
        raise ConfigurationError(
            f"{what}: codec must be a codec such as Json() or Bytes(), not {codec!r}{hint}"
        )


class Bytes:
    """Payloads as they are.

    >>> Bytes().decode(b"abc")
    b'abc'
    """

    def encode(self, value: bytes, /) -> bytes:
        if type(value) is bytes:
            return value
        if not isinstance(value, bytes | bytearray | memoryview):
            raise CodecError(f"Bytes() cannot encode a {type(value).__name__}: only bytes")
        return bytes(value)

    def decode(self, data: bytes, /) -> bytes:
        return data

    def __repr__(self) -> str:
        return "Bytes()"


class Text:
    """Strings in an encoding (default UTF-8).

    >>> Text().encode("Zoë")
    b'Zo\\xc3\\xab'
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        check_encoding(encoding, "Text")
        self.encoding = encoding

    def encode(self, value: str, /) -> bytes:
        if not isinstance(value, str):
            raise CodecError(f"{self!r} cannot encode a {type(value).__name__}: only str")
        try:
            return value.encode(self.encoding)
        except UnicodeError as error:
            raise CodecError(f"{self!r} cannot encode: {error}") from error

    def decode(self, data: bytes, /) -> str:
        try:
            return str(data, self.encoding)
        except (UnicodeError, TypeError) as error:
            raise CodecError(f"{self!r} cannot decode: {error}") from error

    def __repr__(self) -> str:
        return f"Text({self.encoding!r})"


def check_encoding(encoding: str, what: str) -> None:
    """Refuse an encoding that Python does not know, or that is none of text."""
    try:
        "x".encode(encoding)
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{what}: {error}") from error


class _Structured(Generic[T]):
    """What `Json` and `MessagePack` have in common: a pair of functions made by msgspec for a type.

    The functions are kept in the instance, so that a call costs little more than msgspec's own.
    """

    if TYPE_CHECKING:

        def encode(self, value: T, /) -> bytes:
            """Bytes for a value. The value is not compared with the codec's type."""
            ...

        def decode(self, data: bytes, /) -> T:
            """The value in some bytes, of the codec's type."""
            ...

    def __init__(self, type: Any, module: ModuleType) -> None:
        self._type = type
        encode, decode_any = module.Encoder().encode, module.Decoder().decode
        try:
            decode = module.Decoder(type).decode
            to_arrays = None if type is Any else arrays_for(type)
        except Exception as error:
            raise ConfigurationError(f"{self!r} cannot decode into that: {error}") from error
        if to_arrays is not None:
            typed, decode = decode, lambda data: typed(encode(to_arrays(decode_any(data))))
        # To type checkers they are methods, which cannot be assigned.
        object.__setattr__(self, "decode", _decoding(decode, repr(self)))
        object.__setattr__(self, "encode", _encoding(encode, repr(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self._type is Any else _name(self._type)})"


def _name(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) else repr(kind)


# What a user's class does in its validators can raise anything, and msgspec itself raises TypeError, OverflowError,
# RecursionError and more besides its own errors.
def _decoding(decode: Callable[[bytes], T], codec: str) -> Callable[[bytes], T]:
    def decode_or_say(data: bytes, /) -> T:
        try:
            return decode(data)
        except Exception as error:
            raise CodecError(f"{codec} cannot decode: {type(error).__name__}: {error}") from error

    return decode_or_say


def _encoding(encode: Callable[[Any], bytes], codec: str) -> Callable[[Any], bytes]:
    find = finders

    def encode_or_say(value: Any, /) -> bytes:
        try:
            return encode(value if find[value.__class__] is None else with_objects(value))
        except Exception as error:
            what = f"a {type(value).__name__}: {type(error).__name__}: {error}"
            raise CodecError(f"{codec} cannot encode {what}") from error

    return encode_or_say


class Json(_Structured[T]):
    """JSON through msgspec. ``Json(Order)`` decodes into ``Order``; ``Json()`` into dicts, lists and scalars.

    The type is an attrs class, a dataclass, a msgspec Struct, a named tuple, a builtin, or a combination of them such
    as ``list[Order]`` or ``KeyedValue[str, Window[float]]``. Payloads are checked while they are decoded: what does
    not fit the type is a `CodecError`. Unknown fields are ignored. JSON has no infinity and no NaN: both become null.

    Named tuples are objects: ``KeyedValue("a", 1)`` is ``{"key":"a","value":1}``, also inside other values. Fields of
    classes are taken at their annotations: a named tuple in a field that is annotated as ``tuple[int, int]`` is an
    array. Decoding a type with a named tuple in it takes a few times as long; in a union with another class the named
    tuple is chosen if the object has its fields and no others, and lists cannot be in the same union.

    >>> from attrs import frozen
    >>> @frozen
    ... class Order:
    ...     customer: str
    ...     total: float
    >>> Json(Order).decode(b'{"customer": "ada", "total": 5}')
    Order(customer='ada', total=5.0)
    >>> Json().encode({"total": 5})
    b'{"total":5}'

    Raises `ConfigurationError` for a type that JSON cannot be decoded into.
    """

    @overload
    def __init__(self: Json[Any]) -> None: ...
    @overload
    def __init__(self, type: builtins.type[T]) -> None: ...
    @overload
    def __init__(self: Json[Any], type: Any) -> None: ...
    def __init__(self, type: Any = Any) -> None:
        import msgspec

        super().__init__(type, msgspec.json)


class MessagePack(_Structured[T]):
    """MessagePack through msgspec: as `Json`, in about two thirds of the bytes, with bytes and datetimes as such.

    >>> MessagePack(tuple[int, str]).decode(MessagePack().encode([1, "a"]))
    (1, 'a')
    """

    @overload
    def __init__(self: MessagePack[Any]) -> None: ...
    @overload
    def __init__(self, type: builtins.type[T]) -> None: ...
    @overload
    def __init__(self: MessagePack[Any], type: Any) -> None: ...
    def __init__(self, type: Any = Any) -> None:
        import msgspec

        super().__init__(type, msgspec.msgpack)


class ProtobufMessage(Protocol):
    """What `Protobuf` needs of a class; all generated message classes have it."""

    def SerializeToString(self) -> bytes: ...

    @classmethod
    def FromString(cls, s: bytes, /) -> Self: ...


class Protobuf(Generic[M]):
    """A protobuf message class, as protoc generates it: ``Protobuf(Order)``.

    protobuf itself comes with the generated module; this one does not import it.
    """

    def __init__(self, message: type[M]) -> None:
        given: object = message
        if not (
            isinstance(given, type) and hasattr(given, "FromString") and hasattr(given, "SerializeToString")
        ):
            raise ConfigurationError(f"Protobuf takes a protobuf message class, not {message!r}")
        self.message = message

    def encode(self, value: M, /) -> bytes:
        # Another message's bytes would decode as this one, into nonsense.
        if not isinstance(value, self.message):
            raise CodecError(f"{self!r} cannot encode a {type(value).__name__}")
        try:
            return value.SerializeToString()
        except Exception as error:
            raise CodecError(f"{self!r} cannot encode: {type(error).__name__}: {error}") from error

    def decode(self, data: bytes, /) -> M:
        try:
            return self.message.FromString(data)
        except Exception as error:
            raise CodecError(f"{self!r} cannot decode: {type(error).__name__}: {error}") from error

    def __repr__(self) -> str:
        return f"Protobuf({self.message.__qualname__})"
