"""Writes ``operators.md``, with its pictures, and ``connectors.md`` from the docstrings.

Run by the documentation build; by hand: ``python -m docs.marbles.page docs``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from inspect import Parameter
from pathlib import Path
from typing import Any

from attrs import field, frozen

from docs.marbles.notation import LINE, DiagramError, parse_all
from docs.marbles.picture import describe, to_svg

# In the order of the page. A name that is not exported (yet) is passed over; one that is exported must be here.
GROUPS = {
    "Stateless": "Map Filter FlatMap Flatten Inspect PassThrough",
    "Stateful": "Fold Reduce StatefulMap Take Skip TakeWhile DropWhile Deduplicate Batch",
    "Windows": "TumblingWindow SlidingWindow SessionWindow CountWindow",
    "Aggregators": "Aggregator ToList Count Sum Min Max Mean TopK Aggregate Combine",
    "Keyed": "Keyed",
    "Flow control": "Throttle Debounce Sample Buffer Timeout Delay",
    "Branching and joining": (
        "split route fan_out round_robin partition merge concat zip_with zip_latest join Lookup"
    ),
    "Async and CPU": "MapAsync FilterAsync FlatMapAsync",
    "Interop": "FromAiostream",
}
WITHOUT_PICTURE = "Aggregators"

CONNECTORS = {
    "In memory": "Source QueueSource Collect Into ForEach Discard QueueSink",
    "JetStream": "JetStreamSource JetStreamSink KeyValueTable KeyValueSink StreamSettings PublishError",
    "Files": "TextFileSource TextFileSink JsonLinesSource JsonLinesSink CsvSource CsvSink",
    "Standard input and output": "StdinSource StdoutSink",
    "Codecs": "Codec Bytes Text Json MessagePack Protobuf",
    "Time and failures": "EventTime ProcessingTime Checkpoint Fail Skip",
    "Values": "Window KeyedValue Message",
}

INTRODUCTION = """\
<!-- Written by docs/marbles/page.py from the docstrings: change those. -->

# Operators

All are in `streamflow.operators`. In the pictures time goes to the right, and a marble is an element: above the box
what comes in, below it what goes out. A line ends in an arrow if it goes on, in a bar if the stream completes, in a
cross if it fails; dashed lines are the bounds of windows."""

ABOUT_CONNECTORS = """\
<!-- Written by docs/marbles/page.py from the docstrings: change those. -->

# Connectors, codecs, values

Sources and sinks are in `streamflow.connectors`, those of JetStream in `streamflow.connectors.jetstream`, codecs in
`streamflow.codecs`, `Source` and everything from *Time and failures* on in `streamflow`."""

LITERAL = "::"  # the end of a paragraph that a literal block follows
INDENT = " " * 4
PROMPT = ">>> "

# An example, an indented block with the blank lines in it, or a paragraph.
_BLOCK = re.compile(
    rf"(?:^{PROMPT}.*\n)(?:^.+\n)*|(?:^{INDENT}.*\n+)+|(?:^(?!{PROMPT}).+\n)+",
    re.MULTILINE,
)


class PageError(Exception):
    """The page cannot be written; the message says which operator is the reason."""


@frozen
class Page:
    text: str
    pictures: Mapping[str, str] = field(factory=dict)
    """SVG documents by their file names."""


def write(folder: Path) -> None:
    """Write the pages and the pictures, and remove pictures that are no more. What is the same stays untouched."""
    import streamflow
    from streamflow import codecs, connectors, operators
    from streamflow.connectors import jetstream

    page = build(_exported(operators))
    general = {
        name: getattr(streamflow, name) for name in f"{CONNECTORS['Time and failures']} Source".split()
    }
    values = {name: getattr(streamflow, name) for name in CONNECTORS["Values"].split()}
    described = _exported(connectors) | _exported(jetstream) | _exported(codecs) | general | values
    del described["check_codec"]
    others = build(described, CONNECTORS, ABOUT_CONNECTORS, pictured=False)
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for old in pictures.glob("*.svg"):
        if old.name not in page.pictures:
            old.unlink()
    files = {pictures / name: svg for name, svg in page.pictures.items()}
    pages = {folder / "operators.md": page.text, folder / "connectors.md": others.text}
    for path, text in {**pages, **files}.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _exported(module: Any) -> dict[str, Any]:
    return {name: getattr(module, name) for name in module.__all__}


def build(
    operators: Mapping[str, Any],
    groups: Mapping[str, str] = GROUPS,
    introduction: str = INTRODUCTION,
    *,
    pictured: bool = True,
) -> Page:
    """The page of these operators, or of what else there is to describe. Raises `PageError`."""
    grouped = {
        group: [name for name in names.split() if name in operators] for group, names in groups.items()
    }
    placed = [name for names in grouped.values() for name in names]
    for name in operators:
        if placed.count(name) != 1:
            raise PageError(
                f"{name} is in {placed.count(name) or 'no'} groups of docs/marbles/page.py, not in one"
            )
    parts = [introduction]
    pictures: dict[str, str] = {}
    for group, names in grouped.items():
        if names:
            parts.append(f"## {group}")
        for name in names:
            entry = _Entry(name, operators[name], frozenset(operators), pictured)
            parts.append(entry.text(needs_picture=pictured and group != WITHOUT_PICTURE))
            pictures |= entry.pictures
    return Page("\n\n".join(parts) + "\n", pictures)


@frozen
class _Entry:
    """One operator on the page."""

    name: str
    operator: Any
    known: frozenset[str]  # names to link to
    draws: bool  # whether blocks are diagrams
    pictures: dict[str, str] = field(factory=dict, init=False)

    def text(self, *, needs_picture: bool) -> str:
        summary, *blocks = self._blocks()
        if needs_picture and not self.pictures:
            raise PageError(
                f"{self.name} has no marble diagram: timelines, drawn with {LINE}, in a {LITERAL} block"
            )
        shown = 0
        while shown < len(blocks) and blocks[shown].startswith("!["):
            shown += 1
        use = f"```py\n{signature(self.name, self.operator)}\n```"
        return "\n\n".join(
            [f"### {self.name}", summary, *blocks[:shown], use, *blocks[shown:], *self._methods()]
        )

    def _blocks(self) -> Iterator[str]:
        """The docstring in Markdown, block by block, with pictures in the place of diagrams."""
        if not self.operator.__doc__:
            raise PageError(f"{self.name} has no docstring")
        doc = inspect.cleandoc(self.operator.__doc__)
        introduced = False
        for block in _BLOCK.findall(doc + "\n"):
            if block.startswith(PROMPT):
                yield f"```pycon\n{block.rstrip()}\n```"
            elif introduced and block.startswith(INDENT):
                yield from self._literal(block)
            elif block.strip() != LITERAL:
                yield self._prose(block.rstrip())
            introduced = block.rstrip().endswith(LITERAL)

    def _literal(self, block: str) -> Iterator[str]:
        try:
            diagrams = parse_all(block) if self.draws else []
        except DiagramError as error:
            raise PageError(f"{self.name}: {error}\n\n{block}") from error
        if not diagrams:
            yield f"```text\n{inspect.cleandoc(block)}\n```"
        for diagram in diagrams:
            if not re.search(rf"\b{self.name}\b", diagram.operator):
                raise PageError(f"{self.name} has a diagram of another operator: {diagram.operator!r}")
            number = len(self.pictures) + 1
            file = f"{self.name}.svg" if number == 1 else f"{self.name}-{number}.svg"
            self.pictures[file] = to_svg(diagram)
            yield f"![{_escaped(f'{diagram.operator}. {describe(diagram)}')}](pictures/{file})"

    def _prose(self, text: str) -> str:
        text = re.sub(r"::$", ":", text)
        text = re.sub(r"\n(?=(?:Emits|Raises|Source of the idea)\b)", "\n\n", text)
        text = re.sub(
            r"(?:^|(?<=\. ))(Emits|Completes|Holds|Remembers|Raises)\b", r"**\1**", text, flags=re.M
        )
        return re.sub(r"(?<!`)`(\w+)`(?!`)", self._link, text)

    def _link(self, match: re.Match[str]) -> str:
        name = match[1]
        elsewhere = name in self.known and name != self.name and not hasattr(self.operator, name)
        return f"[`{name}`](#{name.lower()})" if elsewhere else match[0]

    def _methods(self) -> Iterator[str]:
        """The documented methods of a class that is there to be derived from."""
        methods = vars(self.operator).items() if inspect.isclass(self.operator) else ()
        for name, method in methods:
            if inspect.isfunction(method) and not name.startswith("_") and method.__doc__:
                use = f"{name}({', '.join(_parameters(method)[1:])}) -> {_gives(method)}"
                yield f"* `{use}`: {self._prose(inspect.cleandoc(method.__doc__))}"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", text)


# Signatures


class _Source:
    """An annotation that shows as it was written; `inspect` would put it in quotes."""

    def __init__(self, annotation: object) -> None:
        self._text = "Any" if annotation is Parameter.empty else str(annotation)

    def __repr__(self) -> str:
        return self._text


def signature(name: str, operator: Any) -> str:
    """How it is called and what that gives, on one line if it is short."""
    parts = _parameters(operator)
    gives = f" -> {what}" if (what := _gives(operator)) else ""
    line = f"{name}({', '.join(parts)}){gives}"
    if len(line) <= 88:
        return line
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){gives}"])


def _parameters(called: Any) -> list[str]:
    parameters = inspect.signature(called).parameters.values()
    parts = [_plain(str(p.replace(annotation=_Source(p.annotation)))) for p in parameters]
    kinds = [p.kind for p in parameters]
    if Parameter.KEYWORD_ONLY in kinds and Parameter.VAR_POSITIONAL not in kinds:
        parts.insert(kinds.index(Parameter.KEYWORD_ONLY), "*")
    return parts


def _gives(called: Any) -> str:
    if not inspect.isclass(called):
        return str(inspect.signature(called).return_annotation)
    base = _plain(str(getattr(called, "__orig_bases__", [""])[0]))
    return "" if base.startswith("Generic") else base  # nothing that a user would know it as


def _plain(text: str) -> str:
    """Without modules, and without the signs of a type variable's variance."""
    text = re.sub(r"= NOTHING\b", "= ...", text)  # attrs makes the default anew each time
    return re.sub(r"\b(?:\w+\.)+(?=[A-Za-z])|[~+-](?=[A-Z])", "", text)


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1]))
    except PageError as error:
        sys.exit(str(error))
