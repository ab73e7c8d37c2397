"""Keys of a store as the names that NATS knows: any string is a legal key, and comes back as it was.

A dot separates the tokens of a key, so that patterns can match by them. ASCII letters, digits, ``-``, ``_`` and ``/``
stand for themselves; every other character is written as ``=XX``, the hexadecimal bytes of its UTF-8 form, and an empty
token as ``=``. The result is a legal key of any NATS key-value client.

>>> escape("orders.42")
'orders.42'
>>> escape("größe 3..x*")
'gr=C3=B6=C3=9Fe=203.=.x=2A'
>>> unescape("gr=C3=B6=C3=9Fe=203.=.x=2A")
'größe 3..x*'
"""

from __future__ import annotations

import re

from streamflow.errors import ConfigurationError, StateError, shorten

LONGEST = 2000
"""Characters of an escaped key. The server's limit for a whole command line, 4096 by default, has to hold more."""

RESERVED = "=_"
"""The one token that no key escapes to, for messages of the store's own."""

_EMPTY = "="
_PLAIN = re.compile(r"[-/_a-zA-Z0-9]+(?:\.[-/_a-zA-Z0-9]+)*")
_SPECIAL = re.compile(r"[^-/_a-zA-Z0-9]")
_TOKEN = re.compile(r"=|(?:[-/_a-zA-Z0-9]|=[0-9A-F]{2})+")
_CODES = re.compile(r"(?:=[0-9A-F]{2})+")


def escape(key: str) -> str:
    """The name of a key. Raises `ConfigurationError` for what is no string, or too long."""
    if not isinstance(key, str):
        raise ConfigurationError(f"a key is a string, not {shorten(key)}")
    name = key if _PLAIN.fullmatch(key) else ".".join(map(_escape_token, key.split(".")))
    if len(name) > LONGEST:
        raise ConfigurationError(f"the key {shorten(key)} is too long: {len(name)} characters of {LONGEST}")
    return name


def unescape(name: str) -> str:
    """The key of a name. Raises `StateError` for a name that `escape` does not produce: somebody else's."""
    if _PLAIN.fullmatch(name):
        return name
    tokens = name.split(".")
    try:
        if not all(map(_TOKEN.fullmatch, tokens)):
            raise ValueError("not escaped like this")
        key = ".".join("" if token == _EMPTY else _CODES.sub(_decode, token) for token in tokens)
        if escape(key) != name:
            raise ValueError("not escaped like this")
    except ValueError as error:
        raise StateError(
            f"{name!r} is not a key of an ObjectStore: it has characters that are escaped there ({error})"
        ) from error
    return key


def escape_token(text: str) -> str:
    """Any text as one token, dots included.

    >>> escape_token("größe 3..x")
    'gr=C3=B6=C3=9Fe=203=2E=2Ex'
    """
    return _escape_token(text)


def unescape_token(token: str) -> str:
    """The text of a token."""
    return "" if token == _EMPTY else _CODES.sub(_decode, token)


def escape_pattern(pattern: str) -> str:
    """The subject filter of a pattern: ``*`` stands for one token, ``>`` at the end for one or more.

    >>> escape_pattern("orders.*.größe.>")
    'orders.*.gr=C3=B6=C3=9Fe.>'
    """
    if not isinstance(pattern, str):
        raise ConfigurationError(f"a pattern is a string, not {shorten(pattern)}")
    *first, last = pattern.split(".")
    names = [token if token == "*" else _escape_token(token) for token in first]
    return ".".join([*names, last if last in ("*", ">") else _escape_token(last)])


def matches(pattern: str, name: str) -> bool:
    """Whether an escaped pattern matches a name."""
    wanted, tokens = pattern.split("."), name.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))


def _escape_token(token: str) -> str:
    return _SPECIAL.sub(_encode, token) if token else _EMPTY


# "surrogatepass": a lone surrogate is a legal character of a Python string.
def _encode(match: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _decode(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("=", "")).decode("utf-8", "surrogatepass")
