"""`route`: each element in the stream of its name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Pipeline, PlanError, Skip, Source, StepError, Stream
from streamflow.connectors import Collect, Discard
from streamflow.operators import route
from tests.support import Acknowledging, Chunked, Confirming, cut, run, sizes

words = st.lists(st.sampled_from(["a1", "a2", "b1", "c1", "d1"]))


def collected(branches: dict[str, Stream[Any]], **options: Any) -> dict[str, list[Any]]:
    pipeline: Any = Pipeline(*(branch.to(Collect()) for branch in branches.values()))
    results = run(pipeline, **options)
    return dict(zip(branches, results if len(branches) > 1 else [results], strict=True))


def letter(word: str) -> str:
    return word[0]


@given(words, sizes, st.sampled_from(["a", "rest"]))
def test_each_name_has_its_elements_and_the_default_the_others(
    words: list[str], sizes: list[int], default: str
) -> None:
    result = collected(route(Chunked(cut(words, sizes)), letter, ["a", "b"], default))
    expected: dict[str, list[str]] = {"a": [], "b": [], default: []}
    for word in words:
        expected[word[0] if word[0] in "ab" else default].append(word)
    assert result == expected


def test_what_matches_no_branch_goes_to_the_policy() -> None:
    with pytest.raises(
        StepError,
        match=r"step 'route': failed on 'c1': LookupError: 'c' is none of the branches 'a', 'b'; default=",
    ):
        collected(route(Source(["a1", "c1"]), letter, ["a", "b"]))
    expected = {"a": ["a1"], "b": []}
    assert collected(route(Source(["a1", "c1"]), letter, ["a", "b"], on_error=Skip())) == expected
    assert collected(route(Source(["a1", "c1"]), letter, ["a", "b"]), on_error=Skip()) == expected


@pytest.mark.parametrize("key", [lambda x: 1 / 0, lambda x: []], ids=["fails", "unhashable"])
def test_a_bad_key_goes_to_the_policy_in_spite_of_a_default(key: Any) -> None:
    assert collected(route(Source([1]), key, ["a"], "a", on_error=Skip())) == {"a": []}


def test_an_unmatched_message_that_is_skipped_is_acknowledged() -> None:
    source = Acknowledging(9, [4])
    by = route(source, lambda x: "abc"[x % 3], ["a", "b"], on_error=Skip())
    run(Pipeline(*(branch.to(Confirming(source)) for branch in by.values())))
    source.ledger.check(deliver=[x for x in range(9) if x % 3 < 2])
    assert sorted(source.ledger.acked) == list(range(9))


def test_every_branch_leads_to_a_sink() -> None:
    by = route(Source(["a"]), letter, ["a", "b"])
    with pytest.raises(PlanError, match="step 'route': the branch of the elements for 'b' leads to no sink"):
        run(by["a"].to(Discard()))


@pytest.mark.parametrize(
    ("names", "default", "says"),
    [
        ([], None, r"route's names must be one or more names, such as \['a', 'b'\], not \[\]"),
        ("ab", None, "not 'ab'"),
        (3, None, "not 3"),
        ([1], None, "have names that are texts, not 1"),
        (["a"], 1, "have names that are texts, not 1"),
        (["a", "b", "a"], None, "'a' comes twice"),
    ],
)
def test_mistakes(names: Any, default: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        route(Source(["a"]), letter, names, default)
    wrong: Any = "letter"
    with pytest.raises(ConfigurationError, match="route's key takes a function"):
        route(Source(["a"]), wrong, ["a"])
