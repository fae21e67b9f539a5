"""What stands in a changelog is read once, in order, by partition."""

from types import SimpleNamespace
from typing import Any

from streams.agents.tables import PartitionedStore
from streams.agents.together import Restored


def event(
    offset: int, key: bytes | None, value: bytes | None, partition: int = 0
) -> SimpleNamespace:
    message = SimpleNamespace(offset=offset, key=key, value=value, partition=partition)
    return SimpleNamespace(message=message)


def store_with(*events: SimpleNamespace) -> PartitionedStore:
    nobody: Any = SimpleNamespace()  # faust's application and table, of which nothing is asked
    store = PartitionedStore("memory://", nobody, nobody, table_name="tasks")
    store.apply_changelog_batch(events, bytes, bytes)
    return store


def read(store: PartitionedStore, partition: int = 0) -> dict[bytes, bytes]:
    return dict(store.of(partition))


def test_each_partition_has_what_its_changelog_says_last() -> None:
    store = store_with(
        event(0, b"a", b"1"), event(1, b"a", b"2"), event(2, b"b", b"3"), event(0, b"a", b"9", 1)
    )
    assert read(store) == {b"a": b"2", b"b": b"3"}
    assert read(store, 1) == {b"a": b"9"}
    assert isinstance(store.partitions[0], Restored)


def test_a_deletion_deletes() -> None:
    assert read(store_with(event(0, b"a", b"1"), event(1, b"a", None))) == {}


def test_what_was_read_before_does_not_take_the_place_of_what_came_after() -> None:
    store = store_with(event(0, b"a", b"1"), event(1, b"a", b"2"))
    store.write(0, 2, b"a", b"3")
    store.apply_changelog_batch([event(0, b"a", b"1"), event(2, b"a", b"3")], bytes, bytes)
    assert read(store) == {b"a": b"3"}
    assert store.restored == 4
