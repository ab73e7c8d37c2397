"""Fusion: a run of stateless steps becomes one generated function over a chunk.

The function is a generator that pulls from one iterator, so when element *i* fails everything before it has been
kept, the iterator knows where it stopped, and nothing runs twice. Each step has a line of its own in the generated
source: the traceback tells which one failed.
"""

from __future__ import annotations

import linecache
import weakref
from collections.abc import Callable, Iterator
from itertools import count, islice
from operator import length_hint
from typing import Any

from streamflow.engine.chunk import CHUNK_SIZE, Chunk, Item
from streamflow.engine.guard import Guard
from streamflow.engine.step import Slicer, SyncStep
from streamflow.engine.transform import Fragment
from streamflow.errors import StepError

_serial = count(1)

_PART = 128
"""Outputs of a `FlatMap` that are taken between two looks at the clock."""


def compile_run(fragments: list[Fragment], *, marked: bool) -> tuple[Callable[..., Iterator[Any]], str]:
    """Generate the function of a run. With ``marked`` it takes (row, element) pairs and marks the row of each output.

    Only the last fragment may be a ``flat_map``: what follows one has inputs of its own.
    """
    # The functions are defaults of parameters: a local name is faster to look up than a global one.
    names = [f"f{number}" for number in range(len(fragments))]
    functions = "".join(f", {name}={name}" for name in names)
    head = f"def run(items, mark{functions}):" if marked else f"def run(items{functions}):"
    lines = [head, "    for row, x in items:" if marked else "    for x in items:"]
    indent = " " * 8
    for number, fragment in enumerate(fragments):
        call = f"f{number}(x)"
        match fragment.kind:
            case "map":
                lines.append(f"{indent}x = {call}")
            case "filter":
                lines.append(f"{indent}if not {call}: continue")
            case "inspect":
                lines.append(f"{indent}{call}")
            case "flat_map":
                lines.append(f"{indent}for x in {call}:")
                indent += " " * 4
            case "pass":
                lines.append(f"{indent}pass")
    if marked:
        lines.append(f"{indent}mark(row)")
    lines.append(f"{indent}yield x")
    source = "\n".join(lines) + "\n"
    filename = f"<streamflow fused run {next(_serial)}>"
    scope: dict[str, Any] = {name: part.function for name, part in zip(names, fragments, strict=True)}
    exec(compile(source, filename, "exec"), scope)
    # As attrs and dataclasses do, so that a traceback through generated code shows its lines.
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    return scope["run"], filename


class FusedStep(SyncStep):
    """Runs a fused function over chunks, in time slices, and asks the error policy about elements that fail."""

    def __init__(self, name: str, names: list[str], fragments: list[Fragment], guard: Guard) -> None:
        super().__init__(name, guard)
        self._names = names
        self._run, self._file = compile_run(fragments, marked=False)
        self._run_marked, self._marked_file = compile_run(fragments, marked=True)
        for file in (self._file, self._marked_file):
            weakref.finalize(self, linecache.cache.pop, file, None)
        self._selects = any(fragment.kind in ("filter", "flat_map") for fragment in fragments)
        self._expands = fragments[-1].kind == "flat_map"
        self._slicer = Slicer()

    def process(self, chunk: Chunk) -> Iterator[Item | None]:
        return self.owned(chunk, self._outputs(chunk))

    def _outputs(self, chunk: Chunk) -> Iterator[Chunk | None]:
        values = chunk.values
        columns = chunk.keys is not None or chunk.lineage is not None
        marked = columns and (self._selects or self.guard.may_absorb)
        source = iter(values)
        feed: Iterator[Any] = enumerate(source) if marked else source
        rows: list[int] = []
        out: list[Any] = []
        sent = 0

        def ready() -> Chunk:
            nonlocal out, sent
            derived = chunk.pick(rows if marked else range(sent, sent + len(out)), out)
            sent += len(out)
            rows.clear()
            out = []
            return derived

        fill = _fill_chunk if self._expands else _fill_whole
        slicer = self._slicer
        slicer.start()
        while left := length_hint(source):
            part = islice(feed, slicer.size) if left > slicer.size else feed
            run = self._run_marked(part, rows.append) if marked else self._run(part)
            failure: StepError | None = None
            more = True
            while more:
                try:
                    more = fill(out, run)
                except BaseException as error:
                    more = False
                    element = values[len(values) - length_hint(source) - 1]
                    failure = self.guard.failure(error, self._blame(error), element)
                if more and (len(out) >= CHUNK_SIZE or slicer.is_over):
                    # Outside the try: a GeneratorExit there is the user's, here it is ours.
                    yield ready()
                    slicer.start()
            if failure is not None and not self.guard.absorbs(failure):
                if out:
                    yield ready()
                raise failure from failure.cause
            if slicer.lap():
                yield ready() if out else None
                slicer.start()
        if out:
            yield ready()

    def _blame(self, error: BaseException) -> str:
        """The step whose line of the generated function raised."""
        for raised in (error, error.__cause__):
            trace = raised.__traceback__ if raised is not None else None
            while trace is not None:
                if trace.tb_frame.f_code.co_filename in (self._file, self._marked_file):
                    return self._names[min(max(trace.tb_lineno - 3, 0), len(self._names) - 1)]
                trace = trace.tb_next
        return self.name


def _fill_whole(out: list[Any], run: Iterator[Any]) -> bool:
    """Take everything; False: nothing is left."""
    out.extend(run)
    return False


def _fill_chunk(out: list[Any], run: Iterator[Any]) -> bool:
    """Take some; True if there may be more. One element of a `FlatMap` may become a million."""
    before = len(out)
    out.extend(islice(run, _PART))
    return len(out) - before == _PART
