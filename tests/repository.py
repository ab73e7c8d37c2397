"""The repository itself, for the tests that check it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def tracked_files(*patterns: str) -> list[str]:
    """Paths under version control, relative to `ROOT`, that match one of the git patterns (default: all).

    Links are listed as themselves; what was deleted but not yet committed is not. Outside a git checkout, as in
    an unpacked sdist, nothing says what belongs to the project, and the calling test is skipped.
    """
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--", *patterns]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listing.stdout.split("\0") if name]
    return [name for name in names if (ROOT / name).is_symlink() or (ROOT / name).exists()]
