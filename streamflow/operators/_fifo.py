"""A queue that can be saved as state."""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import Factory, define

T = TypeVar("T")


@define
class Fifo(Generic[T]):
    """First in, first out, each in constant time. Two lists, since a deque is nothing that a checkpoint can save."""

    front: list[T] = Factory(list)
    """What goes first, the next one last."""
    back: list[T] = Factory(list)

    def append(self, element: T) -> None:
        self.back.append(element)

    def popleft(self) -> T:
        self._turn()
        return self.front.pop()

    @property
    def first(self) -> T:
        self._turn()
        return self.front[-1]

    @property
    def last(self) -> T:
        return self.back[-1] if self.back else self.front[0]

    def __len__(self) -> int:
        return len(self.front) + len(self.back)

    def _turn(self) -> None:
        if not self.front:
            self.front, self.back = self.back[::-1], self.front
