"""`partition`: several streams, with all elements of a key in one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from zlib import crc32

from streamflow.engine.transform import Distribute
from streamflow.graph import Step, Stream
from streamflow.operators import _check
from streamflow.operators._streams import end
from streamflow.policies import ErrorPolicy, positive

T = TypeVar("T")


def partition(
    stream: Stream[T], n: int, key: Callable[[T], Any], *, on_error: ErrorPolicy | None = None
) -> tuple[Stream[T], ...]:
    """``n`` streams, where all elements with one ``key(x)`` are in the same. All must lead to a sink.

    ::

        ──a1──d2──a3──d4──▶
          partition(2, letter)
        ──────d2──────d4──▶
        ──a1──────a3──────▶

    The branch is the CRC-32 of the key modulo ``n``: the same in every process, run and release. A text counts as its
    UTF-8 bytes; numbers, bool, None and tuples as MessagePack writes them, so that 1 and 1.0 are two keys. Any other
    key, and a key function that fails, is left to the error policy.

    Emits each element to one branch, at once. Completes with its input. Holds nothing.

    >>> import asyncio
    >>> from streamflow import Pipeline, Source
    >>> from streamflow.connectors import Collect
    >>> first, second = partition(Source(["a1", "d2", "a3"]), 2, lambda x: x[0])
    >>> asyncio.run(Pipeline(first.to(Collect()), second.to(Collect())).run())
    (['d2'], ['a1', 'a3'])
    """
    positive(n, "partition's n")
    _check.function(key, "partition's key")
    _check.policy(on_error, "partition")

    def chooser() -> Callable[[Any], int]:
        from msgspec.msgpack import Encoder

        encode = Encoder().encode

        def choose(value: Any) -> int:
            name = key(value)
            if isinstance(name, str):
                return crc32(name.encode()) % n
            if isinstance(name, bytes):
                return crc32(name) % n
            if not isinstance(name, int | float | tuple | None):
                raise TypeError(
                    f"a key is a text, bytes, a number, bool, None or a tuple of those, not {name!r}"
                )
            return crc32(encode(name)) % n

        return choose

    step = Step(Distribute(n, chooser, "partition", (), on_error), (end(stream, "partition"),))
    return tuple(Stream(step, output) for output in range(n))
