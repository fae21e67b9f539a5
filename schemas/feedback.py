"""What `feedback` holds: answers to "was this block a false positive?"."""

from msgspec import Struct

from schemas.fields import Name, Text


class Feedback(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person's or enforcer's answer to: was this block a false positive?"""

    task_id: Name
    decision_id: Name
    false_positive: bool
    by: Name
    text: Text | None = None


FEEDBACK_TYPES: dict[str, type[Struct]] = {"stoploss.feedback": Feedback}
