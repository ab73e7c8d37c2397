"""`partition`: a key stays in one branch, everywhere and always."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import ConfigurationError, Pipeline, Skip, Source, StepError
from streamflow.connectors import Collect
from streamflow.operators import partition
from tests.support import Acknowledging, Chunked, Confirming, cut, run, sizes

scalars = st.one_of(
    st.text(),
    st.binary(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
)
keys = st.one_of(scalars, st.tuples(scalars, scalars))


def collected(source: Source[Any], n: int, key: Any, **options: Any) -> list[list[Any]]:
    branches = partition(source, n, key, **options)
    result: Any = run(Pipeline(*(branch.to(Collect()) for branch in branches), name="p"))
    return [result] if n == 1 else list(result)


@given(st.lists(keys), sizes, st.integers(1, 5))
def test_equal_keys_meet_and_nothing_is_lost(keys: list[Any], sizes: list[int], n: int) -> None:
    numbered = [(key, number) for number, key in enumerate(keys)]
    branches = collected(Chunked(cut(numbered, sizes)), n, lambda x: x[0])
    assert sorted(number for branch in branches for _, number in branch) == list(range(len(keys)))
    homes: dict[str, set[int]] = {}
    for home, branch in enumerate(branches):
        assert [number for _, number in branch] == sorted(number for _, number in branch)
        for key, _ in branch:
            homes.setdefault(repr(key), set()).add(home)
    assert all(len(home) == 1 for home in homes.values())


KNOWN = ["alpha", "", "é", b"alpha", 0, -1, 2**40, 1.5, True, None, ("eu", 7)]
HOMES = "[1, 0, 2, 1, 1, 0, 1, 1, 2, 2, 1]"


def test_the_branch_of_a_key_is_the_same_in_every_process_and_release() -> None:
    script = (
        "import asyncio\n"
        "from streamflow import Pipeline, Source\n"
        "from streamflow.connectors import Collect\n"
        "from streamflow.operators import partition\n"
        f"keys = {KNOWN!r}\n"
        "branches = partition(Source(list(enumerate(keys))), 3, lambda x: x[1])\n"
        "found = asyncio.run(Pipeline(*(b.to(Collect()) for b in branches)).run())\n"
        "home = {number: home for home, branch in enumerate(found) for number, _ in branch}\n"
        "print([home[number] for number in range(len(keys))])\n"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == HOMES


@pytest.mark.parametrize("n", [2, 3, 8])
def test_keys_spread(n: int) -> None:
    counts = Counter(len(branch) for branch in collected(Source(range(2000)), n, lambda x: f"customer-{x}"))
    assert max(counts) < 1.25 * 2000 / n
    assert min(counts) > 0.75 * 2000 / n


@pytest.mark.parametrize("key", [[1], {1}, object(), 2**70, (1, [object()]), math])
def test_what_is_no_key_goes_to_the_policy(key: Any) -> None:
    with pytest.raises(StepError, match="step 'partition'"):
        collected(Source([1]), 2, lambda _: key)
    assert collected(Source([1]), 2, lambda _: key, on_error=Skip()) == [[], []]


def test_messages_are_acknowledged_by_their_branch() -> None:
    source = Acknowledging(20, [4, 3])
    branches = partition(source, 3, lambda x: x % 4)
    run(Pipeline(*(branch.to(Confirming(source)) for branch in branches)))
    source.ledger.check()
    assert sorted(source.ledger.acked) == list(range(20))


def test_mistakes() -> None:
    wrong: Any = 0
    with pytest.raises(ConfigurationError, match="partition's n must be 1 or more"):
        partition(Source([1]), wrong, bool)
    with pytest.raises(ConfigurationError, match="partition's key takes a function"):
        partition(Source([1]), 2, wrong)
