"""Drives a relay from outside: publishes at a steady rate, listens to what comes out, prints the latencies.

usage: python driver.py URL INPUT_SUBJECT OUTPUT_SUBJECT COUNT RATE

It is a process of its own, so that neither its work nor its garbage delays the relay's event loop. Each message
carries the time of its publish in its first 8 bytes; the relay passes the body on as it is. The last line of the
output is a JSON list of seconds from publish to arrival, in order of publishing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

import nats

if TYPE_CHECKING:
    from nats.aio.msg import Msg

BODY_BYTES = 100
DEADLINE_SECONDS = 30.0  # for what is still on its way when the last message is out


async def drive(url: str, source: str, target: str, count: int, rate: float) -> list[float]:
    """The latency of each of `count` messages, published `rate` a second."""
    connection = await nats.connect(url)
    latencies: dict[int, float] = {}
    complete = asyncio.Event()

    async def arrived(message: Msg) -> None:
        now = time.perf_counter_ns()
        latencies[int.from_bytes(message.data[8:16])] = (now - int.from_bytes(message.data[:8])) / 1e9
        if len(latencies) == count:
            complete.set()

    await connection.subscribe(target, cb=arrived)
    await connection.flush()
    start = time.perf_counter()
    for number in range(count):
        # Paced by the schedule, not by the last publish: a late one does not lower the rate.
        await asyncio.sleep(start + number / rate - time.perf_counter())
        body = time.perf_counter_ns().to_bytes(8) + number.to_bytes(8)
        await connection.publish(source, body.ljust(BODY_BYTES, b"x"))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await complete.wait()
    except TimeoutError:
        raise SystemExit(f"{count - len(latencies)} of {count} messages never came out on {target}") from None
    finally:
        await connection.close()
    return [latencies[number] for number in range(count)]


if __name__ == "__main__":
    url, source, target, count, rate = sys.argv[1:]
    print(json.dumps(asyncio.run(drive(url, source, target, int(count), float(rate)))))
