"""`stoploss promote` and `demote`: enforcement is earned step by step, and taken back at once."""

from typing import Annotated

import typer
from msgspec import Struct

from schemas.errors import InvalidFieldError
from schemas.events import ModeSetData
from schemas.fields import Mode
from schemas.topics import BY_PARTITION, Topic
from streams.cli.exits import AnswerIsNoError
from streams.cli.modes import set_mode
from streams.cli.observing import TOPICS, situation_of
from streams.cli.operating import AllOutcome
from streams.cli.operators import show_all
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, By, Dir, Json, Reason, TimeoutS, named
from streams.cli.reading import Log, opened
from streams.cli.shot import ask, ask_place
from streams.cli.show import console, plain, print_json, table
from streams.cli.values import choice
from streams.insight.numbers import counted
from streams.insight.promotion import STEPS, Promotion, next_mode, promotion
from streams.kafka.settings import Settings

EARNED = (Mode.PARTIAL, Mode.ENFORCE)
LESS = (Mode.OBSERVE, Mode.PARTIAL)
PROMOTED, FORCED, DEMOTED = "promoted", "forced", "demoted"
ALL_TOPICS = tuple({*BY_PARTITION, *TOPICS, Topic.AUDIT})


class PromoteAnswer(Struct, frozen=True, kw_only=True):
    """What a promotion found, and what it did; `outcome` None: nothing was written."""

    promotion: Promotion
    forced: bool
    outcome: AllOutcome | None


class NotPromotedError(AnswerIsNoError):
    """A condition does not hold, and nobody has said to go on regardless."""

    def __init__(self, found: Promotion) -> None:
        failing = found.failing
        names = ", ".join(each.name for each in failing)
        do = "does" if len(failing) == 1 else "do"
        super().__init__(
            f"not promoted to {found.to.value}: {counted(len(failing), 'condition')} {do} not hold "
            f"({names}); nothing was written"
        )


class NotLessError(AnswerIsNoError):
    """A demotion would hold more than is held now."""

    def __init__(self, to: Mode, modes: list[Mode]) -> None:
        now = ", ".join(sorted({mode.value for mode in modes})) or "not known"
        super().__init__(
            f"--to: {to.value} may hold more than the mode that is set ({now}); use observe, or "
            "stoploss promote"
        )


def promote(
    *,
    to: Annotated[
        Mode | None,
        typer.Option(
            metavar="partial|enforce",
            parser=choice("--to", Mode),
            help="The mode to enter; the next one if left out.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Although a condition does not hold; say why.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; kept in the log. Needed with --force.")
    ] = None,
    by: By = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Enter the next mode, where what was observed allows it: observe, partial, enforce.

    It prints every condition with its value, and does nothing where one does not hold. Tasks count that
    began under the running policy; of a block of one that has finished it is assumed that it was wrong,
    until somebody says otherwise.

    Example: stoploss promote --by ann
    """
    if to is Mode.OBSERVE:
        raise InvalidFieldError("--to", to.value, "partial or enforce; stoploss demote takes back")
    if force and not (reason or "").strip():
        raise InvalidFieldError("--reason", reason, "why, with --force")
    who = named(by)

    async def question(settings: Settings) -> PromoteAnswer:
        async with opened(settings, ALL_TOPICS) as log:
            situation = await situation_of(log)
            found = promotion(situation, to or next_mode(situation.modes))
            outcome = None
            if found.holds or force:
                outcome = await _promote(log, found, who, reason, timeout_s)
            return PromoteAnswer(
                promotion=found, forced=outcome is not None and not found.holds, outcome=outcome
            )

    answer = ask_place(folder, timeout_s, question)
    if as_json:
        print_json(answer)
    else:
        _show(answer)
    if answer.outcome is None:
        raise NotPromotedError(answer.promotion)


async def _promote(
    log: Log, found: Promotion, who: str, reason: str | None, timeout_s: float
) -> AllOutcome:
    flags = [PROMOTED] if found.holds else [PROMOTED, FORCED]
    data = ModeSetData(mode=found.to, by=who, reason=reason or "every condition holds")
    after = {each.name: each.value for each in found.conditions if each.name != "mode"}
    failing = ", ".join(each.name for each in found.failing)
    if failing:
        after["not held"] = failing
    return await set_mode(log, data, timeout_s, after=after, flags=flags)


def _show(answer: PromoteAnswer) -> None:
    out = console()
    found = answer.promotion
    made = table(f"FOR {found.to.value.upper()}", "IS", "MUST BE", "")
    for each in found.conditions:
        made.add_row(each.name, plain(each.value), each.wanted, "holds" if each.holds else "no")
    out.print(made)
    if found.advice is not None:
        out.print(found.advice)
    if answer.outcome is not None:
        what = f"promoted to {found.to.value}"
        show_all(answer.outcome, f"{what}, by force" if answer.forced else what, as_json=False)


def demote(
    *,
    reason: Reason,
    to: Annotated[
        Mode,
        typer.Option(
            metavar="observe|partial",
            parser=choice("--to", Mode),
            help="The mode to go back to.",
        ),
    ] = Mode.OBSERVE,
    by: By = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Take enforcement back, at once: to observe, in which nobody is held.

    No condition is asked. Measuring goes on.

    Example: stoploss demote --reason "blocks are wrong since the update"
    """
    if to not in LESS:
        raise InvalidFieldError("--to", to.value, "observe or partial")
    data = ModeSetData(mode=to, by=named(by), reason=reason)

    async def question(log: Log) -> AllOutcome:
        if to is not Mode.OBSERVE:
            modes = [state.mode for state in (await log.ledger_view()).partitions.values()]
            if not modes or min(map(STEPS.index, modes)) < STEPS.index(to):
                raise NotLessError(to, modes)
        return await set_mode(log, data, timeout_s, flags=[DEMOTED])

    show_all(ask(folder, timeout_s, question), f"demoted to {to.value}", as_json=as_json)
