"""What `audit` holds: who changed what, when and why, and who read what."""

import enum
from typing import Any

from msgspec import Struct

from schemas.alerts import Origin
from schemas.fields import Name, Text


class Action(enum.StrEnum):
    """What was done."""

    TASK_CLASSIFIED = "task_classified"  # a task started as critical, or with overrides
    TASK_RECLASSIFIED = "task_reclassified"
    TASK_GRANTED = "task_granted"
    TASK_EXPLAINED = "task_explained"
    TASK_RECOVERED = "task_recovered"
    JUSTIFICATION_REVIEWED = "justification_reviewed"
    MODE_SET = "mode_set"
    POLICY_SET = "policy_set"
    ALL_GRANTED = "all_granted"
    REPORT_READ = "report_read"


class Audit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change: `subject` is a task id, `mode`, `policy`, `grant` (to all) or `report/TASK`.

    `before` and `after` hold what changed, by field. `origin` is the record that says it, where one
    does; `policy` is the whole policy, normalised, of a `policy_set`.
    """

    subject: Name
    action: Action
    by: str
    reason: Text | None = None
    task_id: str | None = None
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    flags: list[str] = []
    origin: Origin | None = None
    policy: dict[str, Any] | None = None


AUDIT_TYPES: dict[str, type[Struct]] = {"stoploss.audit": Audit}
