"""The contents of overlapping windows, computed from panes without adding each pane again for every window.

The panes of a window fall into two runs. Of the older run we keep, for each key, the accumulator of everything from a
pane to the end of the run; as panes leave the window, the next of these takes its place. The younger run has one
accumulator for each key, to which panes are added as they come. When the older run is used up, the younger becomes
it. So each entry of a pane is merged twice, however many windows it is in, and once more for each window that has
elements of its key in both runs. The idea is that of queues made of two stacks, and of van Herk's sliding maximum.

All of it derives from the panes, which the state table has: it is not saved, and computed anew when it is not there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

_ABSENT: Any = object()

Spaces = Mapping[Any, Mapping[Any, Any]]
"""Pane → key → state. Beside it ``order`` has its panes, in order."""


class Panes:
    """Windows over panes, each of which begins and ends no earlier than the one before."""

    def __init__(self, merge: Callable[[Any, Any], Any], acc: Callable[[Any], Any] | None = None) -> None:
        """``acc`` takes the accumulator out of a state; by default the state is one."""
        self._merge = merge
        self._acc = acc
        self._old: dict[Any, Any] = {}
        self._behind: dict[int, dict[Any, Any]] = {}
        """For each pane of the older run: what `_old` becomes, for its keys, when the pane has left."""
        self._young: dict[Any, Any] = {}
        self._middle = 0
        self._end: int | None = None

    def forget(self, pane: int) -> None:
        """A pane is about to change."""
        if self._end is not None and pane < self._end:
            self._end = None

    def of(self, spaces: Spaces, order: Sequence[int], start: int, end: int) -> Iterator[tuple[Any, Any]]:
        """The accumulators by key of the panes from ``start`` to before ``end``, older elements first in each."""
        self._move_to(spaces, order, start, end)
        young, merge = self._young, self._merge
        for key, acc in self._old.items():
            other = young.get(key, _ABSENT)
            yield key, acc if other is _ABSENT else merge(acc, other)
        for key, acc in young.items():
            if key not in self._old:
                yield key, acc

    def of_key(self, panes: Iterable[Mapping[Any, Any]], key: Any) -> tuple[Any, Any]:
        """The same for one key, from its panes alone."""
        take = self._acc
        accs = [pane[key] if take is None else take(pane[key]) for pane in panes if key in pane]
        return key, reduce(self._merge, accs)

    def _move_to(self, spaces: Spaces, order: Sequence[int], start: int, end: int) -> None:
        if self._end is None or start >= self._middle or end < self._end:
            self._begin(spaces, order, start, end)
            return
        # Should merging fail, begin anew with the next window.
        before, self._end = self._end, None
        for pane in sorted(pane for pane in self._behind if pane < start):
            for key, acc in self._behind.pop(pane).items():
                if acc is _ABSENT:
                    del self._old[key]
                else:
                    self._old[key] = acc
        for pane in between(order, before, end):
            self._add(self._young, spaces[pane], younger=True)
        self._end = end

    def _begin(self, spaces: Spaces, order: Sequence[int], start: int, end: int) -> None:
        """Make everything the older run."""
        self._end = None
        self._old, self._young, self._behind = {}, {}, {}
        for pane in reversed(between(order, start, end)):
            space = spaces[pane]
            self._behind[pane] = {key: self._old.get(key, _ABSENT) for key in space}
            self._add(self._old, space, younger=False)
        self._middle = self._end = end

    def _add(self, accs: dict[Any, Any], space: Mapping[Any, Any], *, younger: bool) -> None:
        merge, take = self._merge, self._acc
        for key, state in space.items():
            acc = state if take is None else take(state)
            other = accs.get(key, _ABSENT)
            if other is not _ABSENT:
                acc = merge(other, acc) if younger else merge(acc, other)
            accs[key] = acc


def between(order: Sequence[int], start: int, end: int) -> Sequence[int]:
    """The panes from ``start`` to before ``end``."""
    return order[bisect_left(order, start) : bisect_left(order, end)]
