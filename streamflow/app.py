"""Pipelines as a service: settings from the environment, logs, signals, a graceful end and an exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar, Unpack, cast

from streamflow.engine.runner import Running
from streamflow.errors import ConfigurationError, FencedError
from streamflow.graph import Pipeline, RunOptions
from streamflow.settings import Settings, load

R = TypeVar("R")

_FORCED = 128
"""Added to the number of the signal: the exit code of a process that a signal ended, as shells report it."""

_ECHO_SECONDS = 0.05
"""A signal that comes twice within it was sent once: `timeout` and some supervisors signal a process and its group."""


def run(pipeline: Pipeline[R], **options: Unpack[RunOptions]) -> R:
    """Run a pipeline as a service, and return its sink's result.

    The synchronous entry for a ``__main__``: takes `Settings` from the environment, sets logs up, uses uvloop if it
    is installed, and runs until the source ends or the process is told to end. SIGINT and SIGTERM drain the
    pipeline; a second one, or ``drain_timeout``, stops it. With a checkpoint a second process is a standby: it waits
    until the first ends or falls silent, and goes on from its last checkpoint.

    A failure is logged as one line (with its traceback at log level ``debug``) and ends the process with
    ``SystemExit(1)``; a pipeline that had to be stopped with 128 + the signal's number. ``options`` are those of
    `Pipeline.run`; ``settings=`` takes the place of the environment.
    """
    app = App(pipeline, **options)
    code = app.run()
    if code:
        raise SystemExit(code)
    return cast(R, app.results[0])


class App:
    """Pipelines that run side by side in one process, all with the same options.

    ``sys.exit(App(orders, refunds).run())``: the signals, logs and settings of `run`. One that ends by itself leaves
    the others running; one that fails has them drained, and the exit code is 1.
    """

    def __init__(self, *pipelines: Pipeline[Any], **options: Unpack[RunOptions]) -> None:
        if not pipelines:
            raise ConfigurationError("App needs a pipeline: App(orders, refunds)")
        for pipeline in pipelines:
            if not isinstance(pipeline, Pipeline):
                raise ConfigurationError(
                    f"App takes pipelines, not {pipeline!r}: close a stream with .to(sink)"
                )
        names = [pipeline.name for pipeline in pipelines]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(
                    f"two pipelines are named {name!r}: name them apart, .to(sink, name=…)"
                )
        settings = options.get("settings")
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigurationError(f"settings must be a streamflow.settings.Settings, not {settings!r}")
        self._pipelines = pipelines
        self._options = options
        self.results: tuple[Any, ...] = ()
        """The sinks' results by pipeline, after `run`; None for one that failed."""

    def run(self) -> int:
        """Run until all have ended, and return the exit code.

        0: finished or drained. 1: something failed, which was logged. 130, 143: stopped before everything in flight
        was finished, after SIGINT or SIGTERM. Call it on the main thread, where Python delivers signals; on any other
        it runs without them.
        """
        _check_no_loop()
        try:
            settings = self._options.get("settings") or load()
        except ConfigurationError as error:
            # Nobody knows yet how to log.
            print(f"streamflow: {error}", file=sys.stderr)  # noqa: T201
            return 1
        from streamflow.telemetry.logs import set_up

        set_up(settings.log_level, settings.log_format)
        options: RunOptions = {**self._options, "settings": settings}
        group = _Group(self._pipelines, options, settings.drain_timeout)
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                code = runner.run(group.run())
        except KeyboardInterrupt:  # before or after the group listens
            return _FORCED + signal.SIGINT
        self.results = tuple(member.result for member in group.members)
        return code


class _Group:
    """The pipelines of one process, and what ends them."""

    def __init__(
        self, pipelines: tuple[Pipeline[Any], ...], options: RunOptions, drain_timeout: float
    ) -> None:
        from streamflow.telemetry.logs import logger

        self._log = logger()
        self._drain_timeout = drain_timeout
        self._winding_down = asyncio.Event()
        self._stopping = asyncio.Event()
        self._signal: int | None = None
        self._forced = False
        self.members = [_Member(pipeline, options, self._winding_down.set) for pipeline in pipelines]

    async def run(self) -> int:
        """Run them all; returns the exit code."""
        with signals(self._on_signal):
            for member in self.members:
                member.start()
            work = [member.task for member in self.members]
            asked = asyncio.create_task(self._winding_down.wait())
            all_done = asyncio.create_task(asyncio.wait(work))
            await asyncio.wait([all_done, asked], return_when=asyncio.FIRST_COMPLETED)
            if not all_done.done():
                await self._wind_down(all_done)
            asked.cancel()
        if any(member.failed for member in self.members):
            return 1
        return _FORCED + self._signal if self._forced and self._signal is not None else 0

    async def _wind_down(self, all_done: asyncio.Task[Any]) -> None:
        for member in self.members:
            member.drain()
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([all_done, stop], timeout=self._drain_timeout, return_when=asyncio.FIRST_COMPLETED)
        if not all_done.done():
            self._forced = True
            reason = "asked again" if stop.done() else f"not drained within {self._drain_timeout:g} s"
            self._log.warning("stopping now", reason=reason)
            for member in self.members:
                member.stop()
            await asyncio.wait([all_done])
        stop.cancel()

    def _on_signal(self, number: int) -> None:
        """The first signal drains, the next one stops."""
        if self._signal is not None:
            self._stopping.set()
            return
        self._signal = number
        self._log.info(
            "draining",
            signal=signal.Signals(number).name,
            timeout=self._drain_timeout,
            hint="again to stop at once",
        )
        self._winding_down.set()


class _Member:
    """One pipeline of the group."""

    task: asyncio.Task[None]

    def __init__(self, pipeline: Pipeline[Any], options: RunOptions, on_failure: Callable[[], None]) -> None:
        from streamflow.telemetry.logs import LogObserver

        self.pipeline = pipeline
        self.result: Any = None
        self.failed = False
        observers = (LogObserver(pipeline.name), *options.get("observers", ()))
        self._options: RunOptions = {**options, "observers": observers}
        self._on_failure = on_failure
        self._running: Running[Any] | None = None
        self._draining: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while await self._run_once():
            self._running = None

    async def _run_once(self) -> bool:
        """Run to the end; True if it is to begin again, as a standby: another process owns the checkpoints now."""
        from streamflow.telemetry.logs import log_failure, logger

        try:
            context = self.pipeline.start(**self._options)
        except Exception as error:
            # The run has not begun, so that no observer hears of it.
            log_failure(logger(pipeline=self.pipeline.name), error)
            self._fail()
            return False
        try:
            async with context as running:
                self._running = running
                self.result = await running.wait()
        except asyncio.CancelledError:
            pass  # stopped while it was opening its connectors
        except FencedError:
            return True
        except BaseException:
            self._fail()
        return False

    def _fail(self) -> None:
        self.failed = True
        self._on_failure()

    def drain(self) -> None:
        """Finish what is in flight; a pipeline that is still opening has nothing, and is stopped."""
        if self._running is None:
            self.task.cancel()
        else:
            self._draining = asyncio.create_task(self._running.drain())

    def stop(self) -> None:
        if self._running is not None:
            self._draining = asyncio.create_task(self._running.stop())


@contextmanager
def signals(heard: Callable[[int], None]) -> Iterator[None]:
    """Call ``heard`` on the running loop for SIGINT and SIGTERM; from the third on they end the process as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    taken: list[tuple[int, float]] = []

    def handle(number: int, _: object) -> None:
        # Called between two bytecodes of whatever runs: a step that keeps the loop busy cannot hide the signals.
        now = monotonic()
        if taken and taken[-1][0] == number and now - taken[-1][1] < _ECHO_SECONDS:
            return
        taken.append((number, now))
        if len(taken) >= 2:  # not ==: a third may come between these two lines
            for each in before:
                signal.signal(each, signal.SIG_DFL)
        loop.call_soon_threadsafe(heard, number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError("run() starts an event loop of its own; in a coroutine, await pipeline.run()")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, if it is installed (extra ``fast``)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
