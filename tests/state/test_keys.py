"""Any string is a key, and patterns match by its tokens."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow.errors import ConfigurationError, StateError
from streamflow.state.keys import LONGEST, RESERVED, escape, escape_pattern, matches, unescape

LEGAL = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")  # what NATS key-value clients take

# Lone surrogates, dots and the escape character itself more often than chance would have them.
keys = st.text(st.one_of(st.characters(), st.sampled_from(".=*> A\ud800")), max_size=30)
tokens = st.sampled_from(["a", "b", "", "*", ">", "=", "ü"])


@given(keys)
def test_a_key_comes_back_from_its_name(key: str) -> None:
    name = escape(key)
    assert LEGAL.fullmatch(name)
    assert unescape(name) == key
    assert name.partition(".")[0] != RESERVED


@given(keys, keys)
def test_two_keys_have_two_names(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(st.text(st.sampled_from("=aA4f.Fé_"), max_size=8))
def test_a_name_is_a_keys_or_refused(name: str) -> None:
    try:
        key = unescape(name)
    except StateError:
        return
    assert escape(key) == name


@given(st.lists(tokens, min_size=1, max_size=4), st.lists(tokens, min_size=1, max_size=4))
def test_patterns_match_whole_tokens(pattern: list[str], key: list[str]) -> None:
    def fits(pattern: list[str], key: list[str]) -> bool:
        if pattern == [">"]:
            return bool(key)
        if not pattern or not key:
            return pattern == key
        return pattern[0] in ("*", key[0]) and fits(pattern[1:], key[1:])

    # ">" in the middle, and any wildcard in a key, stands for itself.
    expected = fits(pattern, key) if ">" not in pattern[:-1] else None
    if expected is not None:
        assert matches(escape_pattern(".".join(pattern)), escape(".".join(key))) == expected


def test_what_is_no_key() -> None:
    with pytest.raises(ConfigurationError, match="a key is a string, not 7"):
        escape(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is too long"):
        escape("k" * (LONGEST + 1))
    with pytest.raises(ConfigurationError, match="a pattern is a string"):
        escape_pattern(b"a")  # type: ignore[arg-type]
    with pytest.raises(StateError, match="'a=b' is not a key of an ObjectStore"):
        unescape("a=b")
