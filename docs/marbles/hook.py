"""What mkdocs calls: pages made from docstrings are written before the pages are collected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError


def on_pre_build(config: MkDocsConfig) -> None:
    # In a process of its own: `mkdocs serve` then sees docstrings as they are now, and not as they were imported.
    command = [sys.executable, "-m", "docs.marbles.page", config.docs_dir]
    done = subprocess.run(
        command, cwd=Path(config.docs_dir).parent, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise PluginError(f"docs/operators.md cannot be written: {done.stderr}")
