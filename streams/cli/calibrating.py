"""`stoploss calibrate` and `init`: a policy whose numbers come from what tasks used; never applied."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct
from rich.text import Text

from schemas.errors import InvalidFileError
from schemas.fields import Metric, Number
from streams.budget.policy import Policy, builtin_policy
from streams.cli.baselines import interval_text
from streams.cli.exits import AnswerIsNoError, say_unreadable
from streams.cli.histories import (
    FromLive,
    HistoryFiles,
    SourceKind,
    check_origin,
    history_of_files,
    history_of_topics,
)
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, Json, TimeoutS
from streams.cli.policies import policy_of_file
from streams.cli.show import console, plain, print_json, table
from streams.cli.values import number, whole
from streams.insight.calibration import COUNT_MIN, Change, Proposal, calibrate, would_block
from streams.insight.history import TaskHistory
from streams.insight.intervals import Interval, wilson
from streams.insight.numbers import counted, tenths
from streams.insight.policy_text import toml
from streams.insight.split import SEED, HoldOut, parted
from streams.replay.history import History

HOLD_OUT = 0.3
SEED_MAX = 2**31 - 1
NOTHING = (
    f"nothing to propose: no phase has {COUNT_MIN} executions of known use, "
    "and no factor can be told from the data"
)

HoldOutShare = Annotated[
    float,
    typer.Option(
        "--hold-out",
        metavar="SHARE",
        parser=number("--hold-out", at_least=0, at_most=0.9),
        help="The share of sessions that nothing is made from, so that it can be tried on them.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="N",
        parser=whole("--seed", at_least=0, at_most=SEED_MAX),
        help="Another number holds out other sessions.",
    ),
]


class BlockShare(Struct, frozen=True, kw_only=True):
    """Of how many tasks how many used what a policy blocks at; with the 95 % interval."""

    tasks: int
    blocked: int
    share: float
    interval: Interval


class CalibrateAnswer(Struct, frozen=True, kw_only=True):
    """`stoploss calibrate --json` prints this.

    `made_from` and `held_out` are judged by the proposal, and so are all together, by task type ("" for
    those without one); `before` are all by the policy that it began with. `sums`: what the bases of a metric were multiplied by, so that phases add up to tasks.
    """

    out: str
    version: str
    hash: str
    began_with: str
    hold_out: float
    seed: int
    changes: list[Change]
    sums: dict[Metric, float]
    before: BlockShare
    made_from: BlockShare
    held_out: BlockShare
    by_task_type: dict[str, BlockShare]
    open_tasks: int
    unreadable: int


def calibrate_policy(
    files: HistoryFiles = None,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write the policy there, as TOML.")],
    live: FromLive = None,
    policy_file: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            metavar="FILE",
            help="Begin with this policy; else the running one, or built-in for files.",
        ),
    ] = None,
    hold_out: HoldOutShare = HOLD_OUT,
    seed: Seed = SEED,
    source: SourceKind = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Propose a policy from what tasks used: each number with what it rests on. Applies nothing.

    A base is what three in four runs of its phase use, so that a block at twice the limit stops few
    tasks; factors are fitted where there is enough data, and left alone, with the reason, where not.
    Exit code 1 where there is too little for any number.

    Example: stoploss calibrate history.jsonl --out policy.toml
    """
    check_origin(files, live, source)
    began_with = None if policy_file is None else policy_of_file(policy_file, "--policy")
    _check_out(out)
    if files:
        began_with = began_with or builtin_policy()
        history = history_of_files(files, began_with, source)
    else:
        history, running = history_of_topics(folder, timeout_s)
        began_with = began_with or running
    answer = _propose(history, began_with, HoldOut(hold_out, seed), out)
    if as_json:
        print_json(answer)
    else:
        _show(answer)
        say_unreadable(history.unreadable, history.unreadable_named)
        _say_next(out, files, HoldOut(hold_out, seed))


def init(
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="More files, after --from.")
    ] = None,
    *,
    files: Annotated[
        list[Path],
        typer.Option("--from", metavar="FILE", help="Events, or agents' logs, or their folders."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Write the policy there; it must be new.")
    ] = Path("policy.toml"),
    hold_out: HoldOutShare = HOLD_OUT,
    seed: Seed = SEED,
    as_json: Json = False,
) -> None:
    """Make a first policy from the logs of your own agents, and say what to do with it.

    The same as `stoploss calibrate` from the built-in policy, which is far below what agents use.

    Example: stoploss init --from ~/.codex/sessions
    """
    if out.exists():
        raise InvalidFileError("--out", out, "a file that is not there yet", "it is there")
    _check_out(out)
    named = [*files, *(more or ())]
    history = history_of_files(named, builtin_policy())
    answer = _propose(history, builtin_policy(), HoldOut(hold_out, seed), out)
    if as_json:
        print_json(answer)
    else:
        _show(answer)
        say_unreadable(history.unreadable, history.unreadable_named)
        _say_next(out, named, HoldOut(hold_out, seed))


def _check_out(out: Path) -> None:
    if not out.parent.is_dir():
        raise InvalidFileError("--out", out, "a file that you can write", "no such folder")


def _propose(history: History, began_with: Policy, held: HoldOut, out: Path) -> CalibrateAnswer:
    kept, held_out = parted(history.tasks, held, lambda task: task.group)
    proposal = calibrate(kept, began_with)
    if not any(change.is_changed for change in proposal.changes):
        raise AnswerIsNoError(NOTHING)
    answer = CalibrateAnswer(
        out=str(out),
        version=proposal.policy.version,
        hash=proposal.policy.hash,
        began_with=began_with.version,
        hold_out=held.share,
        seed=held.seed,
        changes=proposal.changes,
        sums=proposal.sums,
        before=_block_share(history.tasks, began_with),
        made_from=_block_share(kept, proposal.policy),
        held_out=_block_share(held_out, proposal.policy),
        by_task_type={
            task_type: share
            for task_type in sorted({task.task_type or "" for task in history.tasks})
            if (
                share := _block_share(
                    [task for task in history.tasks if (task.task_type or "") == task_type],
                    proposal.policy,
                )
            ).tasks
        },
        open_tasks=history.open_tasks,
        unreadable=history.unreadable,
    )
    try:
        out.write_text(_text(proposal, answer), encoding="utf-8")
    except OSError as error:
        problem = error.strerror or str(error)
        raise InvalidFileError("--out", out, "a file that you can write", problem) from None
    return answer


def _block_share(tasks: list[TaskHistory], policy: Policy) -> BlockShare:
    found = would_block(tasks, policy)
    return BlockShare(
        tasks=found.tasks,
        blocked=found.blocked,
        share=found.blocked / found.tasks if found.tasks else 0.0,
        interval=wilson(found.blocked, found.tasks),
    )


def _text(proposal: Proposal, answer: CalibrateAnswer) -> str:
    how = f"--hold-out {answer.hold_out:g} --seed {answer.seed}"
    head = [
        f"Calibrated from {counted(proposal.tasks, 'task')}: stoploss calibrate {how};",
        f"{counted(answer.held_out.tasks, 'root task')} of known use held out, to try it on.",
        f"It began with policy {answer.began_with}. Nothing has applied it yet.",
        *(
            f"Bases of {metric.value} are × {times:.3f}, so that phases add up to tasks."
            for metric, times in proposal.sums.items()
        ),
    ]
    comments = {
        change.field: (f"was {value_text(change.old)}: " if change.is_changed else "")
        + change.reason
        + (f", {tenths(change.unknown_share)} unknown" if change.unknown_share else "")
        for change in proposal.changes
    }
    return toml(proposal.document, comments, head)


def _show(answer: CalibrateAnswer) -> None:
    out = console()
    right = ("OLD", "NEW", "COUNT", "UNKNOWN")
    made = table("NUMBER", *right, "WHY", right=right)
    for change in answer.changes:
        if change.is_changed:
            made.add_row(*_cells(change))
    out.print(made)
    left = [change for change in answer.changes if not change.is_changed and change.count]
    if left:
        made = table("LEFT ALONE", "AS IT IS", "COUNT", "UNKNOWN", "WHY", right=right)
        for change in left:
            field, old, _, *rest = _cells(change)
            made.add_row(field, old, *rest, style="dim")
        out.print()
        out.print(made)
    never = sum(not change.is_changed and not change.count for change in answer.changes)
    if never:
        out.print(
            Text(f"{counted(never, 'number')} of what was never seen stay as they are", "dim")
        )
    out.print(f"\nmade from {_blocked_text(answer.made_from)}")
    if answer.held_out.tasks:
        out.print(f"held out: {_blocked_text(answer.held_out)}")
    if len(answer.by_task_type) > 1:
        for task_type, found in answer.by_task_type.items():
            out.print(f"    {plain(task_type) or 'no task type'}: {_blocked_text(found)}")
    out.print(
        f"policy {answer.began_with} would have blocked {tenths(answer.before.share)} of all "
        f"{answer.before.tasks:,}"
    )


def _cells(change: Change) -> list[str]:
    return [
        plain(change.field),
        value_text(change.old),
        value_text(change.new),
        f"{change.count:,}",
        tenths(change.unknown_share),
        plain(change.reason),
    ]


def _blocked_text(found: BlockShare) -> str:
    return (
        f"{counted(found.tasks, 'task')}: it would have blocked {found.blocked:,}, "
        f"{tenths(found.share)} ({interval_text(found.interval)} at 95 %)"
    )


def value_text(value: Number) -> str:
    """Return a number of a policy: `12,345` or `1.0625`."""
    return f"{value:,}"


def _say_next(out: Path, files: list[Path] | None, held_out: HoldOut) -> None:
    name = shlex.quote(str(out))
    history = shlex.join(str(file) for file in files or ()) or "FILE"
    which = f" --hold-out {held_out.share:g} --seed {held_out.seed}" if held_out.share else ""
    print(f"\n{plain(str(out))}: written, and not applied. Next:")
    for command, why in (
        (f"stoploss policy check {name}", "what you have changed by hand"),
        (f"stoploss replay {history} --policy {name} --gate{which}", "would it block honest work?"),
        (f"stoploss policy apply {name}", "tasks that start from then on get it; mode observe"),
    ):
        print(f"    {plain(command)}    # {why}")
