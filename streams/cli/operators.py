"""What operators say: `grant`, `mode`, `reclassify`, `explain`, `justify`, `recover`.

Each names who and why. What is said about one task the ledger publishes, and what is said to all of
them goes to `audit` together with the events.
"""

import asyncio
import enum
from collections import Counter
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec import Struct
from rich.text import Text

from schemas.audit import Action, Audit
from schemas.errors import InvalidFieldError
from schemas.events import (
    AllGrantedData,
    CellLimits,
    JustificationReviewedData,
    ModeSetData,
    TaskExplainedData,
    TaskGrantedData,
    TaskReclassifiedData,
    TaskRecoveredData,
)
from schemas.fields import Complexity, Importance, Metric, Mode, RecoverAction
from schemas.state import TaskStateData
from streams.cli.exits import AnswerIsNoError
from streams.cli.facts import Standing, cell_share, task_cell
from streams.cli.modes import set_mode
from streams.cli.operating import (
    AllOutcome,
    TaskOutcome,
    operate_on_all,
    operate_on_task,
)
from streams.cli.options import (
    DEFAULT_DIR,
    TIMEOUT_S,
    By,
    Dir,
    Json,
    Reason,
    TaskArgument,
    TimeoutS,
    named,
)
from streams.cli.place import kafka_of
from streams.cli.progress import progress
from streams.cli.reading import LedgerView, Log
from streams.cli.recovering import RebuildOutcome, rebuild_record
from streams.cli.shot import ask
from streams.cli.show import all_partitions, console, plain, print_json, verdict_text
from streams.cli.tables import decision_message
from streams.cli.values import choice, whole
from streams.insight.numbers import amount, metric_name, percent

MULTIPLIER_MAX = 10
LIMIT_ALLOWED = (
    "PHASE.METRIC=NUMBER or task.METRIC=NUMBER, such as THINK.tokens=9000; "
    f"METRIC is {', '.join(Metric)}"
)

COMPLEXITY = typer.Option(
    metavar="|".join(Complexity),
    parser=choice("--complexity", Complexity),
    help="The new complexity.",
)
IMPORTANCE = typer.Option(
    metavar="|".join(Importance),
    parser=choice("--importance", Importance),
    help="The new importance.",
)


def grant(
    task_id: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="The task's id; or --all.")
    ] = None,
    *,
    reason: Reason,
    by: By = None,
    multiplier: Annotated[
        str | None,
        typer.Option(metavar="X", help="Multiply the current limits of all its cells, 1 < X ≤ 10."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="CELL=N", help="A new limit, such as THINK.tokens=9000; repeatable."),
    ] = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="Every open task, in an emergency.")
    ] = False,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Raise the limits of a task; what it used stays.

    A verdict may fall by it, and a blocked task goes on. Granted again, a multiplier counts again.

    Example: stoploss grant TASK-17 --multiplier 1.5 --reason "the tests need another round"
    """
    factor = _multiplier(multiplier)
    limits = _limits(limit or [])
    if (factor is None) == (limits is None):
        given = "neither" if factor is None else "both"
        raise InvalidFieldError("--multiplier, --limit", given, "exactly one of them")
    if everybody != (task_id is None):
        raise InvalidFieldError("TASK", task_id, "either a task's id or --all")
    if task_id is None:
        if factor is None:
            raise InvalidFieldError("--limit", limit, "--multiplier with --all")
        data = AllGrantedData(by=named(by), reason=reason, multiplier=factor)

        def noted(_: LedgerView) -> Audit:
            return Audit(
                subject="grant",
                action=Action.ALL_GRANTED,
                by=data.by,
                reason=reason,
                after={"multiplier": f"{factor:f}"},
            )

        async def for_all(log: Log) -> AllOutcome:
            return await operate_on_all(log, "stoploss.all.granted", data, timeout_s, noted)

        show_all(ask(folder, timeout_s, for_all), "granted to every open task", as_json=as_json)
        return
    granted = TaskGrantedData(by=named(by), reason=reason, multiplier=factor, limits=limits)
    _on_task(task_id, "stoploss.task.granted", granted, folder, timeout_s, as_json=as_json)


def mode(
    mode: Annotated[
        Mode,
        typer.Argument(
            metavar="MODE",
            parser=choice("MODE", Mode),
            help="observe holds nobody, partial tasks of importance low and medium, enforce all.",
        ),
    ],
    *,
    reason: Reason,
    by: By = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Say who is really held: nobody, some, or everybody.

    It is written to every partition in one transaction; open tasks at review or block are decided
    anew. Measuring goes on in every mode.

    Example: stoploss mode observe --reason "blocks are wrong since the update"
    """
    data = ModeSetData(mode=mode, by=named(by), reason=reason)

    async def question(log: Log) -> AllOutcome:
        return await set_mode(log, data, timeout_s)

    show_all(ask(folder, timeout_s, question), f"mode {mode.value}", as_json=as_json)


def reclassify(
    task_id: TaskArgument,
    *,
    reason: Reason,
    by: By = None,
    complexity: Annotated[Complexity | None, COMPLEXITY] = None,
    importance: Annotated[Importance | None, IMPORTANCE] = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Change a task's complexity or importance; its limits are computed anew.

    They may fall: what is then crossed is decided. For critical, the reason is its justification.

    Example: stoploss reclassify TASK-17 --importance critical --reason "data loss in production"
    """
    if complexity is None and importance is None:
        raise InvalidFieldError("--complexity, --importance", "neither", "one of them, or both")
    data = TaskReclassifiedData(
        by=named(by), reason=reason, complexity=complexity, importance=importance
    )
    _on_task(task_id, "stoploss.task.reclassified", data, folder, timeout_s, as_json=as_json)


def explain(
    task_id: TaskArgument,
    *,
    text: Annotated[str, typer.Option(metavar="TEXT", help="What happened; kept in the log.")],
    phase: Annotated[str | None, typer.Option(help="The phase that it is about.")] = None,
    by: By = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Write the explanation that a review or block asks for.

    Example: stoploss explain TASK-17 --text "the first plan missed the migration" --by ann
    """
    data = TaskExplainedData(by=named(by), text=text, phase=phase)
    _on_task(task_id, "stoploss.task.explained", data, folder, timeout_s, as_json=as_json)


class Review(enum.StrEnum):
    """What somebody says of a justification."""

    APPROVE = "approve"
    REFUSE = "refuse"


class NotCriticalError(AnswerIsNoError):
    """Only what is critical has to be justified."""

    def __init__(self, task_id: str, importance: Importance) -> None:
        super().__init__(
            f"TASK: {task_id!r:.220} is of importance {importance.value}, and only critical is "
            "reviewed; nothing was written"
        )


def justify(
    task_id: TaskArgument,
    review: Annotated[
        Review,
        typer.Argument(
            metavar="approve|refuse",
            parser=choice("ANSWER", Review),
            help="Whether it is critical for a good reason; refused, it is budgeted as high.",
        ),
    ],
    *,
    reason: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Why; the justification where nobody has given one."),
    ] = None,
    by: By = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Review why a task is critical; its limits follow.

    An alert asks for it where nobody has done so within a day. The task shows its justification:
    stoploss task TASK.

    Example: stoploss justify TASK-17 refuse --reason "nobody has lost data" --by ann
    """
    approved = review is Review.APPROVE
    data = JustificationReviewedData(by=named(by), approved=approved, reason=reason)

    def check(state: TaskStateData) -> None:
        if state.importance is not Importance.CRITICAL:
            raise NotCriticalError(task_id, state.importance)
        if approved and state.justification is None and not (reason or "").strip():
            allowed = "why it is critical: nobody has said so yet"
            raise InvalidFieldError("--reason", reason, allowed)

    _on_task(
        task_id,
        "stoploss.justification.reviewed",
        data,
        folder,
        timeout_s,
        as_json=as_json,
        check=check,
    )


def recover(
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="The task's id; or the key of tasks that is named."),
    ],
    *,
    reason: Reason,
    close_phase: Annotated[
        bool, typer.Option("--close-phase", help="Close its open phase; the task goes on.")
    ] = False,
    end: Annotated[bool, typer.Option("--end", help="End it; what it still uses counts.")] = False,
    refold: Annotated[
        bool,
        typer.Option("--refold", help="Add up anew what it used, from each run of its phases."),
    ] = False,
    partition: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole("--partition", at_least=0, at_most=9_999),
            help="Where the torn record stands, if the same key stands in several.",
        ),
    ] = None,
    by: By = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Mend a task that is stuck, or rebuild a record of tasks that is torn.

    With one of --close-phase, --end and --refold: a stuck task, as `stoploss doctor` names it.

    With none of them: the ledger has named a KEY (a task's id, partition/N or policy/HASH) whose
    record in tasks is torn or somebody else's, and stands still in its partition. The record is made
    anew from events, and deleted where no event has caused it. A running ledger is fenced first, and
    goes on by itself; a record that is sound is left alone.

    Example: stoploss recover TASK-17 --close-phase --reason "its enforcer has crashed"
    """
    chosen = [
        (option, action)
        for option, action, is_given in (
            ("--close-phase", RecoverAction.CLOSE_PHASE, close_phase),
            ("--end", RecoverAction.END_TASK, end),
            ("--refold", RecoverAction.REFOLD, refold),
        )
        if is_given
    ]
    if len(chosen) > 1:
        given = ", ".join(option for option, _ in chosen)
        raise InvalidFieldError("--close-phase, --end, --refold", given, "one of them, or none")
    if not chosen:
        _rebuild(key, partition, named(by), reason, folder, timeout_s, as_json=as_json)
        return
    if partition is not None:
        raise InvalidFieldError(
            "--partition",
            partition,
            "it where a record is rebuilt: without --close-phase, --end and --refold",
        )
    ((_, action),) = chosen
    data = TaskRecoveredData(by=named(by), reason=reason, action=action)
    _on_task(key, "stoploss.task.recovered", data, folder, timeout_s, as_json=as_json)


def _rebuild(
    key: str,
    partition: int | None,
    by: str,
    reason: str,
    folder: Path,
    timeout_s: float,
    *,
    as_json: bool,
) -> None:
    async def rebuilt() -> RebuildOutcome:
        """How long it takes depends on the log, so the deadline is for Kafka and the ledger only."""
        async with kafka_of(folder, timeout_s) as place:
            with progress("folding", in_bytes=False) as advance:
                return await rebuild_record(
                    place.settings,
                    key,
                    partition,
                    by=by,
                    reason=reason,
                    timeout_s=timeout_s,
                    on_progress=advance,
                )

    outcome = asyncio.run(rebuilt())
    if as_json:
        print_json(outcome)
        return
    where = f"{plain(outcome.key)} in partition {outcome.partition}"
    since = "a checkpoint" if outcome.from_checkpoint else "the first one"
    folded = f"{outcome.events:,} events folded from {since} on"
    match outcome.done:
        case "sound":
            print(f"{where} is what the events give; nothing was written ({folded})")
        case "deleted":
            print(f"{where} was caused by no event and is deleted; the ledger goes on ({folded})")
        case "rebuilt":
            print(f"{where} is rebuilt; the ledger goes on ({folded})")


def _on_task(
    task_id: str,
    kind: str,
    data: Struct,
    folder: Path,
    timeout_s: float,
    *,
    as_json: bool,
    check: Callable[[TaskStateData], None] = lambda _: None,
) -> None:
    async def question(log: Log) -> TaskOutcome:
        return await operate_on_task(log, task_id, kind, data, timeout_s, check)

    outcome = ask(folder, timeout_s, question)
    if as_json:
        print_json(outcome)
    else:
        _show_task(outcome)


def _show_task(outcome: TaskOutcome) -> None:
    out = console()
    before, after = outcome.before, outcome.after
    done = outcome.event.rpartition(".")[2]
    head = Text(f"{plain(outcome.task_id)} {done}: ").append_text(verdict_text(before.verdict))
    if after.verdict is not before.verdict:
        head.append(" → ").append_text(verdict_text(after.verdict))
    else:
        head.append(", as before")
    if after.status != before.status:
        head.append(f"; {before.status} → {after.status}")
    out.print(head)
    for name, was, now in (
        ("complexity", before.complexity.value, after.complexity.value),
        ("importance", before.importance.value, after.importance.value),
        (_justified(after), _justification(before), _justification(after)),
        ("open phase", before.open_phase or "none", after.open_phase or "none"),
    ):
        if was != now:
            out.print(f"  {name} {was} → {now}")
    for metric in Metric:
        was_cell, cell = task_cell(before.cells, metric), task_cell(after.cells, metric)
        if cell is not None and was_cell is not None and cell.limit != was_cell.limit:
            out.print(
                f"  task {metric_name(metric)}: {amount(cell.used, metric)} of "
                f"{amount(cell.limit, metric)} ({percent(cell_share(cell))}); "
                f"the limit was {amount(was_cell.limit, metric)}"
            )
    for decision in outcome.decisions:
        held = "holds" if decision.enforced else f"not enforced: {decision.unenforced_reason}"
        out.print(f"  decision {decision.number}: {decision_message(decision)} [{held}]")


def _justified(stands: Standing) -> str:
    """Return what is reviewed, with its text: beside the answer that would be the reviewer's."""
    why = stands.justification
    return "justification" if why is None else f"justification ({plain(why)}):"


def _justification(stands: Standing) -> str:
    if stands.importance is not Importance.CRITICAL:
        return "not needed"
    if stands.justification is None:
        return "none"
    answers = {None: "not reviewed", True: "approved", False: "refused"}
    return answers[stands.justification_approved]


def show_all(outcome: AllOutcome, what: str, *, as_json: bool) -> None:
    """Say what an event for every partition did, or print it as JSON."""
    if as_json:
        print_json(outcome)
        return
    counts: Counter[str] = Counter()
    for partition in outcome.partitions:
        counts.update({verdict.value: count for verdict, count in partition.decisions.items()})
    decided = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    said = f"; decided anew: {decided}" if decided else "; no decision changed by it"
    print(f"{what} in {all_partitions(len(outcome.partitions))}{said}")


def _multiplier(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        factor = Decimal(text)
    except InvalidOperation:
        factor = Decimal("NaN")
    if not factor.is_finite() or not 1 < factor <= MULTIPLIER_MAX:
        raise InvalidFieldError("--multiplier", text, f"a number above 1, at most {MULTIPLIER_MAX}")
    return factor


def _limits(texts: list[str]) -> dict[str, CellLimits] | None:
    """Return `{"THINK": {"tokens": 9000}}` for `THINK.tokens=9000`; None where nothing is given."""
    found: dict[str, dict[str, object]] = {}
    for text in texts:
        cell, _, number = text.partition("=")
        name, _, metric = cell.rpartition(".")
        if not name or metric not in tuple(Metric):
            raise InvalidFieldError("--limit", text, LIMIT_ALLOWED)
        try:
            value = Decimal(number)
        except InvalidOperation:
            raise InvalidFieldError("--limit", text, LIMIT_ALLOWED) from None
        whole = metric != Metric.COST_USD
        if not value.is_finite() or value <= 0 or (whole and value != value.to_integral_value()):
            allowed = "a whole number above 0" if whole else "a number above 0"
            raise InvalidFieldError("--limit", text, f"{allowed} after the =")
        if metric in found.setdefault(name, {}):
            raise InvalidFieldError("--limit", text, f"{cell} only once")
        found[name][metric] = int(value) if whole else value
    return {name: msgspec.convert(each, CellLimits) for name, each in found.items()} or None
