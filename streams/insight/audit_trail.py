"""Who changed what, when and why: what of a task's lifecycle is worth keeping for a year.

Each entry follows from one record and has an id made of its id, so that a record which is read again
changes nothing. Source: budget model, "Governance".
"""

from collections.abc import Mapping

from schemas.alerts import Origin
from schemas.audit import Action, Audit
from schemas.envelope import Envelope
from schemas.fields import Importance
from schemas.outputs import Lifecycle

SOURCE = "stoploss-agents"
TYPE = "stoploss.audit"
UNKNOWN = "unknown"
# What makes a start worth an entry: somebody asked for more than everybody gets.
ASKED_FLAGS = frozenset({"override_below_limit", "overrides_refused", "critical_unjustified"})
_ACTIONS = {
    "reclassified": Action.TASK_RECLASSIFIED,
    "granted": Action.TASK_GRANTED,
    "explained": Action.TASK_EXPLAINED,
    "recovered": Action.TASK_RECOVERED,
    "reviewed": Action.JUSTIFICATION_REVIEWED,
}


def audit_of(record: Envelope[Lifecycle], origin: Origin) -> Envelope[Audit] | None:
    """Return the entry that a change of a task deserves, or None."""
    said = record.data
    action = _action(said)
    if action is None:
        return None
    subject = said.task_id or said.key or record.subject
    entry = Envelope(
        id=f"audit-{record.id}",
        source=SOURCE,
        type=TYPE,
        subject=subject,
        time=record.time,
        data=Audit(
            subject=subject,
            action=action,
            by=said.by or said.owner or UNKNOWN,
            reason=_reason(said, action),
            task_id=said.task_id,
            before=said.previous,
            after=_after(said, action),
            flags=sorted(ASKED_FLAGS.intersection(said.flags)),
            origin=origin,
        ),
    )
    entry.traceparent = record.traceparent
    return entry


def _action(said: Lifecycle) -> Action | None:
    if said.change == "started" and (
        said.importance is Importance.CRITICAL or ASKED_FLAGS.intersection(said.flags)
    ):
        return Action.TASK_CLASSIFIED
    return _ACTIONS.get(said.change)


def _reason(said: Lifecycle, action: Action) -> str | None:
    """Return why, in the words of who did it: a justification is its task's, not of who refuses it."""
    if action is Action.TASK_CLASSIFIED:
        return said.justification
    return said.text or said.reason


def _after(said: Lifecycle, action: Action) -> dict[str, str]:
    """Return what holds now of what the action is about."""
    match action:
        case Action.TASK_GRANTED:
            found: Mapping[str, object | None] = {
                f"{scope}.{metric}": limit
                for scope, limits in said.limits.items()
                for metric, limit in limits.items()
            }
        case Action.JUSTIFICATION_REVIEWED:
            found = {
                "approved": "yes" if said.approved else "no",
                "budgeted_importance": said.budgeted_importance,
            }
        case Action.TASK_EXPLAINED:
            found = {"phase": said.phase}
        case Action.TASK_RECOVERED:
            found = {"action": said.action}
        case _:
            found = {
                "complexity": said.complexity,
                "importance": said.importance,
                "budgeted_importance": said.budgeted_importance,
            }
    return {name: str(value) for name, value in found.items() if value is not None}
