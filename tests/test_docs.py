"""The examples in the documents run: each Python block, by itself, against a real server with some orders."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamflow.testing import NatsServer
from tests.repository import ROOT, tracked_files

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

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
        execute(block("# orders.py"), server.url)
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


def block(start: str) -> str:
    (found,) = [code for _, code in blocks() if code.startswith(start)]
    return found


@pytest.mark.parametrize(("name", "code"), [(n, code) for n, code in blocks() if not code.startswith("# ")])
def test_an_example_runs(name: str, code: str, url: str) -> None:
    execute(code, url)


def test_the_readmes_pipeline_computes_totals(url: str) -> None:
    execute(block("# totals.py"), url)
    execute(TOTALS, url)


def test_the_type_checkers_infer_the_examples(tmp_path: Path) -> None:
    for number, (_, code) in enumerate(blocks()):
        (tmp_path / f"example{number}.py").write_text(code)
    check = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    files = sorted(map(str, tmp_path.glob("*.py")))
    done = subprocess.run(
        [*check, *files], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout
