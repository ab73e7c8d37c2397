"""The examples in the documents run: each Python block, by itself, against a real server with some orders."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from streamflow.testing import NatsServer
from tests.repository import ROOT, tracked_files

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

ORDERS = """
import asyncio
from streamflow import Source
from streamflow.codecs import Json
from streamflow.connectors.jetstream import JetStreamSink, StreamSettings

orders = [{"customer": c, "total": 10.0, "at": float(t)} for t in range(0, 180, 30) for c in "ab"]
sink = JetStreamSink("ORDERS", "orders.new", codec=Json(), create=StreamSettings(["orders.>"]))
asyncio.run(Source(orders).to(sink).run())
"""

TOTALS = """
import asyncio
from streamflow.codecs import Json
from streamflow.connectors import Collect
from streamflow.connectors.jetstream import JetStreamSource

read = JetStreamSource("TOTALS", codec=Json(), until="end").to(Collect())
totals = asyncio.run(read.run())
found = sorted((r["key"], r["value"]["start"], r["value"]["value"]) for r in totals)
assert found == [(c, s, 20.0) for c in "ab" for s in (0.0, 60.0, 120.0)], found
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with NatsServer() as server:
        execute(ORDERS, server.url)
        yield server.url


def execute(code: str, url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={"NATS_URL": url, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def blocks() -> list[tuple[str, str]]:
    return [
        (name, code)
        for name in tracked_files("README.md", "docs/*.md")
        for code in BLOCK.findall((ROOT / name).read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("name", "code"), [block for block in blocks() if "per_minute" not in block[1]])
def test_an_example_runs(name: str, code: str, url: str) -> None:
    execute(code, url)


def test_the_readmes_pipeline_computes_totals(url: str) -> None:
    (pipeline,) = [code for _, code in blocks() if "per_minute" in code]
    execute(pipeline, url)
    execute(TOTALS, url)
