"""Totals: the same whatever way the records were cut into reads, and however often they are read."""

import itertools
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

import hypothesis
import hypothesis.strategies as st
import pytest

from schemas.topics import Topic
from streams.view.digest import Digest
from streams.view.keys import Keys
from streams.view.totals import AMOUNT_MAX
from tests.unit.view.records import DAY_MS, START_MS, Kept, execution

KEYS = Keys("t.")
DAY, NEXT_DAY = "2026-11-18", "2026-11-19"


class Redis:
    """As much of Redis as the totals need: fields of hashes, and numbers that are added to."""

    def __init__(self) -> None:
        self.fields: dict[tuple[bytes, bytes], bytes] = {}
        self.numbers: Counter[tuple[bytes, bytes]] = Counter()

    def read(self, records: Sequence[Kept]) -> None:
        """Do what one read of `executions` changes."""
        digest = Digest(KEYS)
        digest.take(Topic.EXECUTIONS, 0, records)
        changes = digest.changes({field: self.fields.get(field) for field in digest.wanted()})
        for key, fields in changes.fields.items():
            self.fields |= {(key, name): value for name, value in fields.items() if value}
        for field, amount in changes.counts.items():
            self.numbers[field] += amount
            if not self.numbers[field]:
                del self.numbers[field]

    def total(self, day: str, dimension: str, name: str) -> int:
        return self.numbers[KEYS.totals(day, dimension), name.encode()]


def after(*reads: Sequence[Kept]) -> Redis:
    redis = Redis()
    for records in reads:
        redis.read(records)
    return redis


def test_an_execution_counts_in_every_dimension_exactly() -> None:
    redis = after([execution()])
    for dimension, value in [
        ("task_type", "bug"), ("owner", "ada"), ("team", "core"), ("phase", "THINK"),
        ("complexity", "medium"), ("importance", "medium"),
    ]:  # fmt: skip
        assert redis.total(DAY, dimension, f"executions/{value}") == 1
        assert redis.total(DAY, dimension, f"milli_tokens/{value}") == 1_500_500
        assert redis.total(DAY, dimension, f"nano_usd/{value}") == 2_000_000_001
        assert redis.total(DAY, dimension, f"latency_ms/{value}") == 70_000
    assert redis.total(DAY, "utilisation", "2") == 1  # a quarter of 6,000


def test_the_next_revision_takes_the_place_of_the_one_before() -> None:
    first = execution()
    second = execution(revision=2, latency_ms=80_000, at_ms=START_MS + 1)
    for redis in (after([first], [second]), after([first, second])):
        assert redis.total(DAY, "owner", "executions/ada") == 1
        assert redis.total(DAY, "owner", "latency_ms/ada") == 80_000


def test_an_execution_that_is_published_again_on_another_day_moves_there() -> None:
    redis = after([execution()], [execution(revision=2, at_ms=START_MS + DAY_MS)])
    assert {key for key, _ in redis.numbers} == {
        KEYS.totals(NEXT_DAY, name)
        for name in (
            "task_type",
            "owner",
            "team",
            "phase",
            "complexity",
            "importance",
            "utilisation",
        )
    }


def test_a_revision_that_changed_the_owner_leaves_nothing_with_the_one_before() -> None:
    redis = after([execution()], [execution(revision=2, owner="bob")])
    assert redis.total(DAY, "owner", "executions/ada") == 0
    assert redis.total(DAY, "owner", "executions/bob") == 1
    assert redis.total(DAY, "team", "executions/core") == 1


def test_a_task_that_was_forgotten_and_opened_anew_counts_once_more() -> None:
    redis = after([execution(), execution(revision=2)], [execution()], [execution(revision=2)])
    assert redis.total(DAY, "owner", "executions/ada") == 2


def test_a_later_revision_whose_first_one_retention_has_deleted_counts_whole() -> None:
    redis = after([execution(revision=3)])
    assert redis.total(DAY, "owner", "executions/ada") == 1


def test_who_has_no_owner_is_counted_under_no_name() -> None:
    redis = after([execution(owner=None)])
    assert redis.total(DAY, "owner", "executions/") == 1


@pytest.mark.parametrize(
    ("tokens", "limits", "place"),
    [
        pytest.param(599, {"tokens": 6_000}, "0", id="less than a tenth"),
        pytest.param(600, {"tokens": 6_000}, "1", id="a tenth begins the next"),
        pytest.param(60_000, {"tokens": 6_000}, "19", id="the last one has no end"),
        pytest.param(600, {}, None, id="no limit"),
        pytest.param(10**20, {"tokens": Decimal("1E-9")}, "19", id="a share that has no name"),
    ],
)
def test_utilisation_is_counted_in_tenths_of_the_limit(
    tokens: int, limits: dict[str, int], place: str | None
) -> None:
    redis = after([execution(metered_tokens=tokens, limits=limits)])
    found = [name.decode() for key, name in redis.numbers if key == KEYS.totals(DAY, "utilisation")]
    assert found == ([] if place is None else [place])


def test_an_amount_that_no_ledger_writes_is_left_out_and_the_others_count() -> None:
    digest = Digest(KEYS)
    huge = [
        execution("TASK-1", counters={"cost_usd": Decimal("1E+999990")}),
        execution("TASK-2", latency_ms=AMOUNT_MAX + 1),
    ]
    digest.take(Topic.EXECUTIONS, 0, [huge[0], execution("TASK-3"), huge[1]])
    counts = digest.changes({}).counts
    assert counts[KEYS.unreadable, b"executions"] == len(huge)
    assert counts[KEYS.totals(DAY, "owner"), b"executions/ada"] == 1


@st.composite
def histories(draw: st.DrawFn) -> list[Kept]:
    """Executions of two tasks: each life of one begins with revision 1 and goes on from there."""
    revisions: Counter[str] = Counter()
    records = []
    for number in range(draw(st.integers(1, 12))):
        name = draw(st.sampled_from(["TASK-1", "TASK-2"]))
        revisions[name] = 1 if draw(st.integers(0, 4)) == 0 else revisions[name] + 1
        records.append(
            execution(
                name,
                revision=revisions[name],
                at_ms=START_MS + number * draw(st.sampled_from([1, DAY_MS // 3])),
                latency_ms=draw(st.integers(0, 5)),
                owner=draw(st.sampled_from(["ada", "bob", None])),
            )
        )
    return records


@hypothesis.given(records=histories(), cuts=st.sets(st.integers(1, 11)))
def test_it_does_not_matter_how_records_are_cut_into_reads(
    records: list[Kept], cuts: set[int]
) -> None:
    at = [0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]
    parts = [records[start:end] for start, end in itertools.pairwise(at)]
    assert after(*parts).numbers == after(records).numbers
