from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Checkpoint(_message.Message):
    __slots__ = ("version", "owner", "number", "positions", "meta", "shapes", "segments", "finished", "outputs", "outbox", "moved")
    class PositionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class MetaEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class ShapesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTBOX_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    version: int
    owner: str
    number: int
    positions: _containers.ScalarMap[str, bytes]
    meta: _containers.ScalarMap[str, bytes]
    shapes: _containers.ScalarMap[str, str]
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    finished: bool
    outputs: int
    outbox: _containers.RepeatedCompositeFieldContainer[Segment]
    moved: int
    def __init__(self, version: _Optional[int] = ..., owner: _Optional[str] = ..., number: _Optional[int] = ..., positions: _Optional[_Mapping[str, bytes]] = ..., meta: _Optional[_Mapping[str, bytes]] = ..., shapes: _Optional[_Mapping[str, str]] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., finished: bool = ..., outputs: _Optional[int] = ..., outbox: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ..., moved: _Optional[int] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("name", "parts", "bytes", "checksum", "entries")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    name: int
    parts: int
    bytes: int
    checksum: int
    entries: int
    def __init__(self, name: _Optional[int] = ..., parts: _Optional[int] = ..., bytes: _Optional[int] = ..., checksum: _Optional[int] = ..., entries: _Optional[int] = ...) -> None: ...

class OutboxSegment(_message.Message):
    __slots__ = ("sinks", "subjects", "headers", "data")
    SINKS_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    sinks: _containers.RepeatedScalarFieldContainer[str]
    subjects: _containers.RepeatedScalarFieldContainer[bytes]
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    data: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, sinks: _Optional[_Iterable[str]] = ..., subjects: _Optional[_Iterable[bytes]] = ..., headers: _Optional[_Iterable[bytes]] = ..., data: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StateSegment(_message.Message):
    __slots__ = ("tables",)
    TABLES_FIELD_NUMBER: _ClassVar[int]
    tables: _containers.RepeatedCompositeFieldContainer[TableEntries]
    def __init__(self, tables: _Optional[_Iterable[_Union[TableEntries, _Mapping]]] = ...) -> None: ...

class TableEntries(_message.Message):
    __slots__ = ("step", "slots", "states")
    STEP_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    step: str
    slots: _containers.RepeatedScalarFieldContainer[bytes]
    states: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, step: _Optional[str] = ..., slots: _Optional[_Iterable[bytes]] = ..., states: _Optional[_Iterable[bytes]] = ...) -> None: ...
