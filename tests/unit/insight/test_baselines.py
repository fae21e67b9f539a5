"""Baselines are what the last revision of every execution used, however often and torn it is counted."""

import random
from collections.abc import Iterable
from decimal import Decimal

import msgspec
import pytest

from schemas.alerts import Origin
from schemas.fields import Complexity, ExecutionOutcome, Importance, Metric
from schemas.outputs import ExecutionRecord
from schemas.quantiles import count, quantile
from streams.insight import baselines
from streams.insight.baselines import (
    BUCKET_MAX,
    CLASS,
    ClassOfTasks,
    Entries,
    Entry,
    Measure,
    Recent,
    baseline_of,
    fold_measure,
    measure_of,
)

THINK = "THINK/medium/low"


def execution(
    task: str = "T",
    revision: int = 1,
    latency_ms: int = 1_000,
    tokens: int | Decimal = 100,
    cost: int | Decimal = 0,
    outcome: ExecutionOutcome = ExecutionOutcome.COMPLETED,
    importance: Importance = Importance.LOW,
    phase: str = "THINK",
    flags: Iterable[str] = (),
) -> ExecutionRecord:
    return ExecutionRecord(
        task_id=task,
        phase=phase,
        attempt=1,
        revision=revision,
        outcome=outcome,
        latency_ms=latency_ms,
        metered_tokens=tokens,
        counters={"cost_usd": cost},
        limits={},
        complexity=Complexity.MEDIUM,
        importance=importance,
        flags=list(flags),
    )


def measured(record: ExecutionRecord, offset: int, partition: int = 0) -> Measure:
    return measure_of(record, Origin("executions", partition, offset), 1_000 + offset)


def folded(records: Iterable[ExecutionRecord]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for offset, record in enumerate(records):
        fold_measure(entries, measured(record, offset))
    return entries


def one(entries: Entries, name: str = THINK) -> ClassOfTasks:
    found = entries[f"{CLASS}{name}"]
    assert isinstance(found, ClassOfTasks)
    return found


def total(entries: Entries, metric: Metric, name: str = THINK) -> tuple[int, float]:
    """Count and sum of a metric; nothing of one that is not there."""
    metric_baseline = baseline_of(one(entries, name)).metrics.get(metric)
    return (0, 0.0) if metric_baseline is None else (metric_baseline.count, metric_baseline.sum)


def dropped(entries: Entries) -> int:
    return sum(entry.dropped for entry in entries.values() if isinstance(entry, Recent))


def test_each_metric_is_published_in_its_own_unit() -> None:
    entries = folded(
        execution(f"T-{n}", latency_ms=n * 10, tokens=Decimal("0.5") * n, cost=Decimal("0.001") * n)
        for n in range(1, 101)
    )
    baseline = baseline_of(one(entries))
    assert (baseline.phase, baseline.complexity, baseline.importance) == ("THINK", "medium", "low")
    assert baseline.executions == 100
    assert {name: metric.sum for name, metric in baseline.metrics.items()} == {
        Metric.TOKENS: 2_525.0,
        Metric.LATENCY_MS: 50_500.0,
        Metric.COST_USD: 5.05,
    }
    tokens = baseline.metrics[Metric.TOKENS]
    assert tokens.count == count(tokens.sketch) == 100
    assert tokens.p50 == quantile(tokens.sketch, 0.5) == pytest.approx(25, rel=0.03)
    assert (tokens.p75, tokens.p90, tokens.p99) == pytest.approx((37.5, 45, 49.5), rel=0.03)


@pytest.mark.parametrize(
    ("record", "metrics"),
    [
        pytest.param(execution(), {"tokens", "latency_ms"}, id="a cost that nobody told"),
        pytest.param(execution(cost=1), {"tokens", "latency_ms", "cost_usd"}, id="all is known"),
        pytest.param(execution(tokens=0), {"tokens", "latency_ms"}, id="a known zero is zero"),
        pytest.param(
            execution(cost=1, flags=["unknown_usage"]), {"latency_ms"}, id="usage is unknown"
        ),
        pytest.param(execution(flags=["clock_skew"]), {"tokens"}, id="clocks make nothing of it"),
    ],
)
def test_what_is_not_known_is_left_out(record: ExecutionRecord, metrics: set[str]) -> None:
    assert baseline_of(one(folded([record]))).metrics.keys() == metrics


@pytest.mark.parametrize("outcome", list(ExecutionOutcome))
def test_what_nobody_has_worked_through_says_nothing(outcome: ExecutionOutcome) -> None:
    counts = outcome not in {"abandoned", "superseded"}
    assert (f"{CLASS}{THINK}" in folded([execution(outcome=outcome)])) == counts


def test_a_later_revision_takes_the_place_of_the_earlier_one() -> None:
    entries = folded([execution(tokens=100), execution("U"), execution(revision=2, tokens=700)])
    assert total(entries, Metric.TOKENS) == (2, 800.0)
    assert entries.keys() & {f"{CLASS}{THINK}"}
    assert baseline_of(one(entries)).executions == 2
    assert baseline_of(one(entries)) == baseline_of(
        one(folded([execution("U"), execution(revision=1, tokens=700)]))
    ), "nothing is left of the earlier one"


def test_a_revision_of_another_class_moves_what_was_counted() -> None:
    entries = folded([execution(), execution(revision=2, importance=Importance.HIGH)])
    assert (baseline_of(one(entries)).executions, baseline_of(one(entries)).metrics) == (0, {})
    assert total(entries, Metric.TOKENS, "THINK/medium/high") == (1, 100.0)


def test_a_revision_may_make_an_execution_count_or_no_longer() -> None:
    open_one = execution(outcome=ExecutionOutcome.SUPERSEDED)
    ended = execution(revision=2)
    again = execution(revision=3, outcome=ExecutionOutcome.ABANDONED)
    assert total(folded([open_one, ended]), Metric.TOKENS) == (1, 100.0)
    assert total(folded([open_one, ended, again]), Metric.TOKENS) == (0, 0.0)


def test_an_earlier_revision_that_comes_late_changes_nothing() -> None:
    entries = folded([execution(revision=1, tokens=5), execution(revision=2, tokens=7)])
    before = msgspec.json.encode(one(entries))
    fold_measure(entries, measured(execution(revision=1, tokens=5), 2))
    fold_measure(entries, measured(execution(revision=2, tokens=7), 3))
    assert msgspec.json.encode(one(entries)) == before


def test_what_cannot_be_corrected_is_counted() -> None:
    entries = folded([execution(revision=2)])
    assert (one(entries).uncorrected, one(entries).executions) == (1, 0)
    assert baseline_of(one(entries)).metrics == {}


def test_so_many_executions_are_remembered_and_no_more() -> None:
    tasks = [f"T-{n}" for n in range(20_000)]
    entries: dict[str, Entry] = {}
    for offset, task in enumerate(tasks):
        fold_measure(entries, measured(execution(task), offset))
    kept = [len(entry.remembered) for entry in entries.values() if isinstance(entry, Recent)]
    assert (len(kept), max(kept)) == (baselines.BUCKETS, BUCKET_MAX)
    fold_measure(entries, measured(execution(tasks[0], revision=2), 20_000))
    assert one(entries).uncorrected == 1
    fold_measure(entries, measured(execution(tasks[-1], revision=2, tokens=1), 20_001))
    assert (one(entries).uncorrected, one(entries).executions) == (1, 20_000)


def test_there_are_so_many_classes_and_what_is_left_out_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(baselines, "CLASSES_MAX", 2)
    entries = folded(
        [
            *(execution(f"T-{n}", phase=f"P-{n}") for n in range(4)),
            execution("T-0", revision=2, phase="P-0", tokens=7),
            execution("T-2", revision=2, phase="P-2", tokens=7),
            execution("U", revision=2, phase="P-9"),
        ]
    )
    assert sorted(key for key in entries if key.startswith(CLASS)) == [
        "class/P-0/medium/low",
        "class/P-1/medium/low",
    ]
    assert total(entries, Metric.TOKENS, "P-0/medium/low") == (1, 7.0)
    assert dropped(entries) == 4


def history(chance: random.Random) -> list[Measure]:
    """Measures of some partitions, in the order of each, revisions and other classes among them."""
    revisions: dict[str, int] = {}
    offsets: dict[int, int] = {}
    measures = []
    for _ in range(300):
        partition = chance.randrange(3)
        task = f"T-{partition}-{chance.randrange(40)}"
        revisions[task] = revisions.get(task, 0) + 1
        offsets[partition] = offsets.get(partition, 0) + chance.randrange(1, 3)
        record = execution(
            task,
            revisions[task],
            latency_ms=chance.randrange(10_000),
            tokens=Decimal(chance.randrange(10_000_000)) / 1_000,
            cost=Decimal(chance.randrange(1_000)) / 1_000_000_000,
            outcome=chance.choice(list(ExecutionOutcome)),
            importance=chance.choice(list(Importance)),
        )
        measures.append(measured(record, offsets[partition], partition))
    return measures


def published(entries: Entries) -> dict[str, object]:
    return {
        key: baseline_of(entry)
        for key, entry in entries.items()
        if isinstance(entry, ClassOfTasks) and entry.executions
    }


class Stored:
    """Entries as a changelog keeps them, of which a crash leaves what was written so far."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def restored(self) -> dict[str, Entry]:
        return {key: msgspec.json.decode(value, type=Entry) for key, value in self.values.items()}

    def write(self, entries: Entries, until: int | None = None) -> None:
        encoded = {key: msgspec.json.encode(entry) for key, entry in sorted(entries.items())}
        changed = [key for key, value in encoded.items() if self.values.get(key) != value]
        for key in changed[:until]:
            self.values[key] = encoded[key]


@pytest.mark.parametrize("seed", range(40), ids="seed-{}".format)
def test_neither_repetition_nor_a_crash_between_two_entries_is_seen(seed: int) -> None:
    chance = random.Random(seed)
    measures = history(chance)
    undisturbed: dict[str, Entry] = {}
    for measure in measures:
        fold_measure(undisturbed, measure)
    stored, at, crashes = Stored(), 0, 0
    while at < len(measures):
        entries = stored.restored()
        batch = measures[at : at + chance.randrange(1, 40)]
        for measure in batch:
            fold_measure(entries, measure)
        if chance.random() < 0.4:
            crashes += 1
            stored.write(entries, until=chance.randrange(len(entries)))
            at = max(at - chance.randrange(20), 0)  # what was not committed comes again as well
        else:
            stored.write(entries)
            at += len(batch)
    assert crashes > 0
    assert published(stored.restored()) == published(undisturbed)
