"""`stoploss replay`: what would have been decided about history, under any policy."""

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from schemas.errors import InvalidFieldError
from schemas.fields import Metric, Mode, Verdict
from streams.budget.policy import builtin_policy
from streams.cli.exits import say, say_unreadable
from streams.cli.gating import Asked, GateAnswer, answer, tell
from streams.cli.options import Json
from streams.cli.plots import check_can_draw, checked_plot_file
from streams.cli.policies import policy_of_file
from streams.cli.progress import progress
from streams.cli.show import bar, console, print_json, table, verdict_text
from streams.cli.tables import shortened
from streams.cli.values import choice, number, whole
from streams.insight.numbers import amount, compact, counted, percent, share_of
from streams.insight.split import SEED, checked_hold_out
from streams.replay.logs import read_events, source_names
from streams.replay.offline import replay_log
from streams.replay.result import ReplayedTask, ReplayResult

TOP_TASKS = 20
SEED_MAX = 2**53  # exact in every reader of JSON


def replay(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Events as JSON lines, or agents' logs, or folders."),
    ],
    *,
    policy_file: Annotated[
        Path | None,
        typer.Option(
            "--policy", metavar="FILE", help="Judge by this policy; else the log's, or built-in."
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            metavar="|".join(Mode),
            parser=choice("--mode", Mode),
            help="Who would have been held; else as the log says, or observe.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"What the files are, where it is not recognised: {', '.join(source_names())}.",
        ),
    ] = None,
    phase: Annotated[
        str | None, typer.Option(help="Put all usage of logs into this phase.")
    ] = None,
    task_type: Annotated[
        str | None, typer.Option(help="The kind of work of logs; the agent's name if left out.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help=f"Every task, not only the first {TOP_TASKS}.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judge another policy beside it, side by side."),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option("--gate", help="Would it block honest work? Exit code 1 where it might."),
    ] = False,
    hold_out: Annotated[
        float | None,
        typer.Option(
            "--hold-out",
            metavar="SHARE",
            parser=number("--hold-out", at_least=0, at_most=1),
            help="Judge by this share of the sessions, which calibrate leaves out.",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=whole("--seed", at_least=0, at_most=SEED_MAX),
            help="Which sessions are held out.",
        ),
    ] = SEED,
    curve: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw what blocks would save, as .png or .svg."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run history through the same rules, without Kafka: what would have been blocked?

    VERDICT is the highest that was reached; the last column is what was used when a block was said.
    With --gate, --against, --hold-out or --curve it is held against how the tasks ended.

    Example: stoploss replay ~/.codex/sessions --policy policy.toml --gate --hold-out 0.3
    """
    if source is not None and source not in source_names():
        raise InvalidFieldError("--source", source, f"one of {', '.join(source_names())}")
    policy = None if policy_file is None else policy_of_file(policy_file, "--policy")
    asked = None
    if gate or against is not None or hold_out is not None or curve is not None:
        if mode is not None:
            allowed = "it without --gate, --against, --hold-out and --curve: they ask what would be"
            raise InvalidFieldError("--mode", mode.value, allowed)
        if curve is not None:
            check_can_draw("--curve")
        asked = Asked(
            policy=policy or builtin_policy(),
            against=None if against is None else policy_of_file(against, "--against"),
            gate=gate,
            hold_out=None if hold_out is None else checked_hold_out("--hold-out", hold_out, seed),
            curve=None if curve is None else checked_plot_file("--curve", curve),
        )
    with progress("folding", in_bytes=True) as advance:
        log = read_events(
            files,
            source=source,
            phase=phase,
            task_type=task_type,
            on_progress=lambda done: advance(done, None),
        )
        advance(0, log.bytes_total)
        found = replay_log(log, policy, mode=mode) if asked is None else answer(log, asked)
    if isinstance(found, GateAnswer):
        assert asked is not None
        tell(found, asked, as_json=as_json)
    elif as_json:
        print_json(found)
    else:
        _show(found, rows=len(found.tasks) if every else TOP_TASKS)


def _show(result: ReplayResult, rows: int) -> None:
    out = console()
    tasks = sorted(result.tasks, key=lambda task: -(_share(task) or 0))
    made = table("TASK", "TOKENS", "", "", "COST", "VERDICT", "BLOCKED AT")
    for column in (1, 3, 4, 6):
        made.columns[column].justify = "right"
    for task in tasks[:rows]:
        limit = task.limit.get(Metric.TOKENS)
        blocked = task.blocked_at
        made.add_row(
            shortened(task.task_id),
            f"{compact(task.used[Metric.TOKENS])}/{'–' if limit is None else compact(limit)}",
            bar(_share(task), task.peak),
            percent(_share(task)),
            amount(task.used[Metric.COST_USD], Metric.COST_USD),
            verdict_text(task.peak),
            "" if blocked is None else compact(blocked[Metric.TOKENS]),
        )
    out.print(made)
    if len(tasks) > rows:
        out.print(Text(f"… and {len(tasks) - rows} more; --all shows them", "dim"))
    _show_sums(result)


def _show_sums(result: ReplayResult) -> None:
    out = console()
    summary = result.summary
    counts = Counter(summary.verdicts)
    made = table("", *(each.value for each in Verdict), right=tuple(Verdict))
    made.add_row(f"of {counted(summary.tasks, 'task')}", *(str(counts[each]) for each in Verdict))
    out.print()
    out.print(made)
    used = summary.used
    out.print(
        f"\n{counted(summary.events, 'event')}, "
        f"{counted(int(used[Metric.TOKENS]), 'metered token')}, "
        f"{amount(used[Metric.COST_USD], Metric.COST_USD)}; policy {summary.policy.version}; "
        f"mode {summary.mode.value} would have held {summary.held}"
    )
    if summary.unknown_usage_share:
        out.print(f"{percent(summary.unknown_usage_share)} of the calls are of unknown usage")
    for reason, count in summary.refused.items():
        say(f"{counted(count, 'event')} refused: {reason}")
    say_unreadable(summary.unreadable, summary.unreadable_named)


def _share(task: ReplayedTask) -> Fraction | None:
    return share_of(task.used[Metric.TOKENS], task.limit.get(Metric.TOKENS))
