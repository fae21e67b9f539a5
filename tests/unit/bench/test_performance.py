"""The page about performance is what was kept, and a goal is met only by what was seen."""

import json
from collections.abc import Mapping

import pytest

from bench.goals import GOALS
from bench.performance import KEPT, MEASURES, PAGE, kept, page

MACHINE = {
    "figure": "machine",
    "commit": "abc",
    "date": "2026-11-26",
    "cores": 2,
    "python": "3.11.7",
    "load_1m": 0.1,
}
STRESS: list[Mapping[str, object]] = [
    {"figure": "client_stress_added", "task_time_percent": 0.1, "transition_p999_us": 900.0},
    {"figure": "client_stress_arrived", "reports": 10, "lost": 0, "counted_by_ledger": 10},
    {"figure": "client_stress_killed", "lost_age_max_s": 0.4, "lost_too_old": 0},
]  # fmt: skip
MET: Mapping[str, list[Mapping[str, object]]] = {
    "throughput": [
        {"system": "faust", "events_per_s": 10, "cpu_s_per_million": 90.0, "peak_mb": 90},
        {"system": "quix-streams", "events_per_s": 90, "cpu_s_per_million": 20.0, "peak_mb": 90},
        {"system": "kafka-streams", "events_per_s": 700, "cpu_s_per_million": 4.0, "peak_mb": 400},
        {"system": "kafka-streams-tuned", "events_per_s": 800, "cpu_s_per_million": 3.0, "peak_mb": 300},
        {"system": "ledger-compiled", "events_per_s": 960, "cpu_s_per_million": 3.0, "peak_mb": 150},
        {"system": "ledger", "events_per_s": 960, "cpu_s_per_million": 3.0, "peak_mb": 150},
    ],
    "latency": [
        {"system": "ledger", "events_per_s": 2_000, "sent_per_s": 2_000, "p50_ms": 4.0, "p99_ms": 15.0},
        {"system": "ledger", "events_per_s": 50_000, "sent_per_s": 50_000, "p50_ms": 16.0, "p99_ms": 60.0},
        {"system": "kafka-streams", "events_per_s": 2_000, "sent_per_s": 2_000, "p50_ms": 13.0, "p99_ms": 58.0},
    ],
    "crowd": [
        {"figure": "crowd", "tasks": 1_000, "throughput": {"events_per_s": 100}},
        {"figure": "crowd", "tasks": 1_000_000, "throughput": {"events_per_s": 80}},
    ],
    "restore": [
        {"figure": "restore", "tasks": 0, "rss_mb": 50, "peak_mb": 50, "seconds": 1.0, "finished": True},
        {"figure": "restore", "tasks": 1_000_000, "rss_mb": 1, "peak_mb": 4_050, "seconds": 60.0, "finished": True},
    ],
    "gap": [{"figure": "gaps", "tasks": 100_000, "p50_s": 5.0, "p99_s": 10.0}],
    "client_stress": STRESS,
}  # fmt: skip


def outputs(lines: Mapping[str, list[Mapping[str, object]]]) -> dict[str, str]:
    return {
        measure: "\n".join(json.dumps(line) for line in [MACHINE, *found])
        for measure, found in lines.items()
    }


def test_the_page_is_what_was_kept() -> None:
    assert PAGE.read_text() == page(kept())


def test_every_output_that_is_kept_is_one_of_the_measures() -> None:
    assert {path.stem for path in KEPT.glob("*")} <= set(MEASURES)


def test_every_goal_can_be_met() -> None:
    text = page(outputs(MET))

    assert text.count("| met |") == len(GOALS)


@pytest.mark.parametrize("measure", sorted(MET))
def test_a_goal_that_was_not_measured_is_not_met(measure: str) -> None:
    lines = dict(MET)
    del lines[measure]

    text = page(outputs(lines))

    missing = [goal for goal in GOALS if goal.measure == measure]
    assert text.count("not measured") == len(missing)
    assert "missed" not in text


@pytest.mark.parametrize(
    ("measure", "index", "change"),
    [
        ("throughput", 5, {"events_per_s": 890}),
        ("throughput", 5, {"cpu_s_per_million": 3.1}),
        ("throughput", 4, {"events_per_s": 890}),
        ("throughput", 4, {"cpu_s_per_million": 3.1}),
        ("throughput", 5, {"peak_mb": 151}),
        ("latency", 0, {"p99_ms": 15.1}),
        ("latency", 0, {"sent_per_s": 1_900}),
        ("latency", 1, {"p99_ms": 61.0}),
        ("latency", 2, {"p50_ms": 12.0}),
        ("latency", 1, {"sent_per_s": 40_000}),
        ("crowd", 1, {"throughput": {"events_per_s": 79}}),
        ("restore", 1, {"seconds": 60.1}),
        ("restore", 1, {"finished": False}),
        ("restore", 1, {"peak_mb": 4_051}),
        ("gap", 0, {"p99_s": 10.1}),
        ("gap", 0, {"tasks": 10_000}),
        ("client_stress", 0, {"task_time_percent": 2.0}),
        ("client_stress", 0, {"transition_p999_us": 1_001.0}),
        ("client_stress", 1, {"lost": 1}),
        ("client_stress", 1, {"counted_by_ledger": 11}),
        ("client_stress", 2, {"lost_too_old": 1}),
    ],
)
def test_a_figure_beyond_its_goal_is_missed(
    measure: str, index: int, change: Mapping[str, object]
) -> None:
    lines = {name: list(found) for name, found in MET.items()}
    lines[measure][index] = {**lines[measure][index], **change}

    assert "**missed**" in page(outputs(lines))


def test_the_page_says_of_what_and_where_a_figure_was_taken() -> None:
    assert "at abc, 2026-11-26, 2 cores, Python 3.11.7" in page({"gap": json.dumps(MACHINE)})


def test_a_ledger_that_ran_out_of_time_has_met_nothing() -> None:
    lines = {name: list(found) for name, found in MET.items()}
    lines["throughput"][5] = {**lines["throughput"][5], "finished": False}

    text = page(outputs(lines))

    assert text.count("not measured") == len(
        [goal for goal in GOALS if goal.measure == "throughput" and "compiled" not in goal.what]
    )
