"""The log of checkpoints: what is loaded is what was committed, by one owner at a time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamflow.engine.checkpoint import Snapshot, TableSnapshot
from streamflow.engine.observer import Observer
from streamflow.engine.outbox import Output
from streamflow.errors import FencedError, StateError
from streamflow.state import MemoryBucket
from streamflow.state.bucket import Bucket, Write, apply
from streamflow.state.checkpoints import log as log_module
from streamflow.state.checkpoints import segments as segments_module
from streamflow.state.checkpoints.lease import Lease
from streamflow.state.checkpoints.log import BucketLog
from streamflow.state.checkpoints.place import Place
from streamflow.testing import VirtualClock
from streamflow.v1 import checkpoint_pb2 as pb
from tests.support import virtual

State = dict[str, dict[bytes, bytes]]

_owners = iter(range(1_000_000))


async def opened(bucket: Bucket) -> BucketLog:
    owner = f"owner{next(_owners)}"
    lease = Lease(bucket, "p.0.owner", owner, 5, Observer())
    log = BucketLog(bucket, "p.0", owner, lease, Place(bucket, "p.0", Observer()))
    await log.begin()
    return log


def slot(key: Any) -> bytes:
    return msgspec.msgpack.encode([None, key])


class Tables:
    """What a run would do: it has states, notes which changed, and saves again what the log asks for."""

    def __init__(self, state: State | None = None) -> None:
        self.state: State = state or {"a": {}, "b": {}}
        self.dirty: dict[str, set[bytes]] = {step: set() for step in self.state}
        self.number = 0

    def change(self, step: str, key: bytes, value: bytes | None) -> None:
        self.dirty[step].add(key)
        if value is None:
            self.state[step].pop(key, None)
        else:
            self.state[step][key] = value

    async def commit(self, log: BucketLog) -> None:
        rewrite = await log.stale(sum(map(len, self.state.values())))
        if rewrite is not None:
            for step, slots in rewrite.tables.items():
                self.dirty[step].update(
                    key for key in slots if not rewrite.forget_gone or key in self.state[step]
                )
        self.number += 1
        tables = {
            step: TableSnapshot({key: self.state[step].get(key) for key in keys}, {"n": self.number})
            for step, keys in self.dirty.items()
        }
        await log.commit(Snapshot(self.number, {"source": self.number * 10}, tables, shapes={"a": "x"}))
        self.dirty = {step: set() for step in self.state}


def entries(snapshot: Snapshot | None) -> dict[str, Mapping[bytes, bytes | None]]:
    assert snapshot is not None
    return {step: table.entries for step, table in snapshot.tables.items()}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of some hundred bytes, so that little makes many, and they are written again often."""
    monkeypatch.setattr(segments_module, "SEGMENT_BYTES", 200)
    monkeypatch.setattr(segments_module, "_BLOCK", 4)
    monkeypatch.setattr(log_module, "_SMALL_BYTES", 100)
    monkeypatch.setattr(log_module, "_MOST_SMALL", 3)
    monkeypatch.setattr(log_module, "_OUT_OF_DATE", 20)
    monkeypatch.setattr(log_module, "_SPARE", 2)


changes = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.integers(0, 40).map(slot),
            st.one_of(st.none(), st.binary(min_size=1, max_size=30)),
        ),
        max_size=30,
    ),
    min_size=3,
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes, st.sets(st.integers(0, 40)))
def test_what_is_loaded_is_what_was_committed(
    commits: list[list[tuple[str, bytes, bytes | None]]], restarts: set[int]
) -> None:
    async def work() -> None:
        bucket = MemoryBucket()
        log, tables = await opened(bucket), Tables()
        for number, batch in enumerate(commits, 1):
            for change in batch:
                tables.change(*change)
            await tables.commit(log)
            if number in restarts or number == len(commits):
                log = await opened(bucket)
                assert entries(log.last) == tables.state
                assert log.last is not None and log.last.number == number
                assert log.last.positions == {"source": number * 10}
                assert log.last.tables["a"].meta == {"n": number}
                assert log.last.shapes == {"a": "x"}

    virtual(work())


@pytest.mark.parametrize("keys", [3, 60, 100_000])
def test_the_log_stays_short(keys: int) -> None:
    """However long it goes on: with few keys that change again and again, and with always new ones that go again."""

    async def work() -> None:
        bucket = MemoryBucket()
        log, tables = await opened(bucket), Tables()
        most = 0
        for number in range(600):
            tables.change("a", slot(number % keys), b"x" * 20)
            tables.change("b", slot(number), b"y")
            if number >= 30:
                tables.change("b", slot(number - 30), None)
                if keys == 100_000:
                    tables.change("a", slot(number - 30), None)
            await tables.commit(log)
            if number > 100:
                most = max(most, sum(segment.entries for segment in log._segments))
        live = sum(map(len, tables.state.values()))
        assert live <= 120
        assert most <= 2 * live + 20 + 60
        assert len(log._segments) < 40
        again = await opened(bucket)
        assert entries(again.last) == tables.state
        assert len(await again._stored()) < 60

    virtual(work())


def test_values_larger_than_a_message_are_cut_and_joined() -> None:
    async def work() -> None:
        bucket = MemoryBucket(max_value=2000)
        log, tables = await opened(bucket), Tables()
        tables.change("a", slot("large"), bytes(range(256)) * 40)
        tables.change("a", slot("small"), b"1")
        await tables.commit(log)
        tables.change("a", slot("large"), b"z" * 3000)
        await tables.commit(log)
        assert entries((await opened(bucket)).last) == tables.state

    virtual(work())


def test_too_much_for_one_batch_is_said() -> None:
    async def work() -> None:
        bucket = MemoryBucket(max_value=500)
        log, tables = await opened(bucket), Tables()
        tables.change("a", slot("large"), bytes(600_000))
        with pytest.raises(StateError, match="bucket 'memory'.* 120. .*too large"):
            await tables.commit(log)

    virtual(work())


def test_an_earlier_owner_can_commit_nothing() -> None:
    async def work() -> None:
        bucket = MemoryBucket()
        first, tables = await opened(bucket), Tables()
        tables.change("a", slot(1), b"first")
        await tables.commit(first)
        second = await opened(bucket)
        other = Tables(dict(tables.state))
        other.number = 1
        other.change("a", slot(1), b"second")
        before = await bucket.get("p.0.segment.0.0")
        tables.change("a", slot(1), b"zombie")
        with pytest.raises(
            FencedError, match="bucket 'memory', key 'p.0.position': another run .* checkpoint 2"
        ):
            await tables.commit(first)
        assert await bucket.get("p.0.segment.0.0") == before
        await other.commit(second)
        assert entries((await opened(bucket)).last) == other.state

    virtual(work())


Damage = Callable[[bytes], bytes | None]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: None, "segment.0' cannot be read: part 0 of 1 is missing"),
        (lambda data: data[:-1], "segment.0' cannot be read: it has .* bytes instead of"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "segment.0' cannot be read: its checksum is wrong"),
    ],
)
def test_a_damaged_segment_is_named_and_nothing_is_touched(damage: Damage, says: str) -> None:
    async def work() -> None:
        bucket = MemoryBucket()
        log, tables = await opened(bucket), Tables()
        tables.change("a", slot(1), b"1")
        await tables.commit(log)
        record = await bucket.get("p.0.segment.0.0")
        assert record is not None
        data = damage(record.data)
        deletion = Write(record.name, operation="delete")
        await apply(bucket, deletion if data is None else Write(record.name, data))
        with pytest.raises(StateError, match=f"bucket 'memory', key 'p.0.{says}"):
            await opened(bucket)
        await apply(bucket, Write(record.name, record.data))
        assert entries((await opened(bucket)).last) == tables.state

    virtual(work())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xff", "it is no checkpoint"),
        (b'{"not": "ours"}', "it is no checkpoint"),
        (b"", "version 0, and this release reads 1"),
        (pb.Checkpoint(version=2).SerializeToString(), "version 2, and this release reads 1"),
    ],
)
def test_what_is_no_checkpoint_is_refused(data: bytes, says: str) -> None:
    async def work() -> None:
        bucket = MemoryBucket()
        await apply(bucket, Write("p.0.position", data))
        with pytest.raises(StateError, match=f"key 'p.0.position': .*{says}"):
            await opened(bucket)
        record = await bucket.get("p.0.position")
        assert record is not None and record.data == data

    virtual(work())


# Outputs


class Crash(Exception):
    """The process dies here."""


class Crashing(MemoryBucket):
    """A bucket whose user dies at the given commit, before or after it is applied."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        self.applied = False

    async def commit(self, *arguments: Any) -> Any:
        if self.left == 0:
            self.left = None
            if self.applied:
                await super().commit(*arguments)
            raise Crash
        if self.left is not None:
            self.left -= 1
        return await super().commit(*arguments)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.sampled_from(["x", "y"]), max_size=60), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=6),
)
def test_outputs_are_brought_to_their_place_once_and_in_order(
    commits: list[list[str]], crashes: list[tuple[int, bool]]
) -> None:
    """Also more than fit into a batch, and also when the process dies in the middle of it."""
    total = iter(range(1_000_000))
    planned = [[(sink, b"%d" % next(total)) for sink in sinks] for sinks in commits]

    async def work(crashes: list[tuple[int, bool]]) -> None:
        bucket = Crashing()
        while True:
            bucket.left, bucket.applied = crashes.pop() if crashes else (None, False)
            try:
                log = await opened(bucket)
                done = log.last.number if log.last is not None else 0
                for number, outputs in enumerate(planned[done:], done + 1):
                    by_sink: dict[str, list[Output]] = {}
                    for sink, data in outputs:
                        by_sink.setdefault(sink, []).append(Output(b"to." + sink.encode(), b"", data))
                    await log.commit(Snapshot(number, outputs=by_sink))
            except Crash:
                continue
            break
        numbers = [int(message.subject.split(b".")[3]) for message in bucket.messages]
        assert numbers == list(range(len(numbers)))
        for sink in ("x", "y"):
            ending = f".to.{sink}".encode()
            assert [m.data for m in bucket.messages if m.subject.endswith(ending)] == [
                data for outputs in planned for each, data in outputs if each == sink
            ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "BATCH", 12)
        patch.setattr(log_module, "_PACKED", 3)
        virtual(work(crashes))


# The lease


class Told(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, **details: Any) -> None:
        self.events.append((name, details))


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_lease_is_taken_when_the_owner_ends_or_falls_silent() -> None:
    async def work() -> None:
        bucket = MemoryBucket(clock=VirtualClock())
        told = Told()
        first = Lease(bucket, "owner", "first", 6, told)
        await first.take()
        keeping = asyncio.create_task(first.keep())
        second = Lease(bucket, "owner", "second", 6, told)
        taking = asyncio.create_task(second.take())
        await asyncio.sleep(100)
        assert not taking.done()
        assert told.events == [("waits for the owner", {"bucket": "memory", "owner": "first"})]
        keeping.cancel()  # it hangs
        silent = now()
        await taking
        assert 2 < now() - silent <= 6.1
        with pytest.raises(FencedError, match="another run has become the owner"):
            await first.keep()
        third = Lease(bucket, "owner", "third", 6, told)
        taking = asyncio.create_task(third.take())
        await asyncio.sleep(1)
        given = now()
        await second.give_back()
        await taking
        assert now() - given < 0.1

    virtual(work())


def test_of_many_that_wait_one_gets_it() -> None:
    async def work() -> None:
        bucket = MemoryBucket(clock=VirtualClock())
        leases = [Lease(bucket, "owner", str(number), 2, Observer()) for number in range(10)]
        await leases[0].take()
        waiting = [asyncio.create_task(lease.take()) for lease in leases[1:]]
        await asyncio.sleep(0.5)
        await leases[0].give_back()
        done, others = await asyncio.wait(waiting, timeout=1)
        assert len(done) == 1
        for task in others:
            task.cancel()
        await asyncio.wait(others)

    virtual(work())


def test_after_a_pause_a_lease_that_nobody_took_is_taken_again() -> None:
    async def work() -> None:
        bucket = MemoryBucket(clock=VirtualClock())
        lease = Lease(bucket, "owner", "first", 2, Observer())
        await lease.take()
        await asyncio.sleep(10)  # it hung
        assert (await bucket.get("owner")) is None
        keeping = asyncio.create_task(lease.keep())
        await asyncio.sleep(1)
        record = await bucket.get("owner")
        assert record is not None and record.data == b"first"
        keeping.cancel()
        await asyncio.wait([keeping])

    virtual(work())


# The format

_VERSION_1 = Path(__file__).parent / "checkpoint_v1.json"


def test_what_version_1_stored_can_be_read() -> None:
    """The file was written by the first release that had checkpoints, and stays as it is."""

    async def work() -> None:
        bucket = MemoryBucket()
        for name, data in json.loads(_VERSION_1.read_text()).items():
            await apply(bucket, Write(name, base64.b64decode(data)))
        last = (await opened(bucket)).last
        assert last == Snapshot(
            7,
            {"orders": 123, "file": ["x", 4]},
            {
                "totals/Fold": TableSnapshot({slot("a"): b"\x01", slot("c"): b"\x03"}, {"top": 1.5}),
                "window": TableSnapshot({}, {"next": -4}),
            },
            finished=True,
            shapes={"totals/Fold": "by key: Folding, int", "window": "Sum in windows"},
        )

    virtual(work())


def test_the_generated_module_is_that_of_the_proto_file(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    target = tmp_path / "set"
    proto = Path(__file__).parents[2] / "proto"
    arguments = ["protoc", f"-I{proto}", f"--descriptor_set_out={target}", "streamflow/v1/checkpoint.proto"]
    assert protoc.main(arguments) == 0
    (file,) = FileDescriptorSet.FromString(target.read_bytes()).file
    for message in file.message_type:
        for each in (message, *message.nested_type):
            for field in each.field:
                field.ClearField("json_name")
    generated = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(generated)
    assert generated == file
