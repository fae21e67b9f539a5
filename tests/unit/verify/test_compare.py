"""The merge of what was expected with what was found, told as two rows of records.

`a1` is a record of key `a` caused by input 1; `-a3` the deletion of `a` by input 3.
"""

import json

import pytest

from streams.verify.compare import Expected, Merge, found

OLD_MS, RECENT_MS, NOW_MS = 0, 100, 1_000
COMPACTED_BEFORE_MS = 50


def value(key: str, offset: int, verdict: str = "warn") -> bytes:
    return json.dumps({"id": f"0-{offset}-0", "data": {"key": key, "verdict": verdict}}).encode()


def merged(
    expected: str,
    there: str,
    *,
    clock_ms: int = RECENT_MS,
    compacted: bool = False,
    trimmed: bool = False,
    next_offset: int = 100,
    later_offset: int = 100,
    step: int = 1,
) -> Merge:
    """Feed both sides, `step` found records at a time, as the judge does."""
    merge = Merge("topic", 0, compacted_before_ms=COMPACTED_BEFORE_MS if compacted else None)
    if trimmed:
        merge.trim()
    waiting = there.split()

    def read() -> None:
        for word in waiting[:step]:
            key, offset = word.lstrip("-")[0], int(word.lstrip("-")[1:])
            content = None if word.startswith("-") else value(key, offset)
            merge.find([found(0, key.encode(), content)])
        del waiting[:step]
        if not waiting:
            merge.end_of_found()

    for word in expected.split():
        key, offset = word.lstrip("-")[0], int(word.lstrip("-")[1:])
        content = None if word.startswith("-") else value(key, offset)
        merge.expect(Expected((offset, 0), key.encode(), content, clock_ms))
        merge.run()
        while merge.needs_found:
            read()
            merge.run()
    while waiting or not merge.has_ended:
        read()
        merge.run()
    if merge.difference is None:
        merge.finish(next_offset, later_offset)
    return merge


def named(merge: Merge) -> str | None:
    """Return the difference as `missing a1`; a deletion has no place of its own."""
    difference = merge.difference
    if difference is None:
        return None
    offset = "" if difference.input_offset is None else difference.input_offset
    return f"{difference.problem} {difference.key}{offset}"


@pytest.mark.parametrize("step", [1, 2, 100])
@pytest.mark.parametrize(
    ("expected", "there", "difference"),
    [
        pytest.param("", "", None, id="nothing on both sides"),
        pytest.param("a1 b2 a3", "a1 b2 a3", None, id="the same"),
        pytest.param("a1 b2 a3", "b2 a3", "missing a1", id="the first is not there"),
        pytest.param("a1 b2 a3", "a1 a3", "missing b2", id="one in between is not there"),
        pytest.param("a1 b2 a3", "a1 b2", "missing a3", id="the last is not there"),
        pytest.param("a1 b2", "", "missing a1", id="nothing is there"),
        pytest.param("a1 a3", "a1 b2 a3", "extra b2", id="one too many"),
        pytest.param("a1", "a1 b2", "extra b2", id="one too many at the end"),
        pytest.param("", "a1", "extra a1", id="one where nothing was expected"),
        pytest.param("a1 b2", "a1 a1 b2", "extra a1", id="the same twice"),
        pytest.param("a1 b2", "b2 a1", "missing a1", id="the wrong order"),
        pytest.param("a1 b2", "c1 b2", "changed c1", id="another key"),
        pytest.param("a1 -a2 a3", "a1 -a2 a3", None, id="a deletion"),
        pytest.param("a1 -a2 a3", "a1 a3", "missing a2", id="a deletion is not there"),
        pytest.param("a1 a3", "a1 -a2 a3", "extra a", id="a deletion too many"),
        pytest.param("a1", "a1 -a2", "extra a", id="a deletion too many at the end"),
        pytest.param("a1 -a2", "-a2 a1", "extra a", id="a deletion too early"),
        pytest.param("a1 -a2 -b3", "a1 -b3 -a2", None, id="deletions have no order among them"),
    ],
)
def test_both_sides_are_compared_in_the_order_of_their_inputs(
    expected: str, there: str, difference: str | None, step: int
) -> None:
    assert named(merged(expected, there, step=step)) == difference


@pytest.mark.parametrize(
    ("expected", "there", "difference"),
    [
        pytest.param("a1 a2 b3 a4", "b3 a4", None, id="a later one of the key is there"),
        pytest.param("a1 a2 b3", "a1 b3", "missing a2", id="the last one of a key is not there"),
        pytest.param("a1 a2 b3", "b3", "missing a2", id="none of the key is there"),
        pytest.param("a1 -a2 b3", "-a2 b3", None, id="only the deletion is left"),
        pytest.param("a1 -a2 b3", "b3", None, id="the deletion was compacted as well"),
        pytest.param("a1 -a2 b3", "a1 b3", "missing a2", id="what was deleted is there"),
        pytest.param("a1 -a2 a3", "a3", None, id="a second life"),
        pytest.param("a1 -a2 a3", "-a2", "missing a3", id="a second life is not there"),
        pytest.param("a1 a2", "a1 a2 a2", "extra a2", id="compaction adds nothing"),
    ],
)
def test_compaction_excuses_what_a_later_record_of_the_key_has_replaced(
    expected: str, there: str, difference: str | None
) -> None:
    assert named(merged(expected, there, compacted=True, clock_ms=OLD_MS)) == difference


def test_compaction_excuses_nothing_that_is_too_recent_for_it() -> None:
    assert named(merged("a1 a2", "a2", compacted=True, clock_ms=RECENT_MS)) == "missing a1"


@pytest.mark.parametrize(
    ("there", "difference", "trimmed"),
    [
        pytest.param("b3 a4", None, 2, id="the first records are gone"),
        pytest.param("", None, 4, id="all are gone"),
        pytest.param("a2 a4", "missing b3", 1, id="only the first ones can be"),
    ],
)
def test_what_retention_has_removed_is_not_missing(
    there: str, difference: str | None, trimmed: int
) -> None:
    merge = merged("a1 a2 b3 a4", there, trimmed=True)
    assert named(merge) == difference
    assert merge.trimmed == trimmed


@pytest.mark.parametrize(
    ("there", "difference"),
    [
        pytest.param("a1 b5 -b5", None, id="what the ledger has caused meanwhile"),
        pytest.param("a1 b7", "extra b7", id="of an input that the ledger has not come to"),
        pytest.param("a1 b3", "extra b3", id="of an input that was judged"),
    ],
)
def test_what_came_while_judging_is_left_alone(there: str, difference: str | None) -> None:
    assert named(merged("a1", there, next_offset=5, later_offset=7)) == difference


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no json", id="no JSON"),
        pytest.param(b'{"id": 7}', id="an id that is no text"),
        pytest.param(b'{"id": "7"}', id="an id of one number"),
        pytest.param(b'{"id": "1-1-0"}', id="an id of another partition"),
        pytest.param(b'{"id": "0-x-0"}', id="an id that is no place"),
    ],
)
def test_a_record_without_an_id_of_ours_is_too_many(content: bytes) -> None:
    merge = Merge("topic", 0)
    merge.find([found(0, b"a", content)])
    merge.end_of_found()
    merge.finish(5, 5)
    assert merge.difference is not None
    assert (merge.difference.problem, merge.difference.input_offset) == ("extra", None)


def test_a_difference_names_the_record_the_field_and_both_values() -> None:
    merge = Merge("stoploss.decisions", 0)
    merge.expect(Expected((7, 0), b"TASK-1", value("a", 7, "warn"), NOW_MS))
    merge.find([found(0, b"TASK-1", value("a", 7, "block"))])
    merge.run()
    assert str(merge.difference) == (
        "stoploss.decisions partition 0, key TASK-1, id 0-7-0 (input offset 7): "
        'data.verdict: expected "warn", found "block"'
    )
    assert merge.compared == 0
