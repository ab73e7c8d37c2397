"""The command line tool ``streamflow``. It needs the extra ``cli``: nothing else in the package does."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry of the command; says which extra is missing when it is not installed."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(
            f"streamflow: the command line tool needs {error.name}: pip install 'nats-streamflow[cli,server]'"
        )
    from streamflow.cli.commands import cli

    cli(prog_name="streamflow")
