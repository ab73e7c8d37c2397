"""The commands of ``streamflow``. Each imports what it needs when it is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from streamflow.errors import ConfigurationError, StreamflowError
from streamflow.graph import RunOptions
from streamflow.policies import Checkpoint, Fail, Skip

_TARGET_HELP = "TARGET is module:name or path/to/file.py:name, a pipeline or a function that returns one."


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What we raise on purpose is one line on standard error, and exit code 1."""
    try:
        yield
    except StreamflowError as error:
        raise click.ClickException(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nats-streamflow", prog_name="streamflow", message="%(prog)s %(version)s")
def cli() -> None:
    """Stream processing on NATS JetStream: run pipelines, look at them, try them out.

    New here? `streamflow demo` shows a pipeline at work on real data, with a server of its own.
    """


@cli.command(epilog=_TARGET_HELP)
@click.argument("target")
@click.option("--delivery", type=click.Choice(["best_effort", "at_least_once", "exactly_once"]))
@click.option(
    "--checkpoint", metavar="BUCKET", help="The key-value bucket that keeps what the pipeline remembers."
)
@click.option("--on-error", type=click.Choice(["fail", "skip"]), help="What to do about elements that fail.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def run(
    target: str, delivery: Any, checkpoint: str | None, on_error: str | None, log_level: str | None
) -> None:
    """Run a pipeline as a service.

    SIGINT (Ctrl-C) and SIGTERM drain it: what is in flight is finished. A second signal stops it. Settings come from
    STREAMFLOW_* variables; NATS_URL names the servers for connectors that name none.
    """
    from attrs import evolve

    from streamflow.app import App
    from streamflow.cli.target import find_pipeline
    from streamflow.settings import load

    with _clear_errors():
        settings = load()
        options: RunOptions = {"settings": evolve(settings, log_level=log_level or settings.log_level)}
        if delivery:
            options["delivery"] = delivery
        if checkpoint:
            options["checkpoint"] = Checkpoint(checkpoint)
        if on_error:
            options["on_error"] = Skip() if on_error == "skip" else Fail()
        app = App(find_pipeline(target), **options)
    sys.exit(app.run())


@cli.command(epilog=_TARGET_HELP)
@click.argument("target")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file.svg or file.mmd to write."
)
def graph(target: str, output: Path | None) -> None:
    """Show a pipeline's graph: as Mermaid text, or drawn as SVG."""
    from streamflow.cli.svg import to_svg
    from streamflow.cli.target import find_pipeline

    with _clear_errors():
        pipeline = find_pipeline(target)
        if output is None:
            click.echo(pipeline.to_mermaid())
        elif output.suffix in (".svg", ".mmd"):
            text = to_svg(pipeline.describe()) if output.suffix == ".svg" else pipeline.to_mermaid() + "\n"
            try:
                output.write_text(text, encoding="utf-8")
            except OSError as error:
                raise ConfigurationError(f"cannot write {output}: {error.strerror}") from error
            click.echo(f"wrote {output}")
        else:
            raise ConfigurationError(f"cannot write {output}: say a name that ends with .svg or .mmd")


@cli.group()
def state() -> None:
    """Look at what pipelines have saved in a BUCKET of checkpoints, or reset it.

    NATS_URL names the servers.
    """


@state.command("ls")
@click.argument("bucket")
@click.option("--servers", help="URL of the servers.")
def state_ls(bucket: str, servers: str | None) -> None:
    """The pipelines: their last checkpoint, who is at work, what their steps remember."""
    from streamflow.cli.state import show_pipelines

    with _clear_errors():
        show_pipelines(bucket, servers, click.echo)


@state.command("get")
@click.argument("bucket")
@click.argument("pipeline")
@click.argument("step")
@click.argument("key", required=False)
@click.option("--servers", help="URL of the servers.")
def state_get(bucket: str, pipeline: str, step: str, key: str | None, servers: str | None) -> None:
    """What a step remembers, of all keys or of one, as lines of JSON."""
    from streamflow.cli.state import show_entries

    with _clear_errors():
        show_entries(bucket, servers, pipeline, step, key, click.echo)


@state.command("export")
@click.argument("bucket")
@click.argument("pipeline")
@click.option("--servers", help="URL of the servers.")
def state_export(bucket: str, pipeline: str, servers: str | None) -> None:
    """Everything that a pipeline remembers, as lines of JSON."""
    from streamflow.cli.state import show_entries

    with _clear_errors():
        show_entries(bucket, servers, pipeline, None, None, click.echo)


@state.command("reset")
@click.argument("bucket")
@click.argument("pipeline")
@click.option("--servers", help="URL of the servers.")
@click.confirmation_option(prompt="Forget what this pipeline has saved, and begin anew with its next run?")
def state_reset(bucket: str, pipeline: str, servers: str | None) -> None:
    """Forget a pipeline's checkpoints. Refused while it is at work."""
    from streamflow.cli.state import reset_pipeline

    with _clear_errors():
        reset_pipeline(bucket, servers, pipeline)
    click.echo(f"pipeline {pipeline!r} begins anew")


@cli.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4222, show_default=True, help="0: any free one."
)
@click.option(
    "--store-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep streams. Without it they are gone at the end.",
)
def server(port: int, store_dir: Path | None) -> None:
    """Run a NATS server with JetStream on 127.0.0.1, for development, until Ctrl-C."""
    from streamflow.cli.server import serve

    with _clear_errors():
        serve(port, store_dir, click.echo)


@cli.command()
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
def bench(scale: float) -> None:
    """Measure streamflow beside its peers, and print the table. Needs a checkout, and some minutes.

    A smaller scale shrinks the work for a quick look, whose figures say little.
    """
    from streamflow.cli.bench import report

    with _clear_errors():
        for line in report(scale):
            click.echo(line)


@cli.command()
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    help="Flights per second (default: so that the replay takes about ten seconds).",
)
def demo(rate: float | None) -> None:
    """Watch a pipeline at work: two weeks of flights from New York, through a NATS server of its own.

    It leaves nothing behind, also when you interrupt it.
    """
    from streamflow.cli.demo import show

    with _clear_errors():
        sys.exit(show(rate))
