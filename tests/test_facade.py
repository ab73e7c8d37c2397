"""The public names: each package exports what it says, and nothing else by accident."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import streamflow
from tests.repository import ROOT

DESIGNED = """
App Checkpoint EventTime Fail KeyedValue Message Pipeline ProcessingTime Skip Source StreamflowError Window run
"""


@pytest.mark.parametrize(
    "name",
    [
        "streamflow",
        "streamflow.codecs",
        "streamflow.connectors",
        "streamflow.connectors.jetstream",
        "streamflow.operators",
        "streamflow.state",
        "streamflow.telemetry",
        "streamflow.testing",
    ],
)
def test_every_exported_name_is_there_once_and_in_order(name: str) -> None:
    module = importlib.import_module(name)
    exported: list[str] = module.__all__
    assert sorted(set(exported), key=exported.index) == exported
    assert [missing for missing in exported if not hasattr(module, missing)] == []


def test_the_facade_has_the_designed_names() -> None:
    assert set(DESIGNED.split()) <= set(streamflow.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        streamflow.nothing_of_the_kind  # noqa: B018


def test_describing_a_pipeline_imports_no_engine() -> None:
    code = (
        "import sys, streamflow;"
        "streamflow.Source([1]);"
        "assert not [m for m in sys.modules if m.startswith(('streamflow.engine', 'nats', 'msgspec'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=30)
