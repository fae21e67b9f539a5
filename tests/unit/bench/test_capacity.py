"""The page about capacity is what the figures give, and the arithmetic is sane."""

import json
from pathlib import Path

import msgspec
import pytest

from bench.capacity import FIGURES, PAGE, Figures, Need, need, page, taken

MEASURED = Figures(
    events_per_s=200_000,
    partition_events_per_s=100_000,
    restored_tasks_per_s=10_000,
    process_mb=60,
    task_bytes=8_000,
    event_bytes=350,
    task_record_bytes=1_400,
)


def test_the_page_is_what_the_figures_give() -> None:
    assert PAGE.read_text() == page(msgspec.json.decode(FIGURES.read_bytes(), type=Figures))


def test_ten_agents_need_no_more_than_what_keeps_going_when_one_process_dies() -> None:
    few = need(10, MEASURED)

    assert (few.partitions, few.processes, few.brokers) == (12, 2, 3)


@pytest.mark.parametrize(("fewer", "more"), [(10, 1_000), (1_000, 100_000), (100_000, 1_000_000)])
def test_more_agents_never_need_less(fewer: int, more: int) -> None:
    def sizes(found: Need) -> tuple[int, ...]:
        return found.partitions, found.processes, found.brokers, found.memory_mb

    pairs = zip(sizes(need(fewer, MEASURED)), sizes(need(more, MEASURED)), strict=True)

    assert all(few <= many for few, many in pairs)


def test_each_process_has_as_many_partitions_as_the_others() -> None:
    many = need(1_000_000, MEASURED)

    assert many.partitions % many.processes == 0


def test_the_last_measurement_counts(tmp_path: Path) -> None:
    output = tmp_path / "run.out"
    lines: list[dict[str, object]] = [
        {"figure": "throughput", "system": "ledger", "events_per_s": 1},
        {"figure": "throughput", "system": "ledger", "events_per_s": 300_000},
        {"figure": "throughput", "system": "faust", "events_per_s": 6_000},
        {
            "figure": "scaling",
            "workers": 1,
            "throughput": {"system": "ledger", "partitions": 1, "events_per_s": 90_000},
        },
        {
            "figure": "scaling",
            "workers": 2,
            "throughput": {"system": "ledger", "partitions": 1, "events_per_s": 1},
        },
        {"figure": "restore", "tasks": 0, "rss_mb": 50, "longest_s": 0.1, "peak_mb": 50},
        {"figure": "restore", "tasks": 1_000, "rss_mb": 58, "longest_s": 0.5, "peak_mb": 60},
    ]
    lines += [
        {"figure": "view_load", "events_per_s": 90_000, "cpu_s_per_million": 12.5, "peak_mb": 70},
        {"figure": "view_rebuild", "tasks": 100_000, "redis_mb": 150, "peak_mb": 80},
        {"figure": "alerts", "events": 100_000, "cpu_s": 2.0, "peak_mb": 90},
    ]
    lines += [  # of a run that was cut short nothing is taken
        {"figure": "throughput", "system": "ledger", "events_per_s": 7, "finished": False},
        {"figure": "scaling", "workers": 1, "throughput": {"system": "ledger", "partitions": 1, "events_per_s": 7, "finished": False}},
        {"figure": "restore", "tasks": 1_000, "longest_s": 7, "peak_mb": 7, "finished": False},
    ]  # fmt: skip
    output.write_text("a table\n" + "".join(json.dumps(line) + "\n" for line in lines))

    assert taken([output], MEASURED) == Figures(
        events_per_s=300_000,
        partition_events_per_s=90_000,
        restored_tasks_per_s=2_000,
        process_mb=50,
        task_bytes=10_000,
        event_bytes=350,
        task_record_bytes=1_400,
        view_mb=80,
        view_cpu_s_per_million=12.5,
        alerts_mb=90,
        alerts_cpu_s_per_million=20.0,
        redis_task_bytes=1_500,
    )


def test_what_was_not_measured_is_said_to_be_so_and_nothing_is_computed_from_it() -> None:
    said = [
        line.split(" | ", 1)[1]
        for line in page(MEASURED).splitlines()
        if line.startswith(("| memory of the view", "| cores of the view", "| **memory of Redis"))
    ]

    assert said == ["not measured | not measured | not measured |"] * 3


def test_view_agent_and_redis_follow_from_what_was_measured() -> None:
    measured = msgspec.structs.replace(
        MEASURED,
        view_mb=80,
        view_cpu_s_per_million=20.0,
        alerts_mb=90,
        alerts_cpu_s_per_million=10.0,
        redis_task_bytes=2_000,
    )

    found = need(100_000, measured)  # 36,000 events/s at the peak, 4,900,000 tasks

    assert (found.view_mb, found.view_cores, found.redis_mb) == (80, 0.72, 9_800)
    assert (found.alerts_mb, found.alerts_cores) == (90, 0.36)
