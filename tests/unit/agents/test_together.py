"""What a batch has changed is restored as a whole, wherever its worker died and whatever compaction took."""

import random
from collections.abc import Iterable

import pytest

from streams.agents import together
from streams.agents.together import KEY_PREFIX, Restored, announcement, with_owed

Log = list[tuple[bytes, bytes | None]]
KEYS = [b"key-%d" % number for number in range(12)]


def restored(log: Iterable[tuple[bytes, bytes | None]]) -> Restored:
    found = Restored()
    for key, value in log:
        found.read(key, value)
    return found


def batch(log: Log, changed: dict[bytes, bytes | None], number: int = 0) -> Log:
    """The records that a worker writes which has restored `log`."""
    whole = with_owed(restored(log).owed, changed.items())
    return [*announcement(number, whole), *whole.items()]


def compacted(log: Log, chance: random.Random) -> Log:
    """Keep the last of each key in the first part of a log; deletions go in time as well."""
    cut = chance.randint(0, len(log) - 1)
    last = {key: index for index, (key, _) in enumerate(log[:cut])}
    kept = [
        (key, value)
        for index, (key, value) in enumerate(log[:cut])
        if last[key] == index and (value is not None or chance.random() < 0.5)
    ]
    return kept + log[cut:]


def test_a_batch_is_there_once_all_of_it_is_announced() -> None:
    log = batch([], {b"b": b"1", b"a": b"2"})
    assert [key for key, _ in log] == [KEY_PREFIX + b"0", b"a", b"b"]
    for count in range(1, len(log) + 1):
        assert restored(log[:count]).entries == {b"a": b"2", b"b": b"1"}
    assert restored(log[:2]).owed == {b"b": b"1"}
    assert restored(log).owed == {}


def test_what_is_owed_is_written_with_the_next_batch() -> None:
    log = batch([], {b"a": b"1", b"b": b"1", b"c": None})[:2]
    log += batch(log, {b"a": b"2"}, 1)
    assert log[-3:] == [(b"a", b"2"), (b"b", b"1"), (b"c", None)]
    assert restored(log[2:]).entries == {b"a": b"2", b"b": b"1"}


def test_an_announcement_that_is_not_all_there_announces_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(together, "PART_BYTES", 10)
    log = batch([], {b"a": b"1" * 9, b"b": b"1" * 30, b"c": b"1"})
    assert [key for key, _ in log] == [KEY_PREFIX + b"%d" % n for n in range(3)] + [
        b"a",
        b"b",
        b"c",
    ]
    assert [len(restored(log[:count]).entries) for count in range(1, 7)] == [0, 0, 3, 3, 3, 3]
    log = log[:2] + batch(log[:2], {b"d": b"2"}, 1)
    assert restored(log).entries == {b"d": b"2"}


@pytest.mark.parametrize("seed", range(40), ids="seed-{}".format)
def test_every_history_is_restored_to_the_end_of_a_batch(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "PART_BYTES", 40)
    chance = random.Random(seed)
    log: Log = []
    entries: dict[bytes, bytes] = {}
    for number in range(60):
        keys = chance.sample(KEYS, chance.randint(1, len(KEYS)))
        values = [None if chance.random() < 0.3 else b"%d" % number * 5 for _ in keys]
        records = batch(log, dict(zip(keys, values, strict=True)), number)
        parts = sum(key.startswith(KEY_PREFIX) for key, _ in records)
        count = chance.choice([len(records), chance.randint(0, len(records))])
        log += records[:count]
        if count >= parts:
            for key, value in zip(keys, values, strict=True):
                entries.pop(key, None)
                if value is not None:
                    entries[key] = value
        assert restored(log).entries == entries
        if chance.random() < 0.2:
            log = compacted(log, chance)
            assert restored(log).entries == entries
