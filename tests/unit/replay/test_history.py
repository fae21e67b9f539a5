"""Files become the same history that the topics would tell."""

import json
from pathlib import Path
from typing import Any

import msgspec

from schemas.alerts import Origin
from schemas.envelope import epoch_ms_of
from schemas.fields import Metric
from schemas.outputs import ExecutionRecord, Lifecycle
from streams.budget.policy import builtin_policy, policy_from_toml
from streams.insight.baselines import ClassOfTasks, Entry, baseline_of, fold_measure, measure_of
from streams.insight.history import Histories
from streams.replay.history import History, read_history
from streams.replay.logs import read_events
from tests.unit.budget.story import story
from tests.unit.insight.told import records


def lines(file: Path, *events: dict[str, Any]) -> Path:
    made = (
        {
            "specversion": "1.0",
            "id": str(number),
            "source": "test",
            "time": f"2026-03-02T10:00:{number:02d}Z",
            **event,
        }
        for number, event in enumerate(events)
    )
    file.write_text("".join(json.dumps(each) + "\n" for each in made))
    return file


def event(kind: str, subject: str, **data: object) -> dict[str, Any]:
    return {"type": f"stoploss.{kind}", "subject": subject, "data": data}


def usage(task: str, tokens: int) -> dict[str, Any]:
    return event("phase.usage", task, phase="THINK", input_tokens=tokens, cost_usd=0.5)


def test_a_file_tells_its_finished_tasks_and_how_many_are_open(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "log.jsonl",
        event("task.started", "T", planned_phases=["THINK"]),
        usage("T", 300),
        event("task.ended", "T"),
        usage("T", 700),
        usage("open", 1),
    )
    history = read_history(read_events([file]))
    (task,) = history.tasks
    assert (task.task_id, task.planned, task.duration_ms) == ("T", ("THINK",), 2_000)
    assert task.used == {Metric.TOKENS: 1_000_000, Metric.COST_USD: 1_000_000_000}
    assert history.open_tasks == 1
    (one,) = history.baselines
    assert one.executions == 1  # what came late has taken the place of the first revision


def test_a_line_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    file = lines(tmp_path / "log.jsonl", usage("T", 1))
    file.write_text(f"{file.read_text()}{{\n")
    history = read_history(read_events([file]))
    assert history.unreadable == 1
    assert history.unreadable_named[0].line == 2


def test_tokens_are_metered_by_the_policy_that_is_asked_for(tmp_path: Path) -> None:
    file = lines(tmp_path / "log.jsonl", usage("T", 300), event("task.ended", "T"))
    policy = policy_from_toml("[metered]\ninput = 0.5\n", "test")
    (task,) = read_history(read_events([file]), policy).tasks
    assert task.used[Metric.TOKENS] == 150_000


HISTORY = """
    start  A planned=THINK
    usage  A THINK 900
    end    A THINK
    usage  A THINK 70
    finish A
    start  B
    usage  B IMPLEMENT 4_000
    finish B
    usage  B IMPLEMENT 50
"""


def test_offline_and_live_are_the_same_to_the_last_digit(tmp_path: Path) -> None:
    world = story(HISTORY)
    counted: dict[str, Entry] = {}  # as the agent counts them
    histories = Histories(builtin_policy().explanations)
    for number, (_, envelope) in enumerate(records(world)):
        record = envelope.data
        if isinstance(record, ExecutionRecord):
            fold_measure(counted, measure_of(record, Origin("executions", 0, number), 0))
            histories.tell_execution(record)
        elif isinstance(record, Lifecycle):
            histories.tell_lifecycle(record, epoch_ms_of(envelope.time))
    live = [baseline_of(one) for one in counted.values() if isinstance(one, ClassOfTasks)]
    log = tmp_path / "events.jsonl"
    log.write_bytes(b"".join(value + b"\n" for value, _ in world.inputs))
    offline = read_history(read_events([log]))
    assert {one.phase for one in live} == {"THINK", "IMPLEMENT"}
    assert msgspec.json.encode(offline.baselines) == msgspec.json.encode(live)
    assert offline.tasks == histories.tasks()
    assert offline.coverage == histories.coverage()


def test_a_history_without_tasks_is_empty(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("")
    assert read_history(read_events([tmp_path / "log.jsonl"])) == History(
        tasks=[], baselines=[], coverage={}
    )
