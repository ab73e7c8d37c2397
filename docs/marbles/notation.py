"""Marble diagrams, as the docstrings of operators draw them in a ``::`` block::

    ──1──2──|──3──|──▶            timelines of what comes in
     TumblingWindow(1 s)          the operator; a note may follow behind two spaces
    ────────2─────1──▶            timelines of what goes out

Time goes to the right, and a column is the same moment in every line. A timeline is drawn with ``─`` and ends in ``▶``
(it goes on), ``|`` (it completes) or ``╳`` or ``X`` (it fails). A marble is a label, at the moment where its label
begins: letters, digits and signs, and spaces inside brackets or double quotes, as in ``1``, ``f1``, ``(a,1)``,
``[1, 2]``. ``─`` is between two labels: ``12`` is one marble. ``|`` before the end is a boundary, as of a window.
A word in front of a timeline or behind it is its name: ``left ──1──▶``. A blank line begins another diagram.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Literal

from attrs import frozen

Ending = Literal["goes on", "completes", "fails"]

LINE = "─"

_ENDINGS: dict[str, Ending] = {"▶": "goes on", "|": "completes", "╳": "fails", "X": "fails"}
_END = re.compile(r"[▶|╳X](?=\s|$)")
_NO_LABEL = f" {LINE}|▶╳"


class DiagramError(ValueError):
    """A diagram that does not say what to draw."""


@frozen
class Marble:
    column: int
    label: str


@frozen
class Timeline:
    start: int
    end: int
    ending: Ending
    marbles: tuple[Marble, ...] = ()
    boundaries: tuple[int, ...] = ()
    name: str = ""  # in front
    note: str = ""  # behind


@frozen
class Diagram:
    operator: str
    note: str
    inputs: tuple[Timeline, ...]
    outputs: tuple[Timeline, ...]


def parse_all(block: str) -> list[Diagram]:
    """The diagrams of a literal block, none if it has no timeline.

    Raises `DiagramError` for one that cannot be drawn.
    """
    if LINE not in block:
        return []
    return [parse(part) for part in re.split(r"\n\s*\n", dedent(block).strip("\n"))]


def parse(text: str) -> Diagram:
    """One diagram from its lines. Raises `DiagramError`."""
    lines = [line.rstrip() for line in dedent(text).splitlines() if line.strip()]
    others = [number for number, line in enumerate(lines) if LINE not in line]
    if len(others) != 1:
        found = ", ".join(repr(lines[number].strip()) for number in others) or "none"
        raise DiagramError(
            f"one line of a diagram names the operator and the others are timelines, drawn with {LINE}; found: {found}"
        )
    if len(lines) == 1:
        raise DiagramError(f"a diagram without a timeline: {lines[0].strip()!r}")
    (place,) = others
    operator, *note = re.split(r"\s{2,}", lines[place].strip(), maxsplit=1)
    return Diagram(
        operator,
        "".join(note),
        tuple(map(_timeline, lines[:place])),
        tuple(map(_timeline, lines[place + 1 :])),
    )


def _timeline(line: str) -> Timeline:
    head = line[: line.index(LINE)]
    start = len(head) if head.endswith(" ") else len(head) - len(head.lstrip())
    marbles: list[Marble] = []
    boundaries: list[int] = []
    column = start
    while column < len(line):
        if _END.match(line, column):
            ending, note = _ENDINGS[line[column]], line[column + 1 :].strip()
            name = head[:start].strip()
            return Timeline(start, column, ending, tuple(marbles), tuple(boundaries), name, note)
        if line[column] == LINE:
            column += 1
        elif line[column] == "|":
            boundaries.append(column)
            column += 1
        else:
            marbles.append(Marble(column, _label(line, column)))
            column += len(marbles[-1].label)
    raise DiagramError(f"a timeline ends in ▶, | or ╳: {line.strip()!r}")


def _label(line: str, start: int) -> str:
    open_brackets, quoted = 0, False
    end = start
    for end in range(start, len(line) + 1):
        character = line[end : end + 1] or LINE
        if character == '"':
            quoted = not quoted
        elif character == LINE or (character in _NO_LABEL and not quoted and not open_brackets):
            break
        elif not quoted:
            open_brackets += (character in "([{") - (character in ")]}")
    label = line[start:end]
    if not label:
        raise DiagramError(f"{line[end]!r} in the middle of the timeline {line.strip()!r}")
    if open_brackets or quoted:
        raise DiagramError(f"a bracket or quote without its partner in {label!r} of {line.strip()!r}")
    return label
