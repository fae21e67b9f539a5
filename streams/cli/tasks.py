"""`stoploss tasks` and `task ID`: what people look at in a terminal."""

from typing import Annotated

import typer
from rich.text import Text

from schemas.fields import Metric
from streams.cli.facts import TaskAnswer, TasksAnswer, cell_share
from streams.cli.options import (
    DEFAULT_DIR,
    TIMEOUT_S,
    Dir,
    FromPart,
    Json,
    TaskArgument,
    TimeoutS,
)
from streams.cli.show import bar, console, plain, print_json, source_text, table, verdict_text
from streams.cli.sources import Source, ask_source
from streams.cli.tables import TasksTable, cell_name, counts_text, decision_message
from streams.insight.numbers import amount, percent
from streams.insight.times import instant

DECISIONS_SHOWN = 10
COUNTERS_SHOWN = ("model_calls", "tool_calls", "input_tokens", "cache_read_tokens", "output_tokens")


def tasks(
    *,
    ended_too: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    part: FromPart = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """List open tasks, the nearest to its limit first.

    Tokens are metered: reading from a cache counts a tenth. HELD says whether the verdict is
    enforced, else why it is not. The last line says whether the view was asked, or the topics.

    Example: stoploss tasks --all
    """

    async def question(source: Source) -> TasksAnswer:
        return await source.tasks(ended_too=ended_too)

    answer = ask_source(folder, timeout_s, part, question)
    if as_json:
        print_json(answer)
        return
    out = console()
    if answer.tasks:
        out.print(TasksTable(answer.tasks))
    out.print(counts_text(answer))
    if not answer.tasks and not ended_too and answer.ended_count:
        out.print("`stoploss tasks --all` lists those that have ended, too.")
    out.print(source_text(answer.source))


def task(
    task_id: TaskArgument,
    *,
    part: FromPart = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show all about one task: limits, phases, decisions, breaches.

    Of decisions and breaches the view has the last 64, the topics all that are still there.

    Example: stoploss task TASK-17
    """

    async def question(source: Source) -> TaskAnswer:
        return await source.task(task_id)

    answer = ask_source(folder, timeout_s, part, question)
    if as_json:
        print_json(answer)
    else:
        _show_task(answer)


def _show_task(answer: TaskAnswer) -> None:
    out = console()
    head = (
        Text(plain(answer.task_id), "bold").append("  ").append_text(verdict_text(answer.verdict))
    )
    if not answer.enforced and answer.unenforced_reason is not None:
        head.append(f"  not enforced: {answer.unenforced_reason.value}", "dim")
    out.print(head)
    facts = {
        "status": answer.status + (f" ({answer.outcome})" if answer.outcome else ""),
        "class": f"{answer.complexity.value} complexity, {answer.importance.value} importance",
        "type": answer.task_type,
        "owner": answer.owner,
        "team": answer.team,
        "labels": ", ".join(f"{name}={value}" for name, value in answer.labels.items()),
        "parent": answer.parent_task_id,
        "children": ", ".join(answer.children),
        "open phase": answer.open_phase,
        "started": instant(answer.started),
        "last event": instant(answer.last),
        "ended": None if answer.ended is None else instant(answer.ended),
        "blocked by": answer.inherited_from,
        "policy": f"{answer.policy.version} ({answer.policy.hash}), limits {answer.limits_version}",
        "flags": ", ".join(answer.flags),
        "partition": str(answer.partition),
    }
    listed = table("", "")
    for name, value in facts.items():
        if value:
            listed.add_row(Text(name, "dim"), plain(value))
    listed.show_header = False
    out.print(listed)
    _show_cells(answer)
    _show_phases(answer)
    _show_decisions(answer)
    console().print(source_text(answer.source))


def _show_cells(answer: TaskAnswer) -> None:
    cells = table("LIMIT OF", "USED", "LIMIT", "", "", "LEVEL", right=("USED", "LIMIT"))
    cells.columns[4].justify = "right"
    for cell in answer.cells:
        share = cell_share(cell)
        cells.add_row(
            cell_name(cell),
            amount(cell.used, cell.metric),
            amount(cell.limit, cell.metric),
            bar(share, cell.level),
            percent(share),
            verdict_text(cell.level),
        )
    out = console()
    out.print()
    out.print(cells)


def _show_phases(answer: TaskAnswer) -> None:
    if not answer.phases:
        return
    names = [name.removesuffix("_tokens").replace("_", " ").upper() for name in COUNTERS_SHOWN]
    phases = table("PHASE", "ATTEMPTS", *names, "COST", right=("ATTEMPTS", *names, "COST"))
    for name, phase in answer.phases.items():
        counters = [f"{int(phase.counters.get(each, 0)):,}" for each in COUNTERS_SHOWN]
        cost = amount(phase.counters.get("cost_usd", 0), Metric.COST_USD)
        phases.add_row(name, str(phase.attempts), *counters, cost)
    out = console()
    out.print()
    out.print(phases)


def _show_decisions(answer: TaskAnswer) -> None:
    out = console()
    out.print()
    if not answer.decisions:
        out.print("no decisions: the task goes on")
    for decision in answer.decisions[-DECISIONS_SHOWN:]:
        said = Text(f"{decision.number:>3}  ").append_text(verdict_text(decision.verdict))
        out.print(said.append(f"  {decision_message(decision)}"))
    levels = [f"{cell_name(each.cell)} {each.level.value}" for each in answer.breaches]
    if levels:
        out.print(Text(f"crossed: {', '.join(levels)}", "dim"))
