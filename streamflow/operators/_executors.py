"""`Map` on threads and processes: functions run outside the event loop, in parts of the stream."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from time import perf_counter
from typing import Any

from streamflow.engine.channel import Channel
from streamflow.engine.connector import WorkContext
from streamflow.engine.output import Output
from streamflow.engine.work import DROPPED, Part, WorkStage
from streamflow.errors import ConfigurationError

_PART_SECONDS = 0.02
_LARGEST_PART = 256

Outcome = tuple[bool, Any]
"""Whether it worked, and the result or the exception."""


def check_sendable(f: Callable[..., Any]) -> None:
    """Refuse a function that another process cannot be told about."""
    name = getattr(f, "__qualname__", "")
    if "<lambda>" in name or "<locals>" in name:
        raise ConfigurationError(
            f"Map(executor='process') cannot send {name} to another process: define a function at module level"
        )
    try:
        pickle.dumps(f)
    except Exception as error:
        raise ConfigurationError(
            f"Map(executor='process') cannot send {f!r} to another process: {error}"
        ) from error


def apply(f: Callable[[Any], Any], values: list[Any]) -> list[Outcome]:
    """Runs in the worker: results and exceptions as values, so that one failure does not take the others along."""
    outcomes: list[Outcome] = []
    for value in values:
        try:
            outcomes.append((True, f(value)))
        except BaseException as error:
            outcomes.append((False, error))
    return outcomes


def apply_pickled(f: Callable[[Any], Any], values: list[bytes]) -> list[bytes]:
    """The same for another process: what does not pickle, either way, is the failure of that element alone."""
    return [_pickled(outcome) for outcome in apply(lambda data: f(pickle.loads(data)), values)]


def _pickled(outcome: Outcome) -> bytes:
    try:
        data = pickle.dumps(outcome)
        pickle.loads(data)  # an exception with a constructor of its own may pickle and not come back
    except Exception as error:
        worked, value = outcome
        reason = f"its result does not pickle: {error}" if worked else f"{type(value).__name__}: {value}"
        data = pickle.dumps((False, RuntimeError(reason)))
    return data


class _ExecutorStage(WorkStage):
    """Gives parts of the stream to an executor; a part is made to take about 20 ms."""

    def __init__(self, context: WorkContext, f: Callable[[Any], Any], *, concurrency: int | None) -> None:
        self.workers = concurrency or os.cpu_count() or 1
        # One more than there are workers, so that none waits for the loop between two parts.
        super().__init__(context, concurrency=self.workers + 1, ordered=True)
        self.f = f
        self._part = 1

    @property
    def part_size(self) -> int:
        return self._part

    async def perform(self, part: Part) -> None:
        values = part.values
        started = perf_counter()
        outcomes = await self.call(values)
        self._adapt(len(values), perf_counter() - started)
        results = []
        for value, (worked, result) in zip(values, outcomes, strict=True):
            if not worked:
                self.context.guard.decide(result, self.context.step, value)
                result = DROPPED
            results.append(result)
        part.finish(results)

    def _adapt(self, count: int, spent: float) -> None:
        if count >= self._part and spent < _PART_SECONDS:
            self._part = min(self._part * 2, _LARGEST_PART)
        elif spent > 4 * _PART_SECONDS:
            self._part = max(self._part // 2, 1)

    async def call(self, values: list[Any]) -> list[Outcome]:
        raise NotImplementedError


class ThreadStage(_ExecutorStage):
    """On threads. A function that runs when the pipeline is stopped is waited for: a thread cannot be ended."""

    _executor: Executor

    async def run(self, source: Channel, output: Output) -> None:
        self._executor = ThreadPoolExecutor(
            self.workers, thread_name_prefix=f"streamflow {self.context.step}"
        )
        try:
            await super().run(source, output)
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)
            await asyncio.to_thread(self._executor.shutdown)

    async def call(self, values: list[Any]) -> list[Outcome]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, apply, self.f, values)


class ProcessStage(_ExecutorStage):
    """On processes, which are ended with the pipeline."""

    async def run(self, source: Channel, output: Output) -> None:
        self._pools: list[ProcessPoolExecutor] = []
        self._pool = self._new_pool(self.workers)
        self._apart: ProcessPoolExecutor | None = None
        self._isolation = asyncio.Lock()
        try:
            await super().run(source, output)
        finally:
            for pool in list(self._pools):
                await self._end(pool)

    def _new_pool(self, workers: int) -> ProcessPoolExecutor:
        context = get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_signals_alone)
        self._pools.append(pool)
        return pool

    async def _end(self, pool: ProcessPoolExecutor) -> None:
        """Shut a pool down without waiting for what its workers compute. Cancelled, it is tried again at the end."""
        for worker in list((getattr(pool, "_processes", None) or {}).values()):
            worker.kill()
        # Only a shutdown that waits sees the processes gone, and after one that does not there is none any more.
        await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        if pool in self._pools:
            self._pools.remove(pool)

    async def call(self, values: list[Any]) -> list[Outcome]:
        pool = self._pool
        try:
            return await self._call(pool, values)
        except BrokenProcessPool as error:
            if self._pool is pool:
                self._pool = self._new_pool(self.workers)
                await self._end(pool)
            if not self.context.guard.may_absorb:
                return [(False, _death(error))] * len(values)
            async with self._isolation:
                return [await self._call_apart(value) for value in values]

    async def _call_apart(self, value: Any) -> Outcome:
        """Run one element in a process of its own, to learn whether it is the one that kills its worker."""
        if self._apart is None:
            self._apart = self._new_pool(1)
        try:
            (outcome,) = await self._call(self._apart, [value])
        except BrokenProcessPool as error:
            await self._end(self._apart)
            self._apart = None
            return False, _death(error)
        return outcome

    async def _call(self, pool: ProcessPoolExecutor, values: list[Any]) -> list[Outcome]:
        pickled = apply(pickle.dumps, values)
        sent = [data for works, data in pickled if works]
        loop = asyncio.get_running_loop()
        returned = iter(await loop.run_in_executor(pool, apply_pickled, self.f, sent))
        outcomes: list[Outcome] = []
        for works, error in pickled:
            outcomes.append(pickle.loads(next(returned)) if works else (False, error))
        return outcomes


def _leave_signals_alone() -> None:
    """In a worker: a terminal's Ctrl-C goes to every process, and this pipeline decides by itself how to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _death(error: BrokenProcessPool) -> RuntimeError:
    death = RuntimeError(
        "a worker process died while it computed this element, or one given to it along with it"
    )
    death.__cause__ = error
    return death
