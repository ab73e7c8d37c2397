"""Habits of the repository: small files, documents that name commands which exist, links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.repository import ROOT, tracked_files

GENERATED = "streamflow/v1/"
MAX_LINES = 500

# `make check test` as inline code, and lines of code blocks or scripts, with or without a prompt.
INLINE = re.compile(r"`make ([^`]+)`")
COMMAND = re.compile(r"^\s*(?:- run: |\$ |exec )?make ([a-z][a-z ]*)", re.MULTILINE)
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def mentioned_targets(name: str) -> set[str]:
    """The make targets that a document or script tells its reader to call."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".md"):
        commands = INLINE.findall(text) + COMMAND.findall("\n".join(FENCED.findall(text)))
    else:
        commands = COMMAND.findall(text)
    return {word for command in commands for word in command.split() if re.fullmatch(r"[a-z]+", word)}


def test_no_module_is_too_long_to_read() -> None:
    sizes = {
        name: len((ROOT / name).read_text(encoding="utf-8").splitlines())
        for name in tracked_files("*.py")
        if not name.startswith(GENERATED)
    }
    assert sizes
    assert {name: size for name, size in sizes.items() if size > MAX_LINES} == {}


def test_every_make_target_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    mentioned = {
        (name, target)
        for name in tracked_files("*.md", ".ci/run", ".github/workflows/*.yml")
        for target in mentioned_targets(name)
    }
    assert (".ci/run", "test") in mentioned  # the patterns still find what is there
    assert ("CONTRIBUTING.md", "check") in mentioned
    assert {pair for pair in mentioned if pair[1] not in targets} == set()


@pytest.mark.parametrize("name", ["connectors", "operators"])
def test_the_root_links_lead_into_the_package(name: str) -> None:
    link = ROOT / name
    if not (ROOT / ".git").exists():
        pytest.skip("an sdist has no root links")
    assert link.readlink() == Path("streamflow") / name  # relative, so that it holds in every clone
    assert (link / "__init__.py").is_file()
