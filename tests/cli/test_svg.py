"""The drawing of a graph: every box and arrow is there, nothing overlaps, everything is on the sheet."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Pipeline, Source
from streamflow.cli.svg import to_svg
from streamflow.connectors import Collect, Discard
from streamflow.graph import Graph, StepInfo
from streamflow.operators import Map, merge, split

SVG = "{http://www.w3.org/2000/svg}"


@frozen
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        apart = (
            self.right <= other.left
            or other.right <= self.left
            or self.bottom <= other.top
            or other.bottom <= self.top
        )
        return not apart


def drawn(graph: Graph) -> tuple[ElementTree.Element, list[Box], list[str]]:
    root = ElementTree.fromstring(to_svg(graph))
    boxes = []
    for rect in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        boxes.append(Box(x, y, x + width, y + height))
    arrows = [path.attrib["d"] for path in root.iter(f"{SVG}path") if path.get("class") == "arrow"]
    return root, boxes, arrows


def ends(arrow: str) -> tuple[tuple[float, float], tuple[float, float]]:
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", arrow)]
    return (numbers[0], numbers[1]), (numbers[-2], numbers[-1])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Steps that are each fed by some before them."""
    steps: list[StepInfo] = []
    for number in range(draw(st.integers(1, 12))):
        name = f"step {number}" + "x" * draw(st.integers(0, 12))
        inputs = draw(st.lists(st.sampled_from(steps), max_size=3, unique=True)) if steps else []
        kind = draw(st.sampled_from(["flow", "junction", "sink"])) if inputs else "source"
        steps.append(StepInfo(name, "Map", kind, tuple(step.name for step in inputs)))
    return Graph("generated", tuple(steps))


@given(graphs())
def test_any_graph_is_drawn_whole(graph: Graph) -> None:
    root, boxes, arrows = drawn(graph)
    assert len(boxes) == len(graph.steps)
    assert len(arrows) == len(graph.edges)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert all(b.left >= 0 and b.top >= 0 and b.right <= width and b.bottom <= height for b in boxes)
    names = [text.text for text in root.iter(f"{SVG}text") if text.get("class") is None]
    by_name = dict(zip(names, boxes, strict=True))
    wanted = sorted(
        ((by_name[a].right, middle(by_name[a])), (by_name[b].left, middle(by_name[b])))
        for a, b in graph.edges
    )
    assert all(near(*pair) for pair in zip(sorted(map(ends, arrows)), wanted, strict=True))
    for arrow in arrows:
        for left, level, right in re.findall(
            r"([\d.]+) ([\d.]+) H([\d.]+)", arrow
        ):  # where it passes a layer
            passing = Box(float(left), float(level) - 1, float(right), float(level) + 1)
            assert not any(passing.overlaps(box) for box in boxes)


def middle(box: Box) -> float:
    return (box.top + box.bottom) / 2


def near(one: tuple[tuple[float, float], ...], other: tuple[tuple[float, float], ...]) -> bool:
    return all(abs(a - b) < 0.2 for p, q in zip(one, other, strict=True) for a, b in zip(p, q, strict=True))


def test_a_pipeline_with_branches() -> None:
    even, odd = split(Source(range(4), name="numbers"), lambda x: x % 2 == 0)
    text = even.via(Map(str), name="<as text>").via(Map(str))
    both = merge(text, odd.via(Map(str), name="odd"))
    graph = Pipeline(both.to(Collect()), odd.to(Discard()), name="a & b").describe()
    root, boxes, arrows = drawn(graph)
    assert (len(boxes), len(arrows)) == (8, 8)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts[0] == "a & b"
    assert "<as text>" in texts
    assert texts.count("Map") == 3  # the class of the two that have names, and the step itself
    assert "Distribute" not in texts
