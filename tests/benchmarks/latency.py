"""How long a message takes through a relay, from publish to arrival at another client, at a steady rate."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median

from tests.benchmarks.jetstream import Topic, topic
from tests.benchmarks.work import Measured

RATE = 1_000.0
WARM_UP = 0.1  # the part of the messages that is not counted

Relay = Callable[[Topic, Topic], Coroutine[None, None, None]]
"""Copies the bodies of one topic to another as they are, until it is cancelled."""


def relay_latency(url: str, relay: Relay, count: int, rate: float = RATE) -> Measured:
    """The median seconds from publish to arrival of `count` messages at `rate` a second, the first tenth left out."""
    with topic(url) as source, topic(url) as target:
        latencies = asyncio.run(_driven(relay, source, target, count, rate))
    return Measured(median(latencies[int(count * WARM_UP) :]))


async def _driven(relay: Relay, source: Topic, target: Topic, count: int, rate: float) -> list[float]:
    running = asyncio.create_task(relay(source, target))
    driving = asyncio.create_task(_drive(source, target, count, rate))
    try:
        await asyncio.wait({running, driving}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running  # raises what went wrong
            raise RuntimeError("the relay ended before it was cancelled")
        return await driving
    finally:
        for task in (driving, running):
            task.cancel()
        await asyncio.gather(driving, running, return_exceptions=True)


async def _drive(source: Topic, target: Topic, count: int, rate: float) -> list[float]:
    driver = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("driver.py")),
        source.url,
        source.subject,
        target.subject,
        str(count),
        str(rate),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await driver.communicate()
    finally:
        if driver.returncode is None:
            driver.kill()
            await driver.wait()
    if driver.returncode:
        raise RuntimeError(f"the latency driver failed: {errors.decode().strip()}")
    latencies: list[float] = json.loads(out.splitlines()[-1])
    return latencies
