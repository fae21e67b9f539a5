"""How long a report takes: `python -m bench.report_time`.

The largest there can be: every phase that a policy may have, as many runs and crossings as are
remembered, explanations of full length, a thousand tasks below it, and similar tasks to compare with.
Composed, and rendered as text, Markdown and JSON; beside it one of a usual size.
"""

import statistics
import time
from decimal import Decimal

import msgspec
from msgspec.structs import astuple

from bench.report import emit, table
from schemas.baselines import Baseline, MetricBaseline
from schemas.fields import (
    PHASES_MAX,
    TEXT_LENGTH_MAX,
    Cause,
    Complexity,
    Importance,
    Metric,
    Scope,
    Verdict,
)
from schemas.outputs import Cell
from schemas.quantiles import with_value
from schemas.sketches import Histogram
from streams.insight.report_text import markdown, plain_text
from streams.insight.reports import Material, compose
from streams.insight.similar import Baselines
from streams.insight.task_facts import (
    BLOCKS_MAX,
    CHILDREN_MAX,
    CROSSINGS_MAX,
    EXPLANATIONS_MAX,
    RUNS_MAX,
    Block,
    Crossing,
    Explanation,
    Place,
    Run,
    TaskFacts,
)

REPORTS = 200
TIME = "2026-01-01T00:00:00.000Z"
LEVELS = (Verdict.NOTICE, Verdict.WARN, Verdict.REVIEW, Verdict.BLOCK)


class Times(msgspec.Struct, frozen=True):
    """Of one size of report; `json_bytes` is how long it is."""

    size: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    json_bytes: int


def run(number: int, phase: str) -> Run:
    """One finished run."""
    return Run(
        place=Place(number, 0),
        phase=phase,
        attempt=number + 1,
        outcome="completed",
        latency_ms=90_000,
        metered_tokens=Decimal("5234.5"),
        counters={"input_tokens": 9_000, "output_tokens": 900, "cost_usd": Decimal("0.37")},
        limits={"tokens": 4_000, "latency_ms": 60_000, "cost_usd": 1},
    )


def facts(phases: int, runs: int, crossings: int, people: int) -> TaskFacts:
    """A task that has ended with so much to tell of it."""
    names = [f"PHASE-{number:02}" for number in range(phases)]
    found = TaskFacts(task_id="TASK-1", status="ended", outcome="completed", owner="ann")
    limits: dict[str, int | Decimal] = {"tokens": 4_000, "latency_ms": 60_000, "cost_usd": 1}
    found.limits = {"task": limits, **dict.fromkeys(names, limits)}
    for number in range(runs):
        one = run(number, names[number % phases])
        found.runs[f"{one.phase}#{one.attempt}"] = one
    metrics = list(Metric)
    for number in range(crossings):
        cell = Cell(Scope.PHASE, metrics[number // phases % 3], names[number % phases])
        level = LEVELS[number // phases // 3 % 4]
        found.crossings[f"{number}"] = Crossing(
            place=Place(number, 0),
            cell=cell,
            level=level,
            used=5_234,
            limit=4_000,
            limits_version=0,
            cause=Cause.EXTENSIVE_RESEARCH,
            evidence={"files_read": 30},
        )
    for number in range(min(people, BLOCKS_MAX)):
        name = f"0-{number}-0"
        found.blocks[name] = Block(
            place=Place(number, 0), decision_id=name, time=TIME, message="over", enforced=True
        )
    for number in range(min(people, EXPLANATIONS_MAX)):
        text = ("half of it | was *research* " * 200)[:TEXT_LENGTH_MAX]
        found.explanations.append(
            Explanation(place=Place(number, 1), by="ann", text=text, time=TIME)
        )
    return found


def baselines(phases: int, *importances: Importance) -> Baselines:
    """What similar tasks used, with all the buckets that real ones have."""
    sketch = Histogram()
    for number in range(1, 200):
        sketch = with_value(sketch, number * number)
    known = MetricBaseline(
        count=199, sum=2_646_700, p50=10_000, p75=22_000, p90=32_000, p99=39_000, sketch=sketch
    )
    return Baselines(
        Baseline(
            phase=f"PHASE-{number:02}",
            complexity=Complexity.MEDIUM,
            importance=importance,
            executions=199,
            metrics=dict.fromkeys(Metric, known),
        )
        for number in range(phases)
        for importance in importances
    )


def measure(size: str, material: Material, reports: int = REPORTS) -> Times:
    """Compose and render the same report again and again."""
    took_ms = []
    encoded = b""
    for _ in range(reports):
        began_ns = time.perf_counter_ns()
        report = compose(material)
        encoded = msgspec.json.encode(report)
        assert plain_text(report)
        assert markdown(report)
        took_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
    took_ms.sort()
    return Times(
        size,
        round(statistics.median(took_ms), 3),
        round(took_ms[len(took_ms) * 99 // 100], 3),
        round(took_ms[-1], 3),
        len(encoded),
    )


def materials() -> dict[str, Material]:
    """The largest report there can be, and one of a usual size."""
    child = facts(4, 8, 0, 0)
    # Where none of its own class is known, the sketches of the others are merged.
    others = [each for each in Importance if each is not Importance.MEDIUM]
    return {
        "usual": Material(facts=facts(9, 12, 9, 1), baselines=baselines(9, *Importance)),
        "largest": Material(
            facts=facts(PHASES_MAX, RUNS_MAX, CROSSINGS_MAX, BLOCKS_MAX),
            baselines=baselines(PHASES_MAX, *others),
            children=[child] * CHILDREN_MAX,
        ),
    }


def main() -> None:
    """Measure both sizes and print it."""
    measured = []
    for size, material in materials().items():
        measured.append(measure(size, material))
        emit("report_time", measured[-1])
    table(("report", "p50 ms", "p99 ms", "max ms", "bytes of JSON"), map(astuple, measured))


if __name__ == "__main__":
    main()
