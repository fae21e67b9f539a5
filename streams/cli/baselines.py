"""`stoploss baseline`: what phases and tasks usually take, and which ran away."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct
from rich.text import Text

from schemas.baselines import Baseline, MetricBaseline
from schemas.fields import Metric
from streams.cli.exits import say_unreadable
from streams.cli.histories import (
    FromLive,
    HistoryFiles,
    SourceKind,
    check_origin,
    history_of_files,
    history_of_topics,
)
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, Json, TimeoutS
from streams.cli.plots import checked_plot_file, draw_baselines
from streams.cli.show import console, print_json, table
from streams.cli.tables import SHORT, shortened
from streams.insight.history import Coverage
from streams.insight.intervals import Interval
from streams.insight.numbers import amount, compact, counted, metric_name, tenths
from streams.insight.runaways import RUNAWAY_RATIO, RunawayAnswer, find_runaways
from streams.replay.history import History

RUNAWAYS_SHOWN = 10
FEW = 20  # below, a quantile says little


class ClassAnswer(Struct, frozen=True, kw_only=True):
    """A phase of a class of tasks: its baseline, and of how much of it what is known.

    `unknown_share` is of its executions, by metric; `estimated_share` those with an estimate in it.
    """

    baseline: Baseline
    executions: int
    unknown_share: dict[Metric, float]
    estimated_share: float


class BaselineAnswer(Struct, frozen=True, kw_only=True):
    """`stoploss baseline --json` prints this; sketches merge, quantiles do not."""

    tasks: int
    open_tasks: int
    unreadable: int
    classes: list[ClassAnswer]
    runaways: RunawayAnswer


def baseline(
    files: HistoryFiles = None,
    *,
    live: FromLive = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the distributions there, as .png or .svg."),
    ] = None,
    source: SourceKind = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show what phases of each class of tasks usually take, and which tasks ran away.

    From files, or what the agent has counted; both count in the same way. A task ran away where it
    used more than twice what three in four of its type do.

    Example: stoploss baseline history.jsonl --plot baseline.png
    """
    check_origin(files, live, source)
    if plot is not None:
        checked_plot_file("--plot", plot)
    if files:
        history = history_of_files(files, source=source)
    else:
        history, _ = history_of_topics(folder, timeout_s)
    answer = baseline_answer(history)
    if plot is not None:
        draw_baselines(history, answer.runaways, plot)
    if as_json:
        print_json(answer)
        return
    _show(answer)
    say_unreadable(history.unreadable, history.unreadable_named)
    if plot is not None:
        print(f"\n{plot}: drawn")


def baseline_answer(history: History) -> BaselineAnswer:
    """Return what a history says of usual use, in the order of names."""
    classes = []
    for one in sorted(history.baselines, key=lambda each: (each.phase, _class(each))):
        name = f"{one.phase}/{one.complexity}/{one.importance}"
        known = history.coverage.get(name, Coverage())
        whole = max(known.executions, 1)
        classes.append(
            ClassAnswer(
                baseline=one,
                executions=known.executions,
                unknown_share={
                    metric: 1 - count / whole if known.executions else 0.0
                    for metric, count in known.known.items()
                },
                estimated_share=known.estimated / whole,
            )
        )
    return BaselineAnswer(
        tasks=len(history.tasks),
        open_tasks=history.open_tasks,
        unreadable=history.unreadable,
        classes=classes,
        runaways=find_runaways(history.tasks),
    )


def _class(one: Baseline) -> str:
    return "/".join(SHORT.get(each, each) for each in (one.complexity, one.importance))


def _show(answer: BaselineAnswer) -> None:
    out = console()
    right = ("RUNS", "P50", "P75", "P90", "P99", "UNKNOWN", "ESTIMATED")
    made = table("PHASE", "CLASS", "METRIC", *right, right=right)
    for each in answer.classes:
        for metric, found in each.baseline.metrics.items():
            made.add_row(*_cells(each, metric, found), style="dim" if found.count < FEW else "")
    out.print(made)
    if any(
        found.count < FEW for each in answer.classes for found in each.baseline.metrics.values()
    ):
        out.print(Text(f"dim: fewer than {FEW} runs, a guess", "dim"))
    left = f"; {counted(answer.open_tasks, 'task')} still open" if answer.open_tasks else ""
    out.print(f"\n{counted(answer.tasks, 'finished task')}{left}")
    _show_runaways(answer.runaways)


def _cells(each: ClassAnswer, metric: Metric, found: MetricBaseline) -> list[str]:
    return [
        each.baseline.phase,
        _class(each.baseline),
        metric_name(metric),
        f"{found.count:,}",
        *(_amount(value, metric) for value in (found.p50, found.p75, found.p90, found.p99)),
        tenths(each.unknown_share[metric]),
        tenths(each.estimated_share),
    ]


def _show_runaways(found: RunawayAnswer) -> None:
    out = console()
    right = ("TASKS", "KNOWN", "P75", "RAN AWAY", "SHARE", "95 % INTERVAL")
    made = table("TASK TYPE", *right, right=right)
    for kind in found.kinds:
        made.add_row(
            shortened(kind.task_type or "–"),
            f"{kind.tasks:,}",
            f"{kind.known:,}",
            "–" if kind.p75 is None else compact(int(kind.p75)),
            f"{kind.runaways:,}" if kind.is_judged else "too few",
            tenths(kind.share) if kind.is_judged else "",
            interval_text(kind.interval) if kind.is_judged else "",
        )
    out.print()
    out.print(made)
    out.print(
        f"\n{found.runaways:,} of {counted(found.tasks, 'task')} ran away (above "
        f"{RUNAWAY_RATIO:g} × p75 of their type): {tenths(found.share)}, "
        f"{interval_text(found.interval)} at 95 %"
    )
    if not found.named:
        return
    numbers = ("TOKENS", "× P75")
    made = table("RAN AWAY", "TASK TYPE", *numbers, "PHASE", "PATTERN", "OUTCOME", right=numbers)
    for one in found.named[:RUNAWAYS_SHOWN]:
        made.add_row(
            shortened(one.task_id),
            shortened(one.task_type or "–"),
            compact(int(one.used)),
            f"{one.ratio:.1f}",
            one.phase or "–",
            "unclassified" if one.cause is None else one.cause.value.replace("_", " "),
            _outcome(one.success, one.finished),
        )
    out.print()
    out.print(made)
    if (more := len(found.named) - RUNAWAYS_SHOWN) > 0:
        out.print(Text(f"… and {more} more; --json has all", "dim"))


def _outcome(success: bool | None, finished: bool | None) -> str:  # noqa: FBT001 - two answers
    if success is not None:
        return "right" if success else "wrong"
    return "–" if finished is None else "finished" if finished else "not finished"


def _amount(value: float, metric: Metric) -> str:
    return compact(round(value)) if metric is Metric.TOKENS else amount(Decimal(value), metric)


def interval_text(interval: Interval) -> str:
    """Return `3.7 to 7.7 %`."""
    return f"{interval.lower * 100:.1f} to {tenths(interval.upper)}"
