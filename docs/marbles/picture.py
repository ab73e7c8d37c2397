"""Draws a marble diagram as SVG, with nothing but the standard library.

The colours are readable on a light and on a dark page: lines are of a middle grey, and all text stands on a light
ground of its own. A marble grows to the right with its label, which keeps marbles apart as their labels are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from attrs import frozen

from docs.marbles.notation import Diagram, Timeline

TEXT = "#1f2430"
LINES = "#808898"
FAILURE = "#d8504d"
BOX = ("#e8effc", "#4a78c9")  # ground and edge, as a step's in the picture of a pipeline
GROUND = "#eceff4"  # of names and notes
MARBLES = (
    ("#a9cdf7", "#3f77bd"),
    ("#ffd09b", "#c27a1a"),
    ("#b3e3b5", "#3f9b5d"),
    ("#f9b9c4", "#c4526a"),
    ("#d4c3f5", "#7d5bbf"),
    ("#f7e58c", "#a68a12"),
    ("#a5e3dd", "#2b8f88"),
    ("#dccbb9", "#8f7355"),
)

_COLUMN = 15.0
_RADIUS = 13.0
_ROW = 40.0
_MARGIN = 8.0
_BOX = 34.0
_GAP = 6.0  # above and below the box
_HEAD = 10.0  # length of an arrow's head
_END_GAP = 12.0  # from a marble to the end of its timeline
_SANS = 7.4  # width of a character, generously, of text 12 pixels high
_MONO = 8.0  # of the operator


@frozen
class _Canvas:
    """What the rows of a picture share."""

    left: float  # the column at the left end
    edge: float  # the right end of the box and of timelines that go on
    colours: dict[str, tuple[str, str]]

    def x(self, column: int) -> float:
        return _x(column - self.left)


def to_svg(diagram: Diagram) -> str:
    """The diagram as an SVG document."""
    timelines = (*diagram.inputs, *diagram.outputs)
    left = min(
        line.start - (_caption_width(line.name) + _GAP) / _COLUMN * bool(line.name) for line in timelines
    )
    label = max(len(diagram.operator) * _MONO, len(diagram.note) * _SANS) + 24
    edge = max(_MARGIN + label, *(_end(line, left) for line in timelines))
    canvas = _Canvas(left, edge, _colours(timelines))
    width = edge + max(map(_note_width, timelines)) + _MARGIN
    box = _BOX + (14 if diagram.note else 0)
    height = 2 * _MARGIN + len(timelines) * _ROW + box + 2 * _GAP

    body: list[str] = []
    y = _MARGIN
    for line in diagram.inputs:
        body += _draw(line, canvas, y + _ROW / 2)
        y += _ROW
    body += _operator(diagram, canvas.edge, y + _GAP, box)
    y += box + 2 * _GAP
    for line in diagram.outputs:
        body += _draw(line, canvas, y + _ROW / 2)
        y += _ROW
    return "\n".join([*_head(diagram, width, height), *body, "</svg>", ""])


def describe(diagram: Diagram) -> str:
    """The diagram in words, for those who do not see it."""
    return f"In: {_words(diagram.inputs)}. Out: {_words(diagram.outputs)}."


def _words(timelines: Iterable[Timeline]) -> str:
    told = []
    for line in timelines:
        signs = [(marble.column, marble.label) for marble in line.marbles]
        signs += [(column, "boundary") for column in line.boundaries]
        sequence = ", ".join([*(sign for _, sign in sorted(signs)), line.ending])
        told.append(f"{line.name.rstrip(':')}: {sequence}" if line.name else sequence)
    return "; ".join(told) or "nothing"


# Layout


def _x(column: float) -> float:
    return _MARGIN + _RADIUS + column * _COLUMN


def _width(label: str) -> float:
    return max(2 * _RADIUS, len(label) * _SANS + 10)


def _end(line: Timeline, left: float) -> float:
    last = max((_x(m.column - left) - _RADIUS + _width(m.label) for m in line.marbles), default=0.0)
    return max(_x(line.end - left), last + _END_GAP)


def _note_width(line: Timeline) -> float:
    return _END_GAP + _caption_width(line.note) if line.note else 0.0


def _caption_width(text: str) -> float:
    return len(text) * _SANS + 10


def _colours(timelines: Iterable[Timeline]) -> dict[str, tuple[str, str]]:
    """A colour for each label, in the order in which they appear: different ones for as long as there are some."""
    labels = dict.fromkeys(marble.label for line in timelines for marble in line.marbles)
    return {label: MARBLES[number % len(MARBLES)] for number, label in enumerate(labels)}


# Drawing


def _head(diagram: Diagram, width: float, height: float) -> Iterator[str]:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    text = f'font-family="system-ui, sans-serif" font-size="12" text-anchor="middle" fill="{TEXT}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} {text} role="img" aria-labelledby="title description">'
    yield f'<title id="title">{escape(diagram.operator)}</title>'
    yield f'<desc id="description">{escape(describe(diagram))}</desc>'


def _draw(line: Timeline, canvas: _Canvas, y: float) -> Iterator[str]:
    start = canvas.x(line.start) - _RADIUS
    end = canvas.edge if line.ending == "goes on" else _end(line, canvas.left)
    if line.name:
        yield from _caption(line.name, start - _GAP - _caption_width(line.name), y)
    shaft = end - _HEAD if line.ending == "goes on" else end
    yield f'<path d="M{start:g} {y:g}H{shaft:g}" stroke="{LINES}" stroke-width="2"/>'
    for column in line.boundaries:
        dashes = f'stroke="{LINES}" stroke-width="2" stroke-dasharray="4 3"'
        yield f'<path d="M{canvas.x(column):g} {y - 18:g}v36" {dashes}/>'
    yield _ending(line, end, y)
    for marble in line.marbles:
        yield from _marble(marble.label, canvas.colours[marble.label], canvas.x(marble.column) - _RADIUS, y)
    if line.note:
        yield from _caption(line.note, end + _END_GAP, y)


def _ending(line: Timeline, x: float, y: float) -> str:
    match line.ending:
        case "goes on":
            return f'<path d="M{x:g} {y:g}l-{_HEAD:g} -6v12z" fill="{LINES}"/>'
        case "completes":
            return f'<path d="M{x:g} {y - 12:g}v24" stroke="{LINES}" stroke-width="3.5"/>'
        case "fails":
            return (
                f'<path d="M{x - 8:g} {y - 8:g}l16 16m0 -16l-16 16" stroke="{FAILURE}" stroke-width="3.5"/>'
            )


def _marble(label: str, colours: tuple[str, str], left: float, y: float) -> Iterator[str]:
    fill, edge = colours
    width = _width(label)
    place = f'x="{left:g}" y="{y - _RADIUS:g}" width="{width:g}" height="{2 * _RADIUS:g}" rx="{_RADIUS:g}"'
    yield f'<rect {place} fill="{fill}" stroke="{edge}" stroke-width="1.5"/>'
    yield f'<text x="{left + width / 2:g}" y="{y + 4.3:g}">{escape(label)}</text>'


def _caption(text: str, left: float, y: float) -> Iterator[str]:
    width = _caption_width(text)
    yield f'<rect x="{left:g}" y="{y - 10:g}" width="{width:g}" height="20" rx="4" fill="{GROUND}"/>'
    yield f'<text x="{left + width / 2:g}" y="{y + 4.3:g}" font-style="italic">{escape(text)}</text>'


def _operator(diagram: Diagram, right: float, top: float, height: float) -> Iterator[str]:
    fill, line = BOX
    middle = (_MARGIN + right) / 2
    place = f'x="{_MARGIN:g}" y="{top:g}" width="{right - _MARGIN:g}" height="{height:g}" rx="7"'
    yield f'<rect {place} fill="{fill}" stroke="{line}" stroke-width="1.5"/>'
    mono = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="13"'
    yield f'<text x="{middle:g}" y="{top + 21.5:g}" {mono}>{escape(diagram.operator)}</text>'
    if diagram.note:
        yield f'<text x="{middle:g}" y="{top + 38:g}" font-style="italic">{escape(diagram.note)}</text>'
