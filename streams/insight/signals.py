"""What agents of single partitions tell the one that looks at all tasks, on a topic of their own.

A signal is small, and says of which record it follows. Most are *counted*: they follow from the
records of one topic alone, so they come in the same order whenever that topic is read, and the highest
place that was counted tells a repeated one (`windows.is_new`). A record may tell several that governance
asks for, at most one for each question, so those are counted question by question (`sequence_of`). A signal that takes several topics comes
in another order after a restart; it only *sets* something, so that repeating it is harmless.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from schemas.alerts import Origin
from schemas.audit import Action, Audit
from schemas.envelope import Envelope, epoch_ms_of
from schemas.errors import InvalidFieldError
from schemas.feedback import Feedback
from schemas.fields import NAME_LENGTH_MAX, Complexity, Importance, Verdict
from schemas.health import Health
from schemas.quantiles import check_histogram
from schemas.sketches import Histogram
from streams.budget.alert_rules import AlertRules
from streams.budget.governance_rules import GovernanceRules
from streams.budget.policy import InvalidPolicyError, default_governance_rules, policy_from_json
from streams.insight.audit_trail import UNKNOWN
from streams.insight.task_facts import Place, place_of


class SignalBase(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """When it happened, by the record that tells it; a record tells at most one that is counted."""

    at_ms: int
    origin: Origin


class TaskBegan(SignalBase, frozen=True, tag="task_began"):
    """A task was opened; counted. `is_late`: it completes one that usage had opened as medium."""

    importance: Importance
    budgeted_importance: Importance
    complexity: Complexity
    task_type: str | None = None
    is_late: bool = False


class TaskBlocked(SignalBase, frozen=True, tag="task_blocked"):
    """A task came to block for the first time, by its own use; counted.

    `enforced` False: it would have been held.
    """

    enforced: bool


class BlockClassed(SignalBase, frozen=True, tag="block_classed"):
    """Of which tier (`importance/complexity`) a task was when it was blocked; set.

    `as_of` is the input that gave it this class: a later one that still came before the block is right.
    """

    decision_id: str
    tier: str
    as_of: int


class BlockAnswered(SignalBase, frozen=True, tag="block_answered"):
    """Somebody said whether a block was a false positive; counted, the last answer stands."""

    decision_id: str
    false_positive: bool


class CallsMade(SignalBase, frozen=True, tag="calls_made"):
    """Model calls that a run reports on top of what it reported before; counted.

    A revision may correct an earlier one, so each may be below 0.
    """

    calls: int
    unknown: int
    estimated: int


class SourceHeard(SignalBase, frozen=True, tag="source_heard"):
    """How an enforcer or a ledger is; counted."""

    source: str
    queue_depth: int | None = None
    transition_ms: Histogram | None = None
    batch_failures: int | None = None


class RulesSet(SignalBase, frozen=True, tag="rules_set"):
    """A policy says when alerts fire from here on; counted.

    It is a signal, so that whoever folds the signals again judges each by the same rules.
    """

    rules: AlertRules
    governance: GovernanceRules = field(default_factory=default_governance_rules)


class TaskClassed(SignalBase, frozen=True, tag="task_classed"):
    """A task that began at `began_ms` is of this importance, and no longer of `previous`; counted.

    `previous` None: it was not classified before.
    """

    began_ms: int
    importance: Importance
    previous: Importance | None = None


class ReviewAwaited(SignalBase, frozen=True, tag="review_awaited"):
    """A task is critical, and nobody has reviewed why yet; counted.

    `why` and `by` are for people, and may be shortened.
    """

    task_id: str
    by: str
    why: str


class ReviewSettled(SignalBase, frozen=True, tag="review_settled"):
    """There is nothing to review any more, for the reason `how`; counted.

    `is_over`: nor will there be, since the task has ended.
    """

    task_id: str
    how: str
    is_over: bool = False


class ReportRead(SignalBase, frozen=True, tag="report_read"):
    """Somebody read a report; counted."""

    reader: str


class Tick(Struct, frozen=True, kw_only=True, tag_field="type", tag="tick"):
    """Time passed, whether or not anything happened."""

    at_ms: int


Counted = TaskBegan | TaskBlocked | BlockAnswered | CallsMade | SourceHeard | RulesSet
Governed = TaskClassed | ReviewAwaited | ReviewSettled | ReportRead
Signal = Counted | Governed | BlockClassed | Tick

_DECODER: msgspec.json.Decoder[Signal] = msgspec.json.Decoder(Signal)


def decode_signal(value: bytes) -> Signal:
    """Return what was encoded as JSON.

    Raises:
        schemas.refusal.UNREADABLE: it is no signal.
    """
    return _DECODER.decode(value)


def sequence_of(signal: Signal) -> str:
    """Return the name under which a counted signal is in order with others of its topic."""
    match signal:
        case TaskClassed():
            return "classes"
        case ReviewAwaited() | ReviewSettled():
            return "reviews"
        case ReportRead():
            return "reads"
        case _:
            return ""


def from_health(record: Envelope[Health], origin: Origin, appended_ms: int) -> SourceHeard:
    """Return what a record of `health` tells.

    Args:
        appended_ms: when the broker had it; the clocks of enforcers may be wrong.

    Raises:
        InvalidFieldError: its buckets cannot be merged with ours.
    """
    said = record.data
    transition_ms, ledger = said.transition_ms, said.ledger
    if transition_ms is not None:
        check_histogram("data.transition_ms", transition_ms)
    return SourceHeard(
        at_ms=appended_ms,
        origin=origin,
        source=said.source,
        queue_depth=said.queue_depth,
        transition_ms=transition_ms,
        batch_failures=None if ledger is None else ledger.batch_failures,
    )


def from_feedback(record: Envelope[Feedback], origin: Origin) -> BlockAnswered:
    """Return what an answer tells.

    Raises:
        InvalidFieldError: its time is none.
    """
    return BlockAnswered(
        at_ms=at_ms_of(record),
        origin=origin,
        decision_id=record.data.decision_id,
        false_positive=record.data.false_positive,
    )


def from_audit(record: Envelope[Audit], origin: Origin) -> RulesSet | None:
    """Return what a policy that was set says of alerts; None of all else that was done.

    Raises:
        InvalidFieldError: its time is none, or the policy is none that the ledger would take.
    """
    said = record.data
    if said.action is not Action.POLICY_SET or said.policy is None:
        return None
    try:
        policy = policy_from_json(msgspec.json.encode(said.policy), "data.policy")
    except InvalidPolicyError as error:
        first = error.errors[0]
        raise InvalidFieldError(f"data.policy.{first.field}", first.value, first.allowed) from error
    return RulesSet(
        at_ms=at_ms_of(record), origin=origin, rules=policy.alerts, governance=policy.governance
    )


def report_read(record: Envelope[Audit], origin: Origin) -> ReportRead | None:
    """Return what an entry says of a report that was read; None of all else that was done.

    Raises:
        InvalidFieldError: its time is none.
    """
    said = record.data
    if said.action is not Action.REPORT_READ:
        return None
    reader = said.by[:NAME_LENGTH_MAX] or UNKNOWN
    return ReportRead(at_ms=at_ms_of(record), origin=origin, reader=reader)


def at_ms_of(record: Envelope[Any]) -> int:
    """Return when a record says that it was made, in milliseconds since 1970.

    Raises:
        InvalidFieldError: it is not RFC 3339 with a time zone.
    """
    try:
        return epoch_ms_of(record.time)
    except ValueError as error:
        raise InvalidFieldError(
            "time", record.time, "RFC 3339, such as 2026-11-26T12:00:00Z"
        ) from error


def checked_place(record: Envelope[Any]) -> Place:
    """Return where the input of one of the ledger's records stands.

    Raises:
        InvalidFieldError: its id is none of the ledger's.
    """
    try:
        return place_of(record.id)
    except ValueError as error:
        raise InvalidFieldError("id", record.id, "{partition}-{offset}-{index}") from error


def is_at_least(verdict: Verdict, level: Verdict) -> bool:
    """Tell whether a verdict is as severe as a level, or more."""
    return _SEVERITY[verdict] >= _SEVERITY[level]


_SEVERITY: Mapping[Verdict, int] = {verdict: order for order, verdict in enumerate(Verdict)}
