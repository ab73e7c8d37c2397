"""Windows that are emitted more than once: at every change, or again when an element comes late."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Optional

from streamflow.engine.transform import Scope
from streamflow.message import Window
from streamflow.operators._grid import Grid
from streamflow.operators._panes import Panes
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
        self.state_type = tuple[Optional[options.into.state], int]  # type: ignore[name-defined]  # noqa: UP045

    def process(self, scope: Scope, rows: Iterator[tuple[Any, Any]]) -> Iterator[Out]:
        now, extract = scope.now, self._extract
        initial, add = self.into.initial, self.into.add
        if extract is None:
            top, bound, closed, lag, ahead = math.inf, 0.0, now, 0.0, 0.0
        else:
            view = scope.watermark.view(scope.origin, now)
            top, bound, closed, lag, ahead = view.top, view.bound, view.closed, view.lag, view.ahead
        try:
            yield from self._catch_up(scope, closed)
            for key, value in rows:
                time = now if extract is None else epoch(extract(value))
                pane = self.grid.locate(time)
                if self.end(self.last_of(pane)) + self.lateness <= closed:
                    scope.late(value)
                    continue
                space = self.open_pane(scope, pane, closed)
                scope.table.touch(key, pane)
                acc = add(space[key][0] if key in space else initial(), value)
                space[key] = (acc, 0)
                yield from self._revised(scope, key, pane, closed)
                if time > ahead and time > top:
                    scope.ahead += 1
                elif time > top:
                    top = time
                    closed = max(closed, min(bound, top - lag))
                    yield from self._catch_up(scope, closed)
        finally:
            if extract is not None:
                scope.watermark.saw(scope.origin, top)

    def _catch_up(self, scope: Scope, closed: float) -> Iterable[Out]:
        return self.close(scope, closed) if closed >= self._next_end else ()

    def _revised(self, scope: Scope, key: Any, pane: int, closed: float) -> Iterator[Out]:
        """The windows that have changed with a pane, as far as they are to be emitted now."""
        following: int | None = scope.table.meta.get("next")
        for window in range(self.first_of(pane), self.last_of(pane) + 1):
            is_closed = following is not None and window < following
            if is_closed and self.end(window) + self.lateness <= closed:
                continue
            if self._updates or is_closed:
                yield key, self._revision(scope, window, key, self._value(scope, window, key))

    def _value(self, scope: Scope, window: int, key: Any) -> Any:
        """The accumulator of one key in a window."""
        spaces: Any = scope.table.spaces
        accs = [
            spaces[pane][key][0]
            for pane in range(window * self.step, window * self.step + self.length)
            if pane in spaces and key in spaces[pane]
        ]
        merged = accs[0]
        for acc in accs[1:]:
            merged = self.into.merge(merged, acc)
        return merged

    def _revision(self, scope: Scope, window: int, key: Any, acc: Any) -> Window[Any]:
        """The next revision of a window."""
        emitted = scope.table.space((_EMITTED, window))
        revision = emitted[key][1] if key in emitted else 0
        scope.table.touch(key, (_EMITTED, window))
        emitted[key] = (None, revision + 1)
        return Window(self.start(window), self.end(window), self.into.result(acc), revision)

    # Closing

    def _taken(self, scope: Scope, window: int) -> Iterable[tuple[Any, Any]]:
        if self._updates:
            return ()
        first = window * self.step
        return list(self._panes.of(scope.table.spaces, first, first + self.length))

    def _emit(self, scope: Scope) -> Iterator[Out]:
        for key, acc in self._contents:
            yield key, self._revision(scope, self._closing, key, acc)

    def _panes_of(self, scope: Scope) -> list[Any]:
        return [pane for pane in scope.table.spaces if isinstance(pane, int)]

    def on_watermark(self, scope: Scope, time: float) -> Iterable[Out]:
        yield from self.close(scope, time)
        over = time - self.lateness
        for space in list(scope.table.spaces):
            last = space[1] if isinstance(space, tuple) else self.last_of(space)  # type: ignore[arg-type]
            if self.end(last) <= over:
                scope.table.drop(space)
