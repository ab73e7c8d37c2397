"""`streamflow run`, `graph`, `bench` and what finds the pipeline they name."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from streamflow.cli import bench as benchmarks
from streamflow.cli.commands import cli
from tests.child import child

SHOP = """
import asyncio
from streamflow import Source
from streamflow.connectors import Collect, ForEach
from streamflow.operators import Map, MapAsync

def tenth_of(number):
    return 10 // number

totals = Source([5, 0, 2]).via(Map(tenth_of)).to(ForEach(print), name="totals")
unclosed = Source([1])
number = 3

class Nested:
    refunds = Source([1]).to(Collect(), name="refunds")

def build():
    return totals

def broken():
    return totals / 2

def wants(argument):
    return totals

async def endless():
    for number in range(10**9):
        yield number
        await asyncio.sleep(0.01)

jobs = Source(endless).to(ForEach(lambda number: print("got", number, flush=True)), name="jobs")
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of pipelines, to be in. What a test imports from it is forgotten."""
    (tmp_path / "shop_of_tests.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def streamflow(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


MERMAID = """\
flowchart LR
    s0(["Source"])
    s1["Map"]
    s2[/"ForEach"/]
    s0 --> s1
    s1 --> s2
"""


@pytest.mark.parametrize(
    "target",
    ["shop_of_tests:totals", "shop_of_tests.py:totals", "./shop_of_tests.py:build", "shop_of_tests:build"],
)
def test_graph_prints_mermaid(target: str) -> None:
    result = streamflow("graph", target)
    assert (result.exit_code, result.stdout) == (0, MERMAID)


def test_a_file_of_another_folder(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "helper_of_tests.py").write_text("from shop_of_tests import totals\n")
    (elsewhere / "shop_of_tests.py").write_text(SHOP, encoding="utf-8")
    result = streamflow("graph", f"{elsewhere / 'helper_of_tests.py'}:totals")
    assert (result.exit_code, result.stdout) == (0, MERMAID)


def test_graph_of_a_dotted_name() -> None:
    assert '"Collect"' in streamflow("graph", "shop_of_tests:Nested.refunds").stdout


def test_graph_writes_files(shop: Path) -> None:
    assert streamflow("graph", "shop_of_tests:totals", "-o", "totals.mmd").exit_code == 0
    assert (shop / "totals.mmd").read_text() == MERMAID
    assert streamflow("graph", "shop_of_tests:totals", "-o", "totals.svg").stdout == "wrote totals.svg\n"
    assert ElementTree.parse(shop / "totals.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere:totals"], "there is no module 'nowhere', neither in"),
        (["nowhere.at.all:totals"], "there is no module 'nowhere'"),
        (["nowhere.py:totals"], "there is no file nowhere.py"),
        (["shop_of_tests:total"], "'shop_of_tests' has no 'total'. It has shop_of_tests:totals"),
        (["shop_of_tests"], "which pipeline of 'shop_of_tests'? It has shop_of_tests:totals"),
        (["shop_of_tests:number"], "shop_of_tests:number is no pipeline, but 3. It has shop_of_tests:totals"),
        (["shop_of_tests:unclosed"], "is a stream without a sink: close it with .to(sink)"),
        (
            ["shop_of_tests:wants"],
            "calling shop_of_tests:wants failed: TypeError: wants() missing 1 required",
        ),
        (["shop_of_tests:broken"], "shop_of_tests.py:21: TypeError: unsupported operand"),
        (["shop_of_tests:totals", "-o", "totals.png"], "say a name that ends with .svg or .mmd"),
        (["shop_of_tests:totals", "-o", "nowhere/totals.svg"], "No such file or directory"),
    ],
)
def test_what_is_wrong_is_one_clear_line(arguments: list[str], reason: str) -> None:
    result = streamflow("graph", *arguments)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "at {path}:1: ZeroDivisionError: division by zero"),
        (
            "import nowhere_to_be_found",
            "at {path}:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        ),
        ("x =\n", "at {path}:1: SyntaxError: invalid syntax"),
    ],
)
@pytest.mark.parametrize("target", ["faulty_of_tests:x", "faulty_of_tests.py:x"])
def test_a_module_that_fails_is_named_with_its_line(shop: Path, code: str, reason: str, target: str) -> None:
    path = shop / "faulty_of_tests.py"
    path.write_text(code)
    result = streamflow("graph", target)
    assert result.exit_code == 1
    assert reason.format(path=path) in result.stderr
    assert result.stderr.count("\n") == 1


def test_run_with_options(shop: Path) -> None:
    with child("-m", "streamflow.cli", "run", "shop_of_tests:totals", cwd=shop) as run:
        assert run.end() == 1
        assert "pipeline 'totals', step 'Map': failed on 0: ZeroDivisionError" in run.lines[-1]
    skipping = ("shop_of_tests.py:totals", "--on-error", "skip", "--log-level", "error")
    with child("-m", "streamflow.cli", "run", *skipping, cwd=shop) as run:
        assert run.end() == 0
        assert run.lines == ["2\n", "5\n"]
    with child(
        "-m", "streamflow.cli", "run", "shop_of_tests:totals", "--delivery", "exactly_once", cwd=shop
    ) as run:
        assert run.end() == 1
        assert "delivery='exactly_once' commits outputs" in run.lines[-1]


def test_run_drains_on_sigterm(shop: Path) -> None:
    with child("-m", "streamflow.cli", "run", "shop_of_tests:jobs", cwd=shop) as run:
        run.wait_for("got 3")
        run.send(signal.SIGTERM)
        assert run.end() == 0
        assert "drained pipeline=jobs" in run.output


def test_run_names_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_DRAIN_TIMEOUT", "soon")
    result = streamflow("run", "shop_of_tests:totals")
    assert result.exit_code == 1
    assert "option 'drain_timeout'" in result.stderr


def test_bench_prints_the_lines_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []

    def report(scale: float) -> list[str]:
        scales.append(scale)
        return ["work", "  streamflow  1 ns"]

    monkeypatch.setattr(benchmarks, "report", report)
    assert streamflow("bench").stdout == "work\n  streamflow  1 ns\n"
    assert streamflow("bench", "--scale", "0.1").exit_code == 0
    assert scales == [1.0, 0.1]


def test_bench_says_that_it_needs_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmarks, "_CHECKOUT", tmp_path)
    result = streamflow("bench")
    assert result.exit_code == 1
    assert "benchmarks need a checkout" in result.stderr


def test_help_names_every_command() -> None:
    result = streamflow("--help")
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in ("bench", "demo", "graph", "run", "server"))


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from streamflow.cli import main; main()"
    with child("-c", code, cwd=tmp_path) as run:
        assert run.end() == 1
        assert run.lines == [
            f"streamflow: the command line tool needs {missing}: pip install 'nats-streamflow[cli,server]'\n"
        ]
