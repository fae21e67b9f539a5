"""How tasks and decisions look in a terminal: shared by `tasks`, `watch` and `demo`."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from schemas.fields import Scope
from schemas.outputs import Cell, Decision
from schemas.state import CellState
from streams.cli.facts import TaskRow, TasksAnswer
from streams.cli.live import Told
from streams.cli.show import MODE_STYLES, bar, plain, table, verdict_text
from streams.insight.numbers import compact, metric_name, percent, share_of
from streams.insight.times import ago_of

ID_COLUMNS, ID_COLUMNS_FEED = 32, 24
# Below, all columns would be cut alike, and the verdict be one or two letters.
WIDE_FROM_COLUMNS = 60
SHOWN_COLUMNS = 38  # what the columns beside the id take at most, where the room is narrow
ID_COLUMNS_MIN = 9
SHORT = {"medium": "med", "critical": "crit"}


class _Column(NamedTuple):
    """One column of tasks; `is_extra` is left out where there is little room."""

    name: str
    cell: Callable[[TaskRow], str | Text]
    is_right: bool = False
    is_extra: bool = False


class TasksTable:
    """A table of tasks that fits 100 columns; a narrow terminal gets what matters most."""

    def __init__(self, rows: Iterable[TaskRow]) -> None:
        self._rows = list(rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the table for the room that there is."""
        is_wide = options.max_width >= WIDE_FROM_COLUMNS
        id_columns = (
            ID_COLUMNS if is_wide else max(options.max_width - SHOWN_COLUMNS, ID_COLUMNS_MIN)
        )
        columns = [each for each in _COLUMNS if is_wide or not each.is_extra]
        made = table("TASK", *(each.name for each in columns))
        for made_column, column in zip(made.columns[1:], columns, strict=True):
            made_column.justify = "right" if column.is_right else "left"
        for row in self._rows:
            task_id = Text(
                shortened(row.task_id, id_columns), "dim" if row.status == "ended" else ""
            )
            made.add_row(task_id, *(each.cell(row) for each in columns))
        yield made


def _class(row: TaskRow) -> str:
    return "/".join(SHORT.get(each, each) for each in (row.complexity, row.importance))


def _tokens(row: TaskRow) -> str:
    limit = "–" if row.limit_tokens is None else compact(row.limit_tokens)
    return f"{compact(row.used_tokens)}/{limit}"


def held_text(row: TaskRow) -> Text:
    """Return whether the verdict holds the task, else why not."""
    if row.enforced:
        return Text("yes", "bold")
    return Text("" if row.unenforced_reason is None else row.unenforced_reason.value, "dim")


_COLUMNS = (
    _Column("CLASS", _class, is_extra=True),
    _Column("PHASE", lambda row: row.phase or "–", is_extra=True),
    _Column("TOKENS", _tokens, is_right=True),
    _Column("", lambda row: bar(row.share, row.verdict)),
    _Column("", lambda row: percent(share_of(row.used_tokens, row.limit_tokens)), is_right=True),
    _Column("VERDICT", lambda row: verdict_text(row.verdict)),
    _Column("HELD", held_text, is_extra=True),
)


def counts_text(answer: TasksAnswer) -> Text:
    """Return how many tasks there are, and in which mode."""
    said = Text(f"{answer.open_count} open, {answer.ended_count} ended")
    modes = set(answer.modes.values())
    if not modes:
        return said.append(" · no ledger has run here yet")
    said.append(" · mode ")
    for index, mode in enumerate(sorted(modes)):
        said.append(", " if index else "").append(mode.value, MODE_STYLES[mode])
    return said


def feed_table(told: Iterable[Told], now_ms: int) -> Table:
    """Return decisions, one a line; what does not fit of a message is cut."""
    made = table("WHEN", "TASK", "VERDICT", "MESSAGE")
    # Without both a long message would push the other columns out.
    made.expand = True
    made.columns[-1].ratio = 1
    for each in told:
        decision = each.decision
        made.add_row(
            Text(plain(ago_of(each.time, now_ms)), "dim"),
            shortened(decision.task_id, ID_COLUMNS_FEED),
            verdict_text(decision.verdict),
            decision_message(decision),
        )
    return made


def decision_message(decision: Decision) -> str:
    """Return what a decision says, with its cause."""
    cause = "" if decision.cause is None else f" ({decision.cause.value.replace('_', ' ')})"
    return plain(f"{decision.message}{cause}")


def shortened(task_id: str, columns: int = ID_COLUMNS) -> str:
    """Return an id that fits: its end tells tasks apart, its beginning what they are."""
    task_id = plain(task_id)
    if len(task_id) <= columns:
        return task_id
    kept = (columns - 1) // 2
    return f"{task_id[:kept]}…{task_id[-kept:]}"


def cell_name(cell: CellState | Cell) -> str:
    """Return `task tokens` or `THINK latency`."""
    where = "task" if cell.scope is Scope.TASK else cell.phase or "–"
    return f"{where} {metric_name(cell.metric)}"
