"""Named tuples as objects: msgspec writes them as arrays and expects arrays, readers of our streams want the names.

Both ways cost next to nothing where no named tuple can be: `finders` decide by the value's class, `arrays_for` by the
type to decode into.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

Step = Callable[[Any], Any]

_LEAVES: tuple[type, ...] = (
    str,
    bytes,
    bytearray,
    memoryview,
    int,
    float,
    bool,
    type(None),
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)
_leaves = frozenset(_LEAVES)
_SEQUENCES = (list, tuple, set, frozenset)


# Encoding


class _Finders(dict[type, Callable[[Any], bool] | None]):
    """For each class the function that tells whether an instance is or has a named tuple; None: it never does."""

    def __missing__(self, kind: type) -> Callable[[Any], bool] | None:
        finder = self[kind] = _finder(kind)
        return finder


finders = _Finders(dict.fromkeys(_LEAVES))


def _finder(kind: type) -> Callable[[Any], bool] | None:
    if _is_named(kind):
        return lambda value: True
    if issubclass(kind, dict):
        return lambda value: _any_in(value.values())
    if issubclass(kind, _SEQUENCES):
        return _any_in
    names = _open_fields(kind)
    return (lambda value: _any_in([getattr(value, name, None) for name in names])) if names else None


def _is_named(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _any_in(values: Iterable[Any]) -> bool:
    for value in values:
        finder = finders[value.__class__]
        if finder is not None and finder(value):
            return True
    return False


def with_objects(value: Any) -> Any:
    """The value with dicts where it has named tuples; the value itself if it has none."""
    kind = value.__class__
    finder = finders[kind]
    if finder is None or not finder(value):
        return value
    if _is_named(kind):
        items = zip(value._fields, value, strict=True)
        return {name: item if finders[item.__class__] is None else with_objects(item) for name, item in items}
    if isinstance(value, dict):
        return {key: with_objects(item) for key, item in value.items()}
    if isinstance(value, _SEQUENCES):
        return [with_objects(item) for item in value]
    changed = copy.copy(value)
    for name in _open_fields(kind):
        _set(changed, name, with_objects(getattr(value, name, None)))
    return changed


def _set(instance: Any, name: str, value: Any) -> None:
    """Set a field, also of a frozen instance."""
    if hasattr(instance, "__struct_fields__"):
        import msgspec

        msgspec.structs.force_setattr(instance, name, value)
    else:
        object.__setattr__(instance, name, value)


def _open_fields(kind: type) -> tuple[str, ...]:
    """The fields of a class that could have a named tuple in them, by their annotations."""
    return tuple(name for name, hint in fields_of(kind) if not _is_closed(hint))


def fields_of(kind: type) -> Iterator[tuple[str, Any]]:
    """The fields of a class and their annotations; Any where the annotation cannot be resolved."""
    names: list[str]
    if hasattr(kind, "__struct_fields__"):
        names = list(kind.__struct_fields__)
    elif hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__]
    elif dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    else:
        return
    try:
        hints = typing.get_type_hints(kind)
    except Exception:  # a name that exists for type checkers only, or is not global
        hints = {}
    for name in names:
        yield name, hints.get(name, Any)


def _is_closed(hint: Any) -> bool:
    """Whether a value of this type is no named tuple and has none in it."""
    origin = typing.get_origin(hint)
    if origin is None:
        return hint in _leaves or (isinstance(hint, type) and issubclass(hint, enum.Enum))
    if origin is typing.Literal:
        return True
    if origin in (typing.Union, types.UnionType, list, tuple, set, frozenset, dict):
        return all(argument is Ellipsis or _is_closed(argument) for argument in typing.get_args(hint))
    return False


# Decoding


def arrays_for(kind: Any) -> Step | None:
    """The function that turns objects into arrays where a type has named tuples, in what was decoded into builtins.

    None if the type has no named tuple in it. Raises TypeError for a class that nothing can be decoded into.
    """
    from msgspec import inspect

    info = inspect.type_info(kind)
    return _Arrays(info).step(info)


class _Arrays:
    """Makes the functions that turn objects into arrays, one for each part of a type that has named tuples in it."""

    def __init__(self, root: Any) -> None:
        self._root = root  # parts are known by their id, so they must live
        self._relevant = _relevant(root)
        self._made: dict[int, Step] = {}

    def step(self, info: Any) -> Step | None:
        """The function for this part; None if nothing in it changes."""
        number, made = id(info), self._made
        if number not in self._relevant:
            return None
        if number not in made:
            # A class may contain itself: look the function up when it is called.
            made[number] = lambda value: made[number](value)
            made[number] = self._make(info)
        return made[number]

    def _make(self, info: Any) -> Step:
        from msgspec import inspect

        match info:
            case inspect.NamedTupleType():
                return self._named_tuple(info)
            case inspect.UnionType():
                return self._union(info)
            case inspect.Metadata():
                return self.step(info.type) or _same
            case inspect.DictType():
                return partial(_each_value, self.step(info.value_type) or _same)
            case inspect.TupleType():
                return partial(_each_place, [self.step(item) or _same for item in info.item_types])
            case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
                return partial(_each_item, self.step(info.item_type) or _same)
            case _:
                steps = {field.encode_name: self.step(field.type) for field in info.fields}
                return partial(_each_field, {name: step for name, step in steps.items() if step is not None})

    def _named_tuple(self, info: Any) -> Step:
        fields = [(f.name, self.step(f.type) or _same, f.required, f.default) for f in info.fields]

        def array(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            items = []
            for name, step, required, default in fields:
                if name in value:
                    items.append(step(value[name]))
                elif required:
                    raise ValueError(f"Object missing required field `{name}`")
                else:
                    items.append(default)
            return items

        return array

    def _union(self, info: Any) -> Step:
        from msgspec import inspect

        members = [(member, step) for member in info.types if (step := self.step(member)) is not None]
        named = [(m, step) for m, step in members if isinstance(m, inspect.NamedTupleType)]
        others = [step for m, step in members if not isinstance(m, inspect.NamedTupleType)]
        objects = (inspect.DataclassType, inspect.StructType, inspect.TypedDictType, inspect.DictType)
        sole = not any(isinstance(member, objects) for member in info.types)

        def chosen(value: Any) -> Any:
            for member, step in named:  # msgspec allows one
                if isinstance(value, dict) and (sole or _fits(value, member)):
                    return step(value)
            for step in others:
                value = step(value)
            return value

        return chosen


def _relevant(root: Any) -> set[int]:
    """The ids of the parts of a type that are, or contain, named tuples."""
    from msgspec import inspect

    parents: dict[int, list[int]] = {id(root): []}
    found: list[int] = []
    pending = [root]
    while pending:
        part = pending.pop()
        if isinstance(part, inspect.CustomType) and part.cls is not object:
            raise TypeError(f"{part.cls!r} is no attrs class, dataclass, Struct, named tuple or builtin")
        if isinstance(part, inspect.NamedTupleType):
            found.append(id(part))
        for inner in _inside(part):
            if id(inner) not in parents:
                parents[id(inner)] = []
                pending.append(inner)
            parents[id(inner)].append(id(part))
    relevant: set[int] = set()
    while found:
        number = found.pop()
        if number not in relevant:
            relevant.add(number)
            found += parents[number]
    return relevant


def _inside(part: Any) -> Iterator[Any]:
    for name in ("type", "item_type", "value_type"):
        if hasattr(part, name):
            yield getattr(part, name)
    for name in ("types", "item_types"):
        yield from getattr(part, name, ())
    if not getattr(part, "array_like", False):
        yield from (field.type for field in getattr(part, "fields", ()))


def _fits(value: dict[Any, Any], info: Any) -> bool:
    known, required = {f.name for f in info.fields}, {f.name for f in info.fields if f.required}
    return required <= value.keys() <= known


def _same(value: Any) -> Any:
    return value


def _each_item(step: Step, value: Any) -> Any:
    return [step(item) for item in value] if isinstance(value, list) else value


def _each_place(steps: list[Step], value: Any) -> Any:
    if not isinstance(value, list) or len(value) != len(steps):
        return value
    return [step(item) for step, item in zip(steps, value, strict=True)]


def _each_value(step: Step, value: Any) -> Any:
    return {key: step(item) for key, item in value.items()} if isinstance(value, dict) else value


def _each_field(steps: dict[str, Step], value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: steps[key](item) if key in steps else item for key, item in value.items()}
