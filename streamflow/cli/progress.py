"""The demo's display: a live table on a terminal, a line per second anywhere else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from time import perf_counter

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamflow.engine.observer import StatsObserver
from streamflow.message import KeyedValue, Window

Result = KeyedValue[str, Window[float]]

_REDRAW_SECONDS = 0.2
_LINE_SECONDS = 1.0
_LATEST = 6
_BAR_MINUTES = 2.5
_LONGEST_BAR = 24


class Progress:
    """Observes the replay and the pipeline, and shows how far they are."""

    def __init__(self, console: Console, total: int) -> None:
        self.replay = StatsObserver()
        self.stages = StatsObserver()
        self._console = console
        self._total = total
        self._count = 0
        self._latest: deque[Result] = deque(maxlen=_LATEST)
        self._speed = _Speed()
        self._since = perf_counter()

    def closed(self, result: Result) -> None:
        """A window has closed."""
        self._count += 1
        self._latest.append(result)

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the progress while the block runs, and the last state at its end."""
        self._since = perf_counter()
        self._speed.measure(self.stages)
        if self._console.is_terminal:
            with Live(self._picture(), console=self._console, auto_refresh=False) as live:
                async with _repeated(_REDRAW_SECONDS, lambda: live.update(self._picture(), refresh=True)):
                    yield
        else:
            async with _repeated(_LINE_SECONDS, lambda: self._console.print(self._line(), soft_wrap=True)):
                yield

    # What is shown

    def _line(self) -> str:
        speeds = self._speed.measure(self.stages)
        source, speed = next(iter(speeds.items()), ("", (0.0, 0.0)))
        read = self.stages.steps[source].emitted if source else 0
        latest = f"  latest {_window(self._latest[-1])}" if self._latest else ""
        return (
            f"{perf_counter() - self._since:5.1f} s  replayed {self._replayed:,}  read {read:,} ({speed[1]:,.0f}/s)"
            f"  lag {self._lag:,}  watermark {self._watermark}  windows {self._count}{latest}"
        )

    def _picture(self) -> RenderableType:
        head = Text.from_markup(
            f"[bold]{self._replayed:,}[/] of {self._total:,} flights replayed, "
            f"[bold]{self._count:,}[/] windows closed\n"
            f"lag [bold]{self._lag:,}[/], watermark [bold]{self._watermark}[/]"
        )
        return Group(head, "", self._stage_table(), "", self._window_table())

    def _stage_table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("stage", no_wrap=True)
        for column in ("in", "in/s", "out", "out/s"):
            table.add_column(column, justify="right", min_width=7)
        for name, (entering, leaving) in self._speed.measure(self.stages).items():
            step = self.stages.steps[name]
            table.add_row(
                name, f"{step.received:,}", f"{entering:,.0f}", f"{step.emitted:,}", f"{leaving:,.0f}"
            )
        return table

    def _window_table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("latest windows", no_wrap=True)
        table.add_column("mean delay", justify="right")
        table.add_column("", no_wrap=True)
        for result in [*self._latest, *[None] * (_LATEST - len(self._latest))]:
            if result is None:
                table.add_row("", "", "")  # the display keeps its height
            else:
                minutes = result.value.value
                bar = "█" * min(_LONGEST_BAR, round(max(0.0, minutes) / _BAR_MINUTES))
                table.add_row(
                    f"{result.key}  {span(result.value)}", f"{minutes:+.1f} min", Text(bar, "yellow")
                )
        return table

    @property
    def _replayed(self) -> int:
        return max((step.received for step in list(self.replay.steps.values())[-1:]), default=0)

    @property
    def _lag(self) -> int:
        return next((step.lag for step in self.stages.steps.values() if step.lag is not None), 0)

    @property
    def _watermark(self) -> str:
        marks = [step.watermark for step in self.stages.steps.values() if step.watermark is not None]
        return f"{datetime.fromtimestamp(marks[0], UTC):%Y-%m-%d %H:%M} UTC" if marks else "-"


class _Speed:
    """Elements per second in and out of each stage, over about the last second."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, tuple[int, int]]]] = deque()

    def measure(self, stages: StatsObserver) -> dict[str, tuple[float, float]]:
        now = perf_counter()
        counts = {name: (step.received, step.emitted) for name, step in stages.steps.items()}
        self._samples.append((now, counts))
        while len(self._samples) > 2 and self._samples[1][0] <= now - 1:
            self._samples.popleft()
        then, before = self._samples[0]
        spent = max(now - then, 1e-9)
        return {
            name: ((entered - before[name][0]) / spent, (left - before[name][1]) / spent)
            for name, (entered, left) in counts.items()
            if name in before
        }


def span(window: Window[float]) -> str:
    """The window's bounds for people."""
    return f"{window.start_at:%b %d %H:%M}–{window.end_at:%H:%M} UTC"


def _window(result: Result) -> str:
    return f"{result.key} {span(result.value)} {result.value.value:+.1f} min"


@asynccontextmanager
async def _repeated(seconds: float, draw: Callable[[], object]) -> AsyncIterator[None]:
    """Call ``draw`` every so often while the block runs, and at its end."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            draw()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        draw()
