"""What a narrow terminal still shows."""

import pytest
from rich.console import Console

from schemas.fields import Complexity, Importance, UnenforcedReason, Verdict
from streams.cli.facts import TaskRow
from streams.cli.tables import TasksTable

ROWS = [
    TaskRow(
        task_id=task_id,
        partition=0,
        status="open",
        task_type=None,
        complexity=Complexity.MEDIUM,
        importance=Importance.CRITICAL,
        phase="IMPLEMENT",
        used_tokens=99_999,
        limit_tokens=8_000,
        share=99_999 / 8_000,
        verdict=Verdict.CONTINUE,
        enforced=False,
        unenforced_reason=UnenforcedReason.OBSERVE,
    )
    for task_id in ("claude-code/e5fdee4fc2bb1843-and-more", "T")
]


def shown(columns: int) -> list[str]:
    console = Console(width=columns, color_system=None)
    with console.capture() as captured:
        console.print(TasksTable(ROWS))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("columns", range(48, 60))
def test_a_narrow_terminal_keeps_the_verdict_and_the_end_of_the_id(columns: int) -> None:
    head, long, short = shown(columns)
    assert head.split() == ["TASK", "TOKENS", "VERDICT"]
    assert long.split()[0].endswith("more")
    for line in (long, short):
        assert line.endswith(" 99,999/8,000 ██████ 1,249 % continue")


def test_a_terminal_of_100_columns_shows_all() -> None:
    head, long, short = shown(100)
    assert head.split() == ["TASK", "CLASS", "PHASE", "TOKENS", "VERDICT", "HELD"]
    assert long.startswith("claude-code/e5f…bb1843-and-more med/crit IMPLEMENT 99,999/8,000 ")
    assert short.endswith(" continue observe")
