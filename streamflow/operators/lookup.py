"""`Lookup`: each element together with the entry of a table that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from attrs import field, frozen

from streamflow.engine.connector import SupportsGetItem, Table, WorkContext
from streamflow.engine.transform import Fragment, Transform
from streamflow.errors import ConfigurationError, MissingKeyError
from streamflow.graph import Flow
from streamflow.operators import _check
from streamflow.policies import ErrorPolicy

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
W = TypeVar("W")
D = TypeVar("D")

_RAISE: Final[Any] = type("no default", (), {"__repr__": lambda self: "no default"})()


@frozen(init=False)
class Lookup(Flow[T, tuple[T, V]]):
    """Join a stream with a table: each element ``x`` becomes ``(x, table[key(x)])``.

    ::

        ──a1─────b2─────a3──▶
         Lookup({a: ada, b: bob}, letter)
        ──(a1,ada)──(b2,bob)──(a3,ada)──▶

    ``table`` is a mapping, or anything else with ``__getitem__``, and is asked for each element: what you change in it
    while the pipeline runs counts from the next element on. Or it is a table that lives for the run, such as
    `streamflow.connectors.jetstream.KeyValueTable`: it is loaded before the first element and kept up to date.

    An element whose key is not in the table is joined with ``default``; without a default it goes to the error policy
    as a `MissingKeyError`. Inside `Keyed` all keys share the table.

    Emits for each element. Completes with its input. Holds nothing, and a checkpoint does not contain the table. Not
    deterministic, as the table changes: outputs behind it have no stable message ids.

    >>> import asyncio
    >>> from streamflow import Source
    >>> from streamflow.connectors import Collect
    >>> names = {"a": "ada", "b": "bob"}
    >>> joined = Source(["a1", "b2", "c3"]).via(Lookup(names, lambda x: x[0], default="?"))
    >>> asyncio.run(joined.to(Collect()).run())
    [('a1', 'ada'), ('b2', 'bob'), ('c3', '?')]

    Raises `ConfigurationError` if ``table`` cannot be asked by key.
    Source of the idea: the stream-table join of Kafka Streams.
    """

    table: SupportsGetItem[Any, V] | Table[Any, V]
    key: Callable[[T], Any]
    default: Any
    on_error: ErrorPolicy | None = field(kw_only=True)

    @overload
    def __init__(
        self,
        table: SupportsGetItem[K, V] | Table[K, V],
        key: Callable[[T], K],
        *,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Lookup[T, W | D],
        table: SupportsGetItem[K, W] | Table[K, W],
        key: Callable[[T], K],
        default: D,
        *,
        on_error: ErrorPolicy | None = ...,
    ) -> None: ...
    def __init__(
        self,
        table: SupportsGetItem[Any, Any] | Table[Any, Any],
        key: Callable[[T], Any],
        default: Any = _RAISE,
        *,
        on_error: ErrorPolicy | None = None,
    ) -> None:
        given: object = table
        if isinstance(given, type | str | bytes) or not (
            isinstance(given, Table) or hasattr(given, "__getitem__")
        ):
            raise ConfigurationError(
                f"Lookup takes a mapping or a table such as KeyValueTable, not {given!r}"
            )
        _check.function(key, "Lookup's key")
        _check.policy(on_error, "Lookup")
        # pyright does not know attrs' own name for it.
        self.__attrs_init__(table, key, default, on_error=on_error)  # pyright: ignore[reportAttributeAccessIssue]

    def transform(self) -> Transform:
        if isinstance(self.table, Table):
            return Fragment("map", _not_open, self._open, deterministic=False)
        return Fragment("map", self._joining(self.table), deterministic=False)

    async def _open(self, context: WorkContext) -> Callable[[T], tuple[T, V]]:
        assert isinstance(self.table, Table)
        return self._joining(await self.table.open(context))

    def _joining(self, table: SupportsGetItem[Any, V]) -> Callable[[T], tuple[T, V]]:
        key_of, default = self.key, self.default

        def join(x: T) -> tuple[T, V]:
            key = key_of(x)  # a KeyError of the user's function is not a missing entry
            try:
                return x, table[key]
            except LookupError:
                if default is _RAISE:
                    raise MissingKeyError(key) from None
                return x, default

        return join


def _not_open(x: object) -> object:
    raise AssertionError("the table of a Lookup is opened before its first element")
