"""The notation of marble diagrams: what is written is what is read, and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs.marbles.notation import Diagram, DiagramError, Marble, Timeline, parse, parse_all

LABELS = st.from_regex(
    r'[0-9a-z"]?[0-9a-z]{1,3}|\([a-z], ?[0-9]\)|\[([0-9], ){0,3}[0-9]\]', fullmatch=True
).filter(lambda label: label.count('"') % 2 == 0)
SIGNS = {"▶": "goes on", "|": "completes", "╳": "fails", "X": "fails"}


@st.composite
def timelines(draw: st.DrawFn) -> tuple[str, Timeline]:
    """A line and what it says."""
    name = draw(st.sampled_from(["", "left", "the right"]))
    line = name + " " * draw(st.integers(1, 4)) if name else " " * draw(st.integers(0, 3))
    start = len(line)
    line += "─"
    marbles, boundaries = [], []
    for item in draw(st.lists(LABELS | st.just("|"), max_size=6)):
        line += "─" * draw(st.integers(0 if item == "|" else 1, 4))
        if item == "|":
            boundaries.append(len(line))
        else:
            marbles.append(Marble(len(line), item))
        line += item
    line += "─" * draw(st.integers(1, 4))
    sign = draw(st.sampled_from(list(SIGNS)))
    note = draw(st.sampled_from(["", "late ones"]))
    end = len(line)
    line += sign + ("  " + note if note else "") + " " * draw(st.integers(0, 2))
    ending = SIGNS[sign]
    return line, Timeline(start, end, ending, tuple(marbles), tuple(boundaries), name, note)  # type: ignore[arg-type]


@st.composite
def diagrams(draw: st.DrawFn) -> tuple[str, Diagram]:
    above = draw(st.lists(timelines(), max_size=3))
    below = draw(st.lists(timelines(), min_size=0 if above else 1, max_size=3))
    note = draw(st.sampled_from(["", "prints 1, 2"]))
    operator = draw(st.sampled_from(["Map(f)", "merge()", "Keyed(letter, Fold(0, add))"]))
    lines = [line for line, _ in above] + [operator + ("    " + note if note else "")]
    lines += [line for line, _ in below]
    diagram = Diagram(operator, note, tuple(said for _, said in above), tuple(said for _, said in below))
    return "\n".join(lines), diagram


@given(diagrams(), st.integers(0, 8))
def test_a_diagram_is_read_as_it_is_written(written: tuple[str, Diagram], indent: int) -> None:
    text, diagram = written
    assert parse("\n".join(" " * indent + line for line in text.split("\n"))) == diagram


def test_a_label_without_a_gap_behind_it_ends_where_the_line_goes_on_or_ends() -> None:
    assert parse("─1|2▶\nF()\n1─2|").inputs == (
        Timeline(0, 4, "goes on", (Marble(1, "1"), Marble(3, "2")), (2,)),
    )
    assert parse("─▶\nF()\n1─2|").outputs == (Timeline(0, 3, "completes", (Marble(0, "1"), Marble(2, "2"))),)
    assert parse('─"a b"─X─X\nF()').inputs == (Timeline(0, 9, "fails", (Marble(1, '"a b"'), Marble(7, "X"))),)
    assert parse("─[(a,1), {b}]─▶\nF()").inputs[0].marbles == (Marble(1, "[(a,1), {b}]"),)


def test_a_blank_line_begins_another_diagram_and_code_is_none() -> None:
    block = "    ──1──▶\n    F()\n    ──1──▶\n\n    ──2──▶\n    G()\n    ──2──▶\n"
    assert [diagram.operator for diagram in parse_all(block)] == ["F()", "G()"]
    assert parse_all("    x = F()\n\n    y = 1\n") == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("──1──▶\n──1──▶", "names the operator.*found: none"),
        ("──1──▶\nMap(f)\nand more\n──1──▶", r"found: 'Map\(f\)', 'and more'"),
        ("--1--▶\nMap(f)\n──1──▶", "'--1--▶'"),
        ("Map(f)", "without a timeline"),
        ("──1──2──\nMap(f)\n──1──▶", "ends in ▶"),
        ("──1 ──▶\nMap(f)\n──1──▶", "' ' in the middle"),
        ("──1─▶──▶\nMap(f)\n──1──▶", "'▶' in the middle"),
        ("──1──▶──\nMap(f)\n──1──▶", "'▶' in the middle"),
        ("──1─╳─2──▶\nMap(f)\n──1──▶", "'╳' in the middle"),
        ("──[1, 2──▶\nMap(f)\n──1──▶", "without its partner"),
        ("──12]──▶\nMap(f)\n──1──▶", "without its partner"),
        ('──"a b──▶\nMap(f)\n──1──▶', "without its partner"),
        ("left 1──2──▶\nMap(f)\n──1──▶", "' ' in the middle"),
    ],
)
def test_what_cannot_be_drawn_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DiagramError, match=reason):
        parse(text)
