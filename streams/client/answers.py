"""What `Verdicts.verdict` answers, and how it follows from decision, feed and kill switch.

kill switch on                         held by nobody; the true verdict is shown
heartbeat older than 30 s, fail open   continue, not enforced, reason `stale_feed`
the same, fail closed                  block, reason `stale_feed`; not where the mode holds nobody
a decision                             that
none                                   continue
"""

import enum

from msgspec import Struct, structs

from schemas.fields import Fail, Mode, Verdict
from schemas.outputs import Decision

KILL_SWITCH = "kill_switch"
STALE_FEED = "stale_feed"


class Reason(enum.StrEnum):
    """Where an answer comes from."""

    NO_DECISION = "no_decision"
    DECISION = "decision"
    STALE_FEED = "stale_feed"


class TaskVerdict(Struct, frozen=True, kw_only=True, gc=False):
    """What the enforcer is told about a task.

    `held` is the one thing to obey: the task must stop until somebody investigates or grants more.
    `enforced` says whether the verdict counts; if not, `unenforced_reason` says why (observe,
    partial, breaker, ended, kill_switch, stale_feed). `message` is for people. `inherited_from` is the
    task above whose block it is.
    """

    task_id: str | None = None
    verdict: Verdict = Verdict.CONTINUE
    enforced: bool = True
    held: bool = False
    reason: Reason = Reason.NO_DECISION
    unenforced_reason: str | None = None
    message: str = ""
    decision_id: str | None = None
    number: int | None = None
    inherited_from: str | None = None
    mode: Mode | None = None
    partition: int | None = None

    @property
    def explanation_owed(self) -> bool:
        """Whether a written explanation is asked for: at review, and at a block of its own."""
        return self.verdict in (Verdict.REVIEW, Verdict.BLOCK) and self.inherited_from is None


CONTINUE = TaskVerdict()


def of_decision(decision: Decision, decision_id: str, partition: int) -> TaskVerdict:
    """Return what a decision says while the feed is fresh and no switch is thrown."""
    return TaskVerdict(
        task_id=decision.task_id,
        verdict=decision.verdict,
        enforced=decision.enforced,
        held=decision.enforced and decision.verdict is Verdict.BLOCK,
        reason=Reason.DECISION,
        unenforced_reason=decision.unenforced_reason,
        message=decision.message,
        decision_id=decision_id,
        number=decision.number,
        inherited_from=decision.inherited_from,
        mode=decision.mode,
        partition=partition,
    )


def unheld(answer: TaskVerdict) -> TaskVerdict:
    """Return the answer under the kill switch."""
    return structs.replace(
        answer,
        enforced=False,
        held=False,
        unenforced_reason=answer.unenforced_reason or KILL_SWITCH,
    )


def stale(answer: TaskVerdict, fail: Fail, mode: Mode | None) -> TaskVerdict:
    """Return the answer while the ledger of the task's partition is not heard of.

    Args:
        mode: of the last heartbeat; observe holds nobody, also not for want of news.
    """
    known = f"; the last known verdict was {answer.verdict.value}" if answer.number else ""
    said = f"no fresh heartbeat of the budget ledger, fail {fail.value}{known}"
    if fail is Fail.OPEN:
        return structs.replace(
            answer,
            verdict=Verdict.CONTINUE,
            enforced=False,
            held=False,
            reason=Reason.STALE_FEED,
            unenforced_reason=STALE_FEED,
            message=said,
        )
    holds = mode is not Mode.OBSERVE
    return structs.replace(
        answer,
        verdict=Verdict.BLOCK,
        enforced=holds,
        held=holds,
        reason=Reason.STALE_FEED,
        unenforced_reason=None if holds else Mode.OBSERVE.value,
        message=said,
    )
