"""Stages of the asynchronous operators: a coroutine, or an async iterable, for each element."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

from streamflow.engine.connector import WorkContext
from streamflow.engine.transform import Work
from streamflow.engine.work import DROPPED, Outputs, Part, WorkStage
from streamflow.errors import shorten
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy, positive, seconds

_END = object()


_LONGEST_SECONDS = 60.0


def check(
    what: str, concurrency: int, timeout: timedelta | float | None, on_error: ErrorPolicy | None
) -> None:
    """Refuse what makes no sense in the arguments that all of them have."""
    positive(concurrency, f"{what}'s concurrency")
    if timeout is not None:
        seconds(timeout, f"{what}'s timeout")
    _check.policy(on_error, what)


def work(
    kind: type[_AsyncStage],
    f: Callable[[Any], Any],
    what: str,
    concurrency: int,
    ordered: bool,
    timeout: timedelta | float | None,
) -> Work:
    """A step that calls ``f`` for each element, on up to ``concurrency`` elements at once."""
    limit = None if timeout is None else seconds(timeout, f"{what}'s timeout")

    def open(context: WorkContext) -> WorkStage:
        return kind(context, f, limit, concurrency=concurrency, ordered=ordered)

    return Work(open, in_flight=4 * concurrency + 64)


class _AsyncStage(WorkStage):
    def __init__(
        self,
        context: WorkContext,
        f: Callable[[Any], Any],
        timeout: float | None,
        *,
        concurrency: int,
        ordered: bool,
    ) -> None:
        super().__init__(context, concurrency=concurrency, ordered=ordered)
        self._f = f
        self._timeout = timeout

    def failed(self, error: BaseException, value: Any) -> None:
        """Return if the policy drops the element."""
        task = _current_task()
        if task is None:
            raise error  # the loop has ended, and the coroutine is only being closed
        if task.cancelling():
            raise asyncio.CancelledError from error  # we asked for it, whatever the user's code made of it
        self.context.guard.decide(error, self.context.step, value)


class CallStage(_AsyncStage):
    """Each element becomes what the coroutine ``f(x)`` returns."""

    _f: Callable[[Any], Awaitable[Any]]

    def __init__(self, context: WorkContext, *arguments: Any, **options: Any) -> None:
        super().__init__(context, *arguments, **options)
        if self._timeout is None and context.checkpointed:
            # A barrier waits for it: one call that never returns would be the end of checkpoints.
            self._timeout = _LONGEST_SECONDS

    async def perform(self, part: Part) -> None:
        (value,) = part.values
        try:
            if self._timeout is None:
                result = await self._f(value)
            else:
                async with asyncio.timeout(self._timeout):
                    result = await self._f(value)
        except BaseException as error:
            if isinstance(error, TypeError) and "await" in str(error):
                error.add_note(
                    "this operator needs a coroutine function; for a plain function use Map or Filter"
                )
            self.failed(error, value)
            result = DROPPED
        part.finish([result])


class IterateStage(_AsyncStage):
    """Each element becomes what the async iterable ``f(x)`` gives, as it gives it."""

    async def perform(self, part: Part) -> None:
        (value,) = part.values
        outputs = part.open()
        try:
            await self._iterate(value, outputs)
        except BaseException as error:
            self.failed(error, value)
        outputs.end()

    async def _iterate(self, value: Any, outputs: Outputs) -> None:
        iterable = self._f(value)
        if not isinstance(iterable, AsyncIterable):
            if isinstance(iterable, Coroutine):
                iterable.close()
            raise TypeError(
                f"an async iterable is needed, such as an async generator function returns, not {shorten(iterable)}"
            )
        iterator = aiter(iterable)
        try:
            if self._timeout is None:
                async for output in iterator:
                    await outputs.put(output)
            else:
                await self._iterate_in_time(iterator, outputs, self._timeout)
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    async def _iterate_in_time(self, iterator: AsyncIterator[Any], outputs: Outputs, timeout: float) -> None:
        """The time that an output waits for its turn is not the iterable's."""
        while True:
            async with asyncio.timeout(timeout):
                output = await anext(iterator, _END)
            if output is _END:
                return
            await outputs.put(output)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None
