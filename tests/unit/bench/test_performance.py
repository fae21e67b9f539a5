"""The page about performance is what was kept, and a goal is met only by what was seen."""

import json
from collections.abc import Mapping

import pytest

from bench import goals, scaling
from bench.gap import Gap, together
from bench.goals import GOALS
from bench.performance import KEPT, MEASURES, PAGE, MeasureError, kept, page, run_all

MACHINE = {
    "figure": "machine",
    "commit": "abc",
    "date": "2026-11-26",
    "cores": 2,
    "python": "3.11.7",
    "load_1m": 0.1,
}
STRESS: list[Mapping[str, object]] = [
    {"figure": "client_stress", "client": False, "drained": True, "seconds": 600.0, "rss_mb_quarter": 30.0, "rss_mb_end": 31.0},
    {"figure": "client_stress", "client": True, "drained": True, "seconds": 600.0, "rss_mb_quarter": 40.0, "rss_mb_end": 43.0},
    {"figure": "client_stress_arrived", "reports": 10, "lost": 0, "counted_by_ledger": 10},
    {"figure": "client_stress_added", "task_time_percent": 0.1, "transition_p999_us": 900.0},
    {"figure": "client_stress_killed", "broker_alive": True, "lost_age_max_s": 0.4, "lost_too_old": 0},
    {"figure": "client_stress_killed", "broker_alive": False, "lost_age_max_s": 0.4, "lost_too_old": 0},
]  # fmt: skip
MET: Mapping[str, list[Mapping[str, object]]] = {
    "throughput": [
        {"system": system, "events_per_s": rate, "cpu_s_per_million": cpu_s, "peak_mb": peak_mb, "finished": True}
        for system, rate, cpu_s, peak_mb in (
            ("faust", 8, 90.0, 90),
            ("quix-streams", 80, 20.0, 90),
            ("kafka-streams", 500, 4.0, 300),
            ("kafka-streams-tuned", 600, 2.4, 400),
            ("ledger-librdkafka", 900, 1.5, 150),
            ("ledger-compiled", 600, 2.4, 150),
            ("ledger-compiled-librdkafka", 900, 1.5, 150),
            ("ledger", 800, 2.4, 150),
        )
    ],
    "scaling": [
        {"figure": "scaling", "workers": workers, "throughput": {"system": system, "partitions": partitions, "events_per_s": rate, "finished": True}}
        for workers, partitions, system, rate in (
            (1, 4, "ledger", 400),
            (2, 4, "ledger", 720),
            (2, 12, "ledger", 9_000),
            (1, 4, "kafka-streams", 300),
            (1, 4, "kafka-streams-buffered-two-threads", 400),
            (2, 4, "ledger-compiled", 720),
        )
    ],
    "latency": [
        {"figure": "latency", "system": system, "events_per_s": rate, "sent_per_s": rate, "p50_ms": p50, "p99_ms": p99}
        for system, rate, p50, p99 in (
            ("ledger", 2_000, 4.0, 15.0),
            ("ledger", 50_000, 16.0, 60.0),
            ("kafka-streams", 2_000, 13.0, 58.0),
        )
    ],
    "crowd": [
        {"figure": "crowd", "tasks": 1_000, "throughput": {"events_per_s": 100, "finished": True}},
        {"figure": "crowd", "tasks": 1_000_000, "throughput": {"events_per_s": 80, "finished": True}},
    ],
    "restore": [
        {"figure": "restore", "tasks": 0, "rss_mb": 50, "peak_mb": 50, "seconds": 1.0, "finished": True},
        {"figure": "restore", "tasks": 1_000_000, "rss_mb": 1, "peak_mb": 4_050, "seconds": 60.0, "finished": True},
    ],
    "gap": [{"figure": "gaps", "tasks": 100_000, "kills": 101, "p50_s": 5.0, "p99_s": 10.0, "max_s": 30.0}],
    "client_stress": STRESS,
    "view": [
        {"figure": "view_load", "events_per_s": 90, "events_per_s_without_a_view": 100, "age_max_ms": 1_999},
        {"figure": "view_shown", "events_per_s": 2_000, "sent_per_s": 2_000, "p50_ms": 15.0, "p99_ms": 99.9},
        {"figure": "view_rebuild", "tasks": 100_000, "seconds": 19.9},
    ],
    "alerts": [
        {"figure": "alerts", "events_per_s": 2_000, "sent_per_s": 2_000, "p50_ms": 90.0, "p99_ms": 999.9},
    ],
    "report_time": [
        {"figure": "report_time", "size": "usual", "p50_ms": 1.0, "p99_ms": 49.9},
        {"figure": "report_time", "size": "largest", "p50_ms": 40.0, "p99_ms": 49.9},
    ],
}  # fmt: skip


def outputs(lines: Mapping[str, list[Mapping[str, object]]]) -> dict[str, str]:
    return {
        measure: "\n".join(json.dumps(line) for line in [MACHINE, *found])
        for measure, found in lines.items()
    }


def changed(
    measure: str, index: int, change: Mapping[str, object]
) -> dict[str, list[Mapping[str, object]]]:
    """Return what meets all goals, with other values in one line."""
    lines = {name: list(found) for name, found in MET.items()}
    lines[measure][index] = {**lines[measure][index], **change}
    return lines


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
        ("throughput", 7, {"events_per_s": 599}),
        ("throughput", 4, {"events_per_s": 899}),
        ("throughput", 4, {"cpu_s_per_million": 1.6}),
        ("throughput", 5, {"events_per_s": 599}),
        ("throughput", 6, {"events_per_s": 899}),
        ("throughput", 6, {"cpu_s_per_million": 1.6}),
        ("throughput", 7, {"peak_mb": 151}),
        ("scaling", 1, {"throughput": {"system": "ledger", "partitions": 4, "events_per_s": 719}}),
        (
            "scaling",
            5,
            {"throughput": {"system": "ledger-compiled", "partitions": 4, "events_per_s": 719}},
        ),
        (
            "scaling",
            3,
            {"throughput": {"system": "kafka-streams", "partitions": 4, "events_per_s": 401}},
        ),
        ("latency", 0, {"p99_ms": 15.1}),
        ("latency", 1, {"p99_ms": 61.0}),
        ("latency", 2, {"p50_ms": 12.0}),
        ("crowd", 1, {"throughput": {"events_per_s": 79}}),
        ("restore", 1, {"seconds": 60.1}),
        ("restore", 1, {"peak_mb": 4_051}),
        ("gap", 0, {"p99_s": 10.1}),
        ("gap", 0, {"kills": 10, "p99_s": None, "max_s": 10.1}),
        ("gap", 0, {"kills": 10, "p99_s": 9.0, "max_s": 10.1}),
        ("gap", 0, {"tasks": 10_000}),
        ("client_stress", 1, {"rss_mb_end": 43.1}),
        ("client_stress", 0, {"rss_mb_end": 30.9}),
        ("client_stress", 1, {"seconds": 599.0}),
        ("client_stress", 2, {"lost": 1}),
        ("client_stress", 2, {"counted_by_ledger": 11}),
        ("client_stress", 3, {"task_time_percent": 2.0}),
        ("client_stress", 3, {"transition_p999_us": 1_001.0}),
        ("client_stress", 4, {"lost_too_old": 1}),
        ("client_stress", 5, {"lost_too_old": 1}),
        ("view", 0, {"age_max_ms": 2_000}),
        ("view", 1, {"p99_ms": 100.0}),
        ("view", 2, {"seconds": 20.0}),
        ("view", 2, {"tasks": 99_999}),
        ("alerts", 0, {"p99_ms": 1_000.0}),
        ("report_time", 0, {"p99_ms": 50.0}),
        ("report_time", 1, {"p99_ms": 50.0}),
    ],
)
def test_a_figure_beyond_its_goal_is_missed(
    measure: str, index: int, change: Mapping[str, object]
) -> None:
    text = page(outputs(changed(measure, index, change)))

    assert "**missed**" in text
    assert all("(" not in row for row in text.splitlines() if "**missed**" in row)


def test_the_page_says_of_what_and_where_a_figure_was_taken() -> None:
    text = page({"gap": json.dumps({**MACHINE, "took_s": 1_234})})

    said = "at abc, 2026-11-26, 2 cores, Python 3.11.7, load before 0.1, took 1,234 s"
    assert said in text


def test_all_that_is_held_against_kafka_streams_counts() -> None:
    ours = {*goals.OURS, *goals.COMPILED}

    assert ours == {"ledger", *scaling.OTHERS}
    assert all(name.startswith(goals.STREAMS) for name in scaling.STREAMS)
    assert any("two-threads" in name for name in scaling.STREAMS)


def test_a_first_stage_may_be_met_and_the_second_missed() -> None:
    text = page(
        outputs(
            changed(
                "scaling",
                1,
                {"throughput": {"system": "ledger", "partitions": 4, "events_per_s": 480}},
            )
        )
    )

    assert "| first ≥ 1.2× | ledger: 1.20× of kafka-streams-buffered-two-threads | met |" in text
    assert (
        "| then ≥ 1.8× | ledger: 1.20× of kafka-streams-buffered-two-threads | **missed** |" in text
    )


def test_the_longest_gap_of_few_kills_is_not_called_a_p99() -> None:
    text = page(outputs(changed("gap", 0, {"kills": 10, "p99_s": None, "max_s": 9.9})))

    assert "| p99 ≤ 10 s | p50 5.0, the longest of 10 kills 9.9 s, 100,000 tasks | met |" in text


@pytest.mark.parametrize(("kills", "p99_s"), [(1, None), (10, None), (100, 99.0), (200, 198.0)])
def test_a_p99_is_told_only_where_a_kill_took_longer(kills: int, p99_s: float | None) -> None:
    found = together(1, [Gap(each, each, 1.0, 1.0, 1.0, 1.0) for each in range(1, kills + 1)])

    assert (found.kills, found.p99_s, found.max_s) == (kills, p99_s, kills)


def test_one_that_fails_does_not_lose_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    measured = []

    def run_one(measure: str) -> None:
        measured.append(measure)
        if measure == "gap":
            raise MeasureError("exit code 1")

    assert run_all(["crowd", "gap", "view"], run_one) == ["gap"]
    assert measured == ["crowd", "gap", "view"]
    said = capsys.readouterr().err
    assert "gap: exit code 1" in said
    assert said.endswith("all of it: 0 min\nnot measured, and as kept before: gap\n")


# Which line, what of it is wrong, how many goals depend on it, and what is said.
RUNS_THAT_DID_NOT_FINISH = [
    ("throughput", 2, {"finished": False}, 1, "not finished"),
    ("throughput", 3, {"finished": False}, 8, "not finished"),
    ("throughput", 4, {"finished": False}, 5, "not finished"),
    ("throughput", 5, {"finished": False}, 1, "not finished"),
    ("throughput", 6, {"finished": False}, 5, "not finished"),
    ("throughput", 7, {"finished": False}, 4, "not finished"),
    (
        "scaling",
        1,
        {
            "throughput": {
                "system": "ledger",
                "partitions": 4,
                "events_per_s": 720,
                "finished": False,
            }
        },
        2,
        "not finished",
    ),
    (
        "scaling",
        4,
        {
            "throughput": {
                "system": "kafka-streams-x",
                "partitions": 4,
                "events_per_s": 400,
                "finished": False,
            }
        },
        4,
        "not finished",
    ),
    ("crowd", 0, {"throughput": {"events_per_s": 100, "finished": False}}, 1, "not finished"),
    ("crowd", 1, {"throughput": {"events_per_s": 100, "finished": False}}, 1, "not finished"),
    ("restore", 0, {"finished": False}, 1, "not finished"),
    ("restore", 1, {"finished": False}, 1, "not finished"),
    ("client_stress", 0, {"drained": False}, 4, "not all was sent"),
    ("client_stress", 1, {"drained": False}, 4, "not all was sent"),
]
RUNS_THAT_DID_NOT_REACH_THEIR_RATE = [
    ("latency", 0, {"sent_per_s": 1_979}, 3, "sent: 1,979/s of 2,000"),
    ("latency", 1, {"sent_per_s": 40_000}, 1, "sent: 40,000/s of 50,000"),
    ("latency", 2, {"sent_per_s": 1_900}, 1, "sent: 1,900/s of 2,000"),
    ("view", 1, {"sent_per_s": 1_900}, 1, "sent: 1,900/s of 2,000"),
    ("alerts", 0, {"sent_per_s": 1_900}, 1, "sent: 1,900/s of 2,000"),
]


@pytest.mark.parametrize(
    ("measure", "index", "change", "goals", "why"),
    [*RUNS_THAT_DID_NOT_FINISH, *RUNS_THAT_DID_NOT_REACH_THEIR_RATE],
)
def test_no_goal_is_met_by_a_run_that_was_cut_short_or_had_less_to_do(
    measure: str, index: int, change: Mapping[str, object], goals: int, why: str
) -> None:
    text = page(outputs(changed(measure, index, change)))

    assert [text.count(f"({why}) | **missed** |"), text.count("**missed**")] == [goals, goals]


@pytest.mark.parametrize("index", [0, 1], ids=["faust", "quix-streams"])
def test_a_slow_peer_may_run_out_of_time(index: int) -> None:
    assert "missed" not in page(outputs(changed("throughput", index, {"finished": False})))


def test_a_rate_is_reached_within_one_percent() -> None:
    assert "missed" not in page(outputs(changed("latency", 0, {"sent_per_s": 1_980})))
