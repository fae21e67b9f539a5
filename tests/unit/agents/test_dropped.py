"""What each agent's entries say that there was no room for."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from schemas.fields import Complexity, Importance
from streams.agents.dropped import of_baselines, of_gathered, of_tasks, of_windows, of_written
from streams.agents.registry import AGENTS
from streams.agents.stages import none
from streams.insight import answers, gathering, remembering, reviews, windows, writing
from streams.insight.access import ACCESS_ANOMALY
from streams.insight.baselines import ClassOfTasks, Recent
from streams.insight.task_alerts import TaskWatch


def packed(entry: msgspec.Struct) -> Raw:
    return Raw(msgspec.json.encode(entry))


@pytest.mark.parametrize(
    ("count", "key", "entry", "number"),
    [
        pytest.param(of_tasks, "line", remembering.Line(dropped=3), 3, id="tasks that ended"),
        pytest.param(
            of_tasks, "task/T", remembering.Watching(TaskWatch(dropped=2)), 2, id="runs of a task"
        ),
        pytest.param(of_tasks, "chunk/1", remembering.Chunk(["T"], 0), 0, id="no table"),
        pytest.param(
            of_windows,
            f"scopes/{ACCESS_ANOMALY}",
            packed(windows.Scopes(names=["ann"], dropped=4)),
            4,
            id="readers",
        ),
        pytest.param(
            of_windows,
            f"{reviews.JUSTIFICATION_UNREVIEWED}/0",
            packed(reviews.Shelf(dropped=5)),
            5,
            id="justifications",
        ),
        pytest.param(
            of_windows, answers.DROPPED, packed(answers.Dropped(blocks=6)), 6, id="blocks"
        ),
        pytest.param(
            of_windows, "seen/alerts-0", packed(windows.Seen(7, 7)), 0, id="no table of windows"
        ),
        pytest.param(of_baselines, "recent/000", Recent(dropped=7), 7, id="executions"),
        pytest.param(
            of_baselines,
            "class/THINK",
            ClassOfTasks(phase="THINK", complexity=Complexity.LARGE, importance=Importance.LOW),
            0,
            id="a class",
        ),
        pytest.param(
            of_gathered,
            gathering.WHERE,
            gathering.Where(refused=1, forgotten_early=8),
            9,
            id="tasks of a partition",
        ),
        pytest.param(
            of_written,
            writing.WHERE,
            writing.Where(refused=1, forgotten_early=8),
            9,
            id="reports that wait",
        ),
        pytest.param(of_written, "p", writing.Pending(), 0, id="no bound of reports"),
    ],
)
def test_what_found_no_room_is_read_from_the_entry_that_counts_it(
    count: Callable[[str, Any], int], key: str, entry: object, number: int
) -> None:
    assert count(key, entry) == number


def test_every_stage_that_bounds_what_comes_from_outside_counts_what_it_drops() -> None:
    silent = {
        f"{agent.name}/{stage.name}"
        for agent in AGENTS.values()
        for stage in agent.stages
        if stage.entry is not None and stage.dropped is none
    }
    # What it remembers of tasks is bounded by time alone.
    assert silent == {"governance/tasks"}
