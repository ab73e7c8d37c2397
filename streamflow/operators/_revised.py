"""Windows that are emitted more than once: at every change, or again when an element comes late."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Optional

from streamflow.engine.transform import Scope
from streamflow.message import Window
from streamflow.operators._grid import Grid
from streamflow.operators._panes import Panes, between
from streamflow.operators._time import epoch
from streamflow.operators._windows import Out, PaneWindows, WindowOptions

_EMITTED = "emitted"


class RevisedWindows(PaneWindows):
    """Windows over panes with revisions.

    The state of a key in a pane is ``(accumulator, 0)``; in the namespace ``("emitted", window)`` it is
    ``(None, how often the window was emitted)``. Both stay until the lateness is over.
    """

    def __init__(
        self, grid: Grid, panes_per_window: int, panes_per_step: int, options: WindowOptions
    ) -> None:
        super().__init__(grid, panes_per_window, panes_per_step, options)
        self._updates = options.emit == "update"
        self._panes = Panes(options.into.merge, itemgetter(0))
        self._emitted: list[int] = []
        """The windows that have been emitted and may be again, in order. Derived from the table."""
        self.state_type = tuple[Optional[options.into.state], int]  # type: ignore[name-defined]  # noqa: UP045

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[Out]:
        extract, initial, add = self._extract, self.into.initial, self.into.add
        view = scope.view()
        try:
            yield from self._catch_up(scope, view.closed)
            for key, value in rows:
                time = scope.now if extract is None else epoch(extract(value))
                pane = self.grid.locate(time)
                if self.end(self.last_of(pane)) + self.lateness <= view.closed:
                    scope.late(value)
                    continue
                space = self.open_pane(scope, pane, view.closed)
                scope.table.touch(key, pane)
                acc = add(space[key][0] if key in space else initial(), value)
                space[key] = (acc, 0)
                yield from self._revised(scope, key, pane, view.closed)
                scope.ahead += not view.take(time)
                yield from self._catch_up(scope, view.closed)
        finally:
            scope.saw(view.top)

    def _catch_up(self, scope: Scope, closed: float) -> Iterable[Out]:
        return self.close(scope, closed) if closed >= self._next_end else ()

    def _revised(self, scope: Scope, key: Any, pane: int, closed: float) -> Iterator[Out]:
        """The windows that have changed with a pane, as far as they are to be emitted now."""
        following: int = scope.table.meta.get("next", self.first_of(pane))
        windows = range(self.first_of(pane), self.last_of(pane) + 1)
        changed = [
            window
            for window in windows
            if (self._updates or window < following)
            and (window >= following or self.end(window) + self.lateness > closed)
        ]
        for window, acc in zip(changed, self._contents_of(scope, key, pane, changed), strict=True):
            yield key, self._revision(scope, window, key, acc)

    def _contents_of(self, scope: Scope, key: Any, pane: int, windows: list[int]) -> list[Any]:
        """The accumulators of a key in windows that all have this pane. Each other pane is merged once: into what is
        before the pane, which the first window has most of, or behind it, which the last has most of."""
        merge = self.into.merge
        (acc,) = self._parts(scope, key, pane, pane + 1)
        befores: list[Any] = []
        reached = pane
        for window in reversed(windows):
            start = window * self.step
            for part in reversed(self._parts(scope, key, start, reached)):
                acc = merge(part, acc)
            reached = start
            befores.append(acc)
        contents: list[Any] = []
        behind: list[Any] = []  # nothing, or one accumulator
        reached = pane + 1
        for window in windows:
            end = window * self.step + self.length
            for part in self._parts(scope, key, reached, end):
                behind = [merge(behind[0], part)] if behind else [part]
            reached = end
            before = befores.pop()
            contents.append(merge(before, behind[0]) if behind else before)
        return contents

    def _parts(self, scope: Scope, key: Any, start: int, end: int) -> list[Any]:
        """The accumulators of a key in the panes from ``start`` to before ``end``."""
        spaces = scope.table.spaces
        return [spaces[pane][key][0] for pane in between(self._order, start, end) if key in spaces[pane]]

    def _revision(self, scope: Scope, window: int, key: Any, acc: Any) -> Window[Any]:
        """The next revision of a window."""
        if (_EMITTED, window) not in scope.table.spaces:
            insort(self._emitted, window)
        emitted = scope.table.space((_EMITTED, window))
        revision = emitted[key][1] if key in emitted else 0
        scope.table.touch(key, (_EMITTED, window))
        emitted[key] = (None, revision + 1)
        return Window(self.start(window), self.end(window), self.into.result(acc), revision)

    # Closing

    def _taken(self, scope: Scope, window: int) -> Iterable[tuple[Any, Any]]:
        return () if self._updates else self.contents(scope, window)

    def _emit(self, scope: Scope) -> Iterator[Out]:
        for key, acc in self._contents:
            yield key, self._revision(scope, self._closing, key, acc)

    def on_watermark(self, scope: Scope, time: float) -> Iterable[Out]:
        yield from self.close(scope, time)
        # Of no use is what only windows have that cannot change any more.
        first = self.first_of(self.grid.locate(time - self.lateness))
        self.drop_panes(scope, first * self.step)
        while self._emitted and self._emitted[0] < first:
            scope.table.drop((_EMITTED, self._emitted.pop(0)))

    def on_start(self, scope: Scope) -> None:
        super().on_start(scope)
        self._emitted = sorted(space[1] for space in scope.table.spaces if isinstance(space, tuple))
