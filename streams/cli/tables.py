"""How tasks and decisions look in a terminal: shared by `tasks`, `watch` and `demo`."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from schemas.fields import Scope
from schemas.outputs import Cell, Decision
from schemas.state import CellState
from streams.cli.facts import TaskRow
from streams.cli.following import Told
from streams.cli.show import bar, compact, metric_name, percent, plain, table, verdict_text

ID_COLUMNS, ID_COLUMNS_FEED = 32, 24
SHORT = {"medium": "med", "critical": "crit"}
CLOCK = slice(11, 19)  # of an RFC 3339 time


def tasks_table(rows: Iterable[TaskRow]) -> Table:
    """Return a table of tasks that fits 100 columns."""
    made = table("TASK", "CLASS", "PHASE", "TOKENS", "", "", "VERDICT", "HELD")
    for column in (3, 5):
        made.columns[column].justify = "right"
    for row in rows:
        limit = "–" if row.limit_tokens is None else compact(row.limit_tokens)
        made.add_row(
            Text(shortened(row.task_id), "dim" if row.status == "ended" else ""),
            f"{SHORT.get(row.complexity, row.complexity)}/{SHORT.get(row.importance, row.importance)}",
            row.phase or "–",
            f"{compact(row.used_tokens)}/{limit}",
            bar(row.share, row.verdict),
            percent(row.share),
            verdict_text(row.verdict),
            held_text(row),
        )
    return made


def held_text(row: TaskRow) -> Text:
    """Return whether the verdict holds the task, else why not."""
    if row.enforced:
        return Text("yes", "bold")
    return Text("" if row.unenforced_reason is None else row.unenforced_reason.value, "dim")


def feed_table(told: Iterable[Told]) -> Table:
    """Return decisions, one a line; what does not fit of a message is cut."""
    made = table("TIME", "TASK", "VERDICT", "MESSAGE")
    # Without both a long message would push the other columns out.
    made.expand = True
    made.columns[-1].ratio = 1
    for each in told:
        decision = each.decision
        made.add_row(
            Text(each.time[CLOCK], "dim"),
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
