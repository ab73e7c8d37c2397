"""The page of operators: complete, and not written at all if a docstring lacks its picture."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

from docs.marbles.hook import on_pre_build
from docs.marbles.page import GROUPS, WITHOUT_PICTURE, PageError, build, signature, write
from streamflow import operators
from tests.repository import ROOT

DOC = """Do it.

    ::

        ──1──▶
        Map(f)
        ──2──▶
    """


def documented(doc: str | None, name: str = "Map") -> Any:
    return type(name, (), {"__doc__": doc})


def test_every_operator_has_one_heading_and_its_picture(tmp_path: Path) -> None:
    write(tmp_path)
    text = (tmp_path / "operators.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### (\w+)$", text, re.MULTILINE)) == sorted(operators.__all__)
    shown = re.findall(r"\]\(pictures/(\S+)\)$", text, re.MULTILINE)
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "pictures").iterdir()}
    assert sorted(shown) == sorted(files)
    pictured = {name.partition(".")[0].partition("-")[0] for name in shown}
    assert set(operators.__all__) - pictured <= set(GROUPS[WITHOUT_PICTURE].split())
    for svg in files.values():
        ElementTree.fromstring(svg)
        assert len(svg) < 8_000


def test_no_text_diagram_and_no_mark_of_a_docstring_is_left(tmp_path: Path) -> None:
    write(tmp_path)
    text = (tmp_path / "operators.md").read_text(encoding="utf-8")
    assert "──" not in text and not re.search(r"::$", text, re.MULTILINE)
    assert text.count("\n```\n") == len(re.findall(r"^```\w+$", text, re.MULTILINE))
    assert "```python\n" not in text  # those would run as complete programs
    for name in operators.__all__:
        doc = getattr(operators, name).__doc__
        for word in ("Emits", "Completes", "Holds"):
            assert doc.count(f"{word} ") <= text.count(f"**{word}** ")
        assert all(line.strip() in text for line in doc.splitlines() if ">>>" in line)


def test_links_lead_to_headings_of_the_page(tmp_path: Path) -> None:
    write(tmp_path)
    text = (tmp_path / "operators.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(#(\w+)\)", text))
    assert links
    assert links <= {name.lower() for name in re.findall(r"^### (\w+)$", text, re.MULTILINE)}


def test_writing_again_touches_nothing_and_removes_what_is_no_more(tmp_path: Path) -> None:
    write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    stale = tmp_path / "pictures" / "Gone.svg"
    stale.write_text("<svg/>")
    write(tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == {path: time for path, time in before.items() if path.is_file()}


def test_a_docstring_becomes_markdown() -> None:
    doc = """Do `it` to ``x``.

    ::

        ──1──▶
        Map(f)
        ──2──▶

        ──3──▶
        Map(f, slow=True)
        ──4──╳

    Like `Filter`, or like this::

        Map(a)

        Map(b)

    Emits at once. Holds
    nothing.
    >>> table
        1  2

        none of it

    Raises `ValueError`.
    Source of the idea: a book.
    """
    page = build({"Map": documented(doc), "Filter": documented(DOC.replace("Map", "Filter"), "Filter")})
    assert [*page.pictures] == ["Map.svg", "Map-2.svg", "Filter.svg"]
    entry = page.text.partition("### Map\n\n")[2].partition("\n\n### Filter")[0]
    assert entry.split("\n\n") == [
        "Do `it` to ``x``.",
        "![Map(f). In: 1, goes on. Out: 2, goes on.](pictures/Map.svg)",
        "![Map(f, slow=True). In: 3, goes on. Out: 4, fails.](pictures/Map-2.svg)",
        "```py\nMap()\n```",
        "Like [`Filter`](#filter), or like this:",
        "```text\nMap(a)",
        "Map(b)\n```",
        "**Emits** at once. **Holds**\nnothing.",
        "```pycon\n>>> table\n    1  2\n```",
        "    none of it",
        "**Raises** `ValueError`.",
        "Source of the idea: a book.",
    ]


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        (None, "Map has no docstring"),
        ("Do it.", "Map has no marble diagram"),
        (DOC.replace("::", "This:"), "Map has no marble diagram"),
        (DOC.replace("─", "-"), "Map has no marble diagram"),
        (DOC.replace("2──▶", "2──"), "Map: a timeline ends in"),
        (DOC.replace("Map(f)", "Filter(f)"), r"Map has a diagram of another operator: 'Filter\(f\)'"),
    ],
)
def test_an_operator_without_a_good_picture_is_refused_by_name(doc: str | None, reason: str) -> None:
    with pytest.raises(PageError, match=reason):
        build({"Map": documented(doc)})


def test_an_operator_in_no_group_or_in_two_is_refused_by_name() -> None:
    with pytest.raises(PageError, match="Frob is in no groups"):
        build({"Map": documented(DOC), "Frob": documented(DOC, "Frob")})
    with pytest.raises(PageError, match="Map is in 2 groups"):
        build({"Map": documented(DOC)}, {"One": "Map", "Two": "Map"})


def test_aggregators_need_no_picture() -> None:
    assert "### Sum" in build({"Sum": documented("Add.", "Sum")}).text


def test_signatures_show_types_as_they_are_written() -> None:
    assert signature("Take", operators.Take) == (
        "Take(n: int, *, on_error: ErrorPolicy | None = None) -> Flow[T, T]"
    )
    assert signature("merge", operators.merge) == "merge(*streams: Stream[Any]) -> Stream[Any]"
    assert signature("Map", operators.Map).splitlines()[:4] == [
        "Map(",
        "    f: Callable[[T], U],",
        "    *,",
        "    executor: Literal['thread', 'process'] | None = None,",
    ]


def test_the_site_of_a_fresh_clone_has_the_pictures(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("operators.md", "pictures", "__pycache__")
    for folder in ("docs", "streamflow"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    html = (site / "operators" / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="\.\./(pictures/[^"]+)"', html)
    assert "pictures/Map.svg" in sources
    assert all((site / source).exists() for source in sources)
    assert not list(site.rglob("*.py"))


def test_the_build_stops_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that is not there stands for a page that cannot be written."""
    config = MkDocsConfig()
    config.load_dict({"site_name": "x", "docs_dir": str(tmp_path / "docs")})
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(PluginError, match=r"(?s)operators\.md cannot be written: .*Error"):
        on_pre_build(config)
