"""Draws a pipeline's graph as SVG, with nothing but the standard library.

A layered drawing, left to right: each box goes one layer behind the last of those that feed it; an arrow that passes
layers gets an invisible stand-in in each, which keeps it clear of the boxes; boxes are ordered and then moved to the
mean of their neighbours, so that arrows are short and rarely cross. (Sugiyama's method, in its simplest form.)
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from statistics import fmean

from attrs import define, field

from streamflow.graph import Graph, StepInfo

_HEIGHT = 46.0
_ROW_GAP = 22.0
_LAYER_GAP = 56.0
_MARGIN = 24.0
_TITLE = 30.0
_CHARACTER = 7.6
_LEAST_WIDTH = 84.0
_SWEEPS = 12

_COLOURS = {  # of the kinds of boxes: fill and line
    "source": ("#e3f4e8", "#3f9b5d"),
    "flow": ("#e8effc", "#4a78c9"),
    "junction": ("#f0ebfa", "#8463bf"),
    "sink": ("#fdf0dc", "#c98a2b"),
}


@define(eq=False)
class _Node:
    """A box, or the stand-in of an arrow in a layer that it passes."""

    layer: int
    step: StepInfo | None = None
    before: list[_Node] = field(factory=list, repr=False)
    behind: list[_Node] = field(factory=list, repr=False)
    width: float = 0.0
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> float:
        return _HEIGHT if self.step is not None else 0.0

    @property
    def ports(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where arrows come in and go out."""
        return (self.x - self.width / 2, self.y), (self.x + self.width / 2, self.y)


def to_svg(graph: Graph) -> str:
    """The graph as an SVG document."""
    layers = _layers(graph)
    _order(layers)
    width, height = _place(layers)
    nodes = [node for layer in layers for node in layer]
    title = f'<text x="{_MARGIN}" y="{_MARGIN + 6}" class="title">{escape(graph.pipeline)}</text>'
    arrows = [
        line
        for node in nodes
        if node.step is not None
        for target in node.behind
        for line in _arrow(node, target)
    ]
    boxes = [line for node in nodes if node.step is not None for line in _box(node, node.step)]
    return "\n".join([*_head(width, height), title, *arrows, *boxes, "</svg>", ""])


# Layout


def _layers(graph: Graph) -> list[list[_Node]]:
    nodes: dict[str, _Node] = {}
    for step in graph.steps:  # in the order in which elements pass, so that inputs come first
        feeding = [nodes[name] for name in step.inputs]
        longest = max(len(step.name), len(_caption(step)) * 0.85)
        width = max(_LEAST_WIDTH, longest * _CHARACTER + 32)
        nodes[step.name] = _Node(1 + max((node.layer for node in feeding), default=-1), step, width=width)
    layers: list[list[_Node]] = [[] for _ in range(1 + max(node.layer for node in nodes.values()))]
    for node in nodes.values():
        layers[node.layer].append(node)
    for step in graph.steps:
        target = nodes[step.name]
        for name in step.inputs:
            last = nodes[name]
            for layer in range(last.layer + 1, target.layer):
                last = _joined(last, _Node(layer))
                layers[layer].append(last)
            _joined(last, target)
    return layers


def _joined(source: _Node, target: _Node) -> _Node:
    source.behind.append(target)
    target.before.append(source)
    return target


def _order(layers: list[list[_Node]]) -> None:
    """Order each layer by the mean place of its neighbours, forwards and backwards in turn."""
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            places = {id(node): place for other in layers for place, node in enumerate(other)}

            def mean(node: _Node, places: dict[int, int] = places, forwards: bool = sweep % 2 == 0) -> float:
                neighbours = node.before if forwards else node.behind
                return fmean(places[id(n)] for n in neighbours) if neighbours else places[id(node)]

            layer.sort(key=mean)


def _place(layers: list[list[_Node]]) -> tuple[float, float]:
    """Give every node its coordinates; returns the size of the drawing."""
    left = _MARGIN
    for layer in layers:
        width = max(node.width for node in layer)
        for node in layer:
            node.x = left + width / 2
            node.width = node.width or width  # an arrow passes the boxes of a layer straight
        left += width + _LAYER_GAP
        _spread(layer, [0.0] * len(layer))
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            _spread(layer, [fmean(n.y for n in (node.before + node.behind) or [node]) for node in layer])
    nodes = [node for layer in layers for node in layer]
    top = min(node.y - node.height / 2 for node in nodes)
    for node in nodes:
        node.y += _MARGIN + _TITLE - top
    return left - _LAYER_GAP + _MARGIN, max(node.y + node.height / 2 for node in nodes) + _MARGIN


def _spread(layer: list[_Node], wanted: list[float]) -> None:
    """Put the nodes of a layer as near to where they are wanted as their order and the gaps between them allow."""
    bottom = float("-inf")
    for node, y in zip(layer, wanted, strict=True):
        node.y = max(y, bottom + node.height / 2)
        bottom = node.y + node.height / 2 + _ROW_GAP
    shift = fmean(y - node.y for node, y in zip(layer, wanted, strict=True))
    for node in layer:
        node.y += shift


# Drawing


def _head(width: float, height: float) -> Iterable[str]:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif">'
    yield "<style>"
    yield "  text { fill: #1f2430; font-size: 13px; text-anchor: middle; }"
    yield "  .title { fill: #808898; font-size: 15px; font-weight: 600; text-anchor: start; }"
    yield "  .type { fill: #626a7a; font-size: 11px; }"
    yield "  .arrow { fill: none; stroke: #808898; stroke-width: 1.5; }"
    yield "</style>"
    yield '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    yield '<path d="M0 0.5 L8 4 L0 7.5 z" fill="#808898"/></marker></defs>'


def _arrow(source: _Node, target: _Node) -> Iterable[str]:
    """One curve through all the stand-ins, up to the box at the end."""
    x, y = source.ports[1]
    path = [f"M{x:.1f} {y:.1f}"]
    while True:
        to_x, to_y = target.ports[0]
        middle = (x + to_x) / 2
        path.append(f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
        if target.step is not None:
            yield f'<path class="arrow" d="{" ".join(path)}" marker-end="url(#head)"/>'
            return
        x, y = target.ports[1]
        path.append(f"H{x:.1f}")
        target = target.behind[0]


def _box(node: _Node, step: StepInfo) -> Iterable[str]:
    fill, line = _COLOURS[step.kind]
    radius = {"source": _HEIGHT / 2, "sink": 2.0}.get(step.kind, 8.0)
    x, y = node.x - node.width / 2, node.y - _HEIGHT / 2
    place = f'x="{x:.1f}" y="{y:.1f}" width="{node.width:.1f}" height="{_HEIGHT:.0f}" rx="{radius:.0f}"'
    yield f'<rect {place} fill="{fill}" stroke="{line}" stroke-width="1.5"/>'
    caption = _caption(step)
    yield f'<text x="{node.x:.1f}" y="{node.y + (-2 if caption else 5):.1f}">{escape(step.name)}</text>'
    if caption:
        yield f'<text x="{node.x:.1f}" y="{node.y + 14:.1f}" class="type">{escape(caption)}</text>'


def _caption(step: StepInfo) -> str:
    """The class of a step that has a name of its own."""
    return "" if step.kind == "junction" or step.name.partition("-")[0] == step.type else step.type
