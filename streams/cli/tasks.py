"""`stoploss tasks`, `task ID` and `watch`: what people look at in a terminal."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from schemas.fields import Metric
from streams.cli.facts import TaskAnswer, TasksAnswer, cell_share, task_answer, tasks_answer
from streams.cli.following import Followed, follow
from streams.cli.operating import find_task
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, Json, TaskArgument, TimeoutS
from streams.cli.place import kafka_of
from streams.cli.reading import Log, opened
from streams.cli.shot import ask
from streams.cli.show import MODE_STYLES, bar, console, plain, print_json, table, verdict_text
from streams.cli.tables import TasksTable, cell_name, decision_message, feed_table
from streams.insight.numbers import amount, percent

ROWS_LIVE = 20
DECISIONS_LIVE = 8
DECISIONS_SHOWN = 10
REFRESH_PER_S = 4
COUNTERS_SHOWN = ("model_calls", "tool_calls", "input_tokens", "cache_read_tokens", "output_tokens")


def tasks(
    *,
    ended_too: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """List open tasks, the nearest to its limit first.

    Tokens are metered: reading from a cache counts a tenth. HELD says whether the verdict is
    enforced, else why it is not.

    Example: stoploss tasks --all
    """

    async def question(log: Log) -> TasksAnswer:
        return tasks_answer(await log.ledger_view(), ended_too=ended_too)

    answer = ask(folder, timeout_s, question)
    if as_json:
        print_json(answer)
        return
    out = console()
    if answer.tasks:
        out.print(TasksTable(answer.tasks))
    out.print(_counts(answer))
    if not answer.tasks and not ended_too and answer.ended_count:
        out.print("`stoploss tasks --all` lists those that have ended, too.")


def task(
    task_id: TaskArgument,
    *,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show all about one task: limits, phases, decisions, breaches.

    Example: stoploss task TASK-17
    """

    async def question(log: Log) -> TaskAnswer:
        view = await log.ledger_view()
        seen = find_task(view, task_id)
        decisions = await log.decisions(seen.partition, task_id)
        breaches = await log.breaches(seen.partition, task_id)
        return task_answer(
            view, seen, [each.data for each in decisions], [each.data for each in breaches]
        )

    answer = ask(folder, timeout_s, question)
    if as_json:
        print_json(answer)
    else:
        _show_task(answer)


def watch(
    *,
    ended_too: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show tasks and decisions as they change, until Ctrl-C.

    Without a terminal each decision is one line; with --json each line is one as JSON.

    Example: stoploss watch
    """
    asyncio.run(_watch(folder, timeout_s, ended_too=ended_too, as_json=as_json))


async def _watch(folder: Path, timeout_s: float, *, ended_too: bool, as_json: bool) -> None:
    async with (
        kafka_of(folder, timeout_s) as place,
        opened(place.settings) as log,
        asyncio.TaskGroup() as group,
    ):
        followed = Followed()
        group.create_task(follow(place.settings, log, followed))
        if as_json or not sys.stdout.isatty():
            await print_decisions(followed, as_json=as_json)
        else:
            with Live(console=console(), refresh_per_second=REFRESH_PER_S, screen=True) as live:
                while True:
                    await followed.changed.wait()
                    followed.changed.clear()
                    live.update(live_view(followed, ended_too=ended_too))
                    await asyncio.sleep(1 / REFRESH_PER_S)


async def print_decisions(followed: Followed, *, as_json: bool) -> None:
    """Print each decision as a line, for ever."""
    while True:
        await followed.changed.wait()
        followed.changed.clear()
        while followed.feed:
            told = followed.feed.popleft()
            decision = told.decision
            if as_json:
                print_json(decision)
            else:
                said = f"{decision.verdict.value:8} {decision_message(decision)}"
                print(f"{told.time} {plain(decision.task_id)} {said}", flush=True)


def live_view(
    followed: Followed, *, ended_too: bool, rows: int = ROWS_LIVE, head: Text | None = None
) -> Group:
    """Return tasks and decisions as they stand."""
    answer = tasks_answer(followed.view, ended_too=ended_too)
    latest = list(followed.feed)[-DECISIONS_LIVE:]
    hidden = len(answer.tasks) - rows
    more = Text(f"… and {hidden} more" if hidden > 0 else "", "dim")
    return Group(
        _counts(answer) if head is None else head,
        Text(""),
        TasksTable(answer.tasks[:rows]),
        more,
        feed_table(reversed(latest)) if latest else Text("no decisions yet", "dim"),
    )


def _counts(answer: TasksAnswer) -> Text:
    said = Text(f"{answer.open_count} open, {answer.ended_count} ended")
    modes = set(answer.modes.values())
    if not modes:
        return said.append(" · no ledger has run here yet")
    said.append(" · mode ")
    for index, mode in enumerate(sorted(modes)):
        said.append(", " if index else "").append(mode.value, MODE_STYLES[mode])
    return said


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
        "started": answer.started,
        "last event": answer.last,
        "ended": answer.ended,
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
