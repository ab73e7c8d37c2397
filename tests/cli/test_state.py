"""`streamflow state`: what pipelines have saved, for people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from streamflow import Checkpoint, Source
from streamflow.cli.commands import cli
from streamflow.connectors import Collect
from streamflow.operators import Batch, Fold, Keyed
from streamflow.testing import NatsServer


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


def state(server: NatsServer, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["state", *arguments, "--servers", server.url], input=given)


async def run(server: NatsServer, count: int, name: str = "my totals.v1") -> list[Any]:
    fold: Any = Keyed(lambda n: f"key {n % 2}", Fold(0, lambda total, n: total + n))
    pipeline = Source(range(count)).via(fold).via(Batch(4)).to(Collect(), name=name)
    return await pipeline.run(checkpoint=Checkpoint("kept", servers=server.url))


def test_what_is_saved_is_shown_exported_and_reset(server: NatsServer) -> None:
    assert state(server, "ls", "kept").output == "Error: there is no bucket 'kept'\n"
    asyncio.run(run(server, 10))
    asyncio.run(run(server, 3, "other"))
    lines = state(server, "ls", "kept").output.splitlines()
    assert lines[0] == "my totals.v1: checkpoint 1, finished, not at work"
    assert lines[1].startswith("  source Source: ")
    assert lines[2] == "  step Batch: 0 entries, 0 bytes (Batching)"
    assert lines[3].startswith("  step Keyed/Fold: 2 entries, ") and lines[3].endswith(" (by key: Folding)")
    assert "other: checkpoint 1, finished, not at work" in lines

    shown = state(server, "get", "kept", "my totals.v1", "Keyed/Fold").output
    totals = {entry["key"]: entry["state"] for entry in map(json.loads, shown.splitlines())}
    assert totals == {"key 0": 20, "key 1": 25}
    (one,) = state(server, "get", "kept", "my totals.v1", "Keyed/Fold", "key 1").output.splitlines()
    assert json.loads(one) == {
        "step": "Keyed/Fold",
        "namespace": None,
        "key": "key 1",
        "timer": None,
        "state": 25,
    }
    exported = state(server, "export", "kept", "my totals.v1").output.splitlines()
    assert {json.loads(line)["step"] for line in exported} == {"Keyed/Fold"}

    assert state(server, "reset", "kept", "my totals.v1", given="n\n").exit_code == 1
    assert len(asyncio.run(run(server, 10))) == 0
    done = state(server, "reset", "kept", "my totals.v1", "--yes")
    assert (done.exit_code, done.output) == (0, "pipeline 'my totals.v1' begins anew\n")
    assert len(asyncio.run(run(server, 10))) == 3
    assert "other: checkpoint 1" in state(server, "ls", "kept").output


def test_what_is_not_there_is_said(server: NatsServer) -> None:
    asyncio.run(run(server, 3))
    for arguments, says in [
        (("get", "kept", "unknown", "Fold"), "bucket 'kept' has no checkpoint of pipeline 'unknown'"),
        (("export", "kept", "unknown"), "bucket 'kept' has no checkpoint of pipeline 'unknown'"),
        (("reset", "kept", "unknown", "--yes"), "bucket 'kept' has no checkpoint of pipeline 'unknown'"),
        (("get", "kept", "my totals.v1", "Sum"), "remembers nothing of step 'Sum': it has Batch, Keyed/Fold"),
    ]:
        result = state(server, *arguments)
        assert result.exit_code == 1
        assert says in result.output


def test_a_pipeline_that_is_at_work_is_not_reset(server: NatsServer) -> None:
    go = asyncio.Event()

    async def endless() -> Any:
        yield 1
        await go.wait()

    async def work() -> tuple[Result, Result]:
        pipeline = Source(endless).via(Batch(3)).to(Collect(), name="busy")
        async with pipeline.start(checkpoint=Checkpoint("kept", servers=server.url, every=0.05)) as running:
            while running.stats().checkpoints < 2:
                await asyncio.sleep(0.01)
            refused = await asyncio.to_thread(state, server, "reset", "kept", "busy", "--yes")
            shown = await asyncio.to_thread(state, server, "ls", "kept")
            await running.stop()
        return refused, shown

    refused, shown = asyncio.run(work())
    assert refused.exit_code == 1 and "pipeline 'busy' is at work" in refused.output
    assert ", at work: " in shown.output
