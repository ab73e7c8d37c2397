"""The pictures of marble diagrams: everything in its place, nothing on top of another, readable on any page."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

from hypothesis import given

from docs.marbles import picture
from docs.marbles.notation import Diagram, parse
from docs.marbles.picture import to_svg
from tests.docs.test_notation import diagrams

SVG = "{http://www.w3.org/2000/svg}"
WHITE, SLATE = "#ffffff", "#1e2129"  # the grounds of mkdocs-material's themes


def boxes(root: ElementTree.Element) -> list[tuple[str, float, float, float, str]]:
    """Label, left and right end, height and colour of everything with text on it, in the order of the picture."""
    found: list[Any] = []
    for shape, text in pairwise(root):
        if shape.tag == f"{SVG}rect" and text.tag == f"{SVG}text":
            left, width, top = (float(shape.attrib[name]) for name in ("x", "width", "y"))
            found.append((text.text, left, left + width, top, shape.attrib["fill"]))
    return found


@given(diagrams())
def test_the_picture_shows_the_marbles_in_their_order_and_apart(written: tuple[str, Diagram]) -> None:
    _, diagram = written
    svg = to_svg(diagram)
    assert svg == to_svg(diagram)
    root = ElementTree.fromstring(svg)
    shown = [box for box in boxes(root) if box[4] not in {picture.GROUND, picture.BOX[0]}]
    lines = (*diagram.inputs, *diagram.outputs)
    assert [box[0] for box in shown] == [marble.label for line in lines for marble in line.marbles]
    columns: dict[float, set[int]] = {}
    for line in lines:
        row, shown = shown[: len(line.marbles)], shown[len(line.marbles) :]
        assert len({top for _, _, _, top, _ in row}) <= 1
        assert all(left[2] < right[1] for left, right in pairwise(row))
        for marble, (_, left, right, *_) in zip(line.marbles, row, strict=True):
            columns.setdefault(left, set()).add(marble.column)
            assert left >= 0 and right < float(root.attrib["width"])
    places = sorted(columns)
    assert [columns[place] for place in places] == [{c} for c in sorted(set().union(*columns.values()))]


@given(diagrams())
def test_rows_and_texts_are_inside_the_picture(written: tuple[str, Diagram]) -> None:
    root = ElementTree.fromstring(to_svg(written[1]))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    tops = []
    for _, left, right, top, _ in boxes(root):
        assert 0 <= left < right <= width and 0 <= top < height - 20
        tops.append(top)
    assert root.attrib["viewBox"] == f"0 0 {width:.0f} {height:.0f}"


def test_equal_labels_have_one_colour_and_different_ones_differ() -> None:
    root = ElementTree.fromstring(to_svg(parse("─1─2─3─▶\nFilter(odd)\n─1───3─▶")))
    colours: dict[str, set[str]] = {}
    for label, *_, colour in boxes(root):
        colours.setdefault(label, set()).add(colour)
    assert all(len(found) == 1 for found in colours.values())
    assert len(set().union(*colours.values())) == len(colours) == 4


def test_the_operator_is_between_what_comes_in_and_what_goes_out() -> None:
    root = ElementTree.fromstring(to_svg(parse("─a─▶\n─b─▶\nmerge()\n─c─▶")))
    tops = {label: top for label, _, _, top, _ in boxes(root)}
    assert sorted(tops, key=lambda label: tops[label]) == ["a", "b", "merge()", "c"]


def test_a_picture_can_be_read_aloud() -> None:
    svg = to_svg(parse("left ─1─|─<2>─▶\nright ─|\nzip(<)\n─(1, 2)─X"))
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert [root.findtext(f"{SVG}{tag}") for tag in ("title", "desc")] == [
        "zip(<)",
        "In: left: 1, boundary, <2>, goes on; right: completes. Out: (1, 2), fails.",
    ]


def test_endings_differ() -> None:
    drawn = {to_svg(parse(f"─1─{sign}\nMap(f)")).partition("</desc>")[2] for sign in "▶|╳"}
    assert len(drawn) == 3
    assert [picture.FAILURE in svg for svg in sorted(drawn, key=lambda svg: picture.FAILURE in svg)] == [
        False,
        False,
        True,
    ]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_and_lines_are_readable_on_light_and_dark_pages() -> None:
    """As WCAG 2 asks: 4.5 for text, 3 for what is drawn."""
    for ground in (picture.GROUND, picture.BOX[0], *(fill for fill, _ in picture.MARBLES)):
        assert contrast(picture.TEXT, ground) > 7
    for page in (WHITE, SLATE):
        for line in (picture.LINES, picture.FAILURE, picture.BOX[1], *(edge for _, edge in picture.MARBLES)):
            assert contrast(line, page) > 3, (line, page)
