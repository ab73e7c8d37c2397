"""`streamflow bench`: the table of measurements beside the peers. The benchmarks live in a checkout, under `tests/`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from streamflow.errors import ConfigurationError

_CHECKOUT = Path(__file__).resolve().parents[2]


def report(scale: float = 1.0) -> Iterator[str]:
    """The lines of the table, each row as soon as it is measured; some minutes in all.

    `scale` shrinks the work for a quick look, whose figures say little. Raises `ConfigurationError` when the package
    does not run from a checkout.
    """
    if not (_CHECKOUT / "tests" / "benchmarks" / "suite.py").is_file():
        raise ConfigurationError(
            "benchmarks need a checkout: clone the repository and run `make bench` there; "
            f"this streamflow is installed in {_CHECKOUT}"
        )
    sys.path.insert(0, str(_CHECKOUT))
    suite = importlib.import_module("tests.benchmarks.suite")
    ours = importlib.import_module("tests.benchmarks.ours")
    lines: Iterator[str] = suite.report(ours, scale)
    return lines
