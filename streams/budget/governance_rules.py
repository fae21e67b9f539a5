"""What a policy expects of importance: how many tasks of each, and when a justification is due.

Source: budget model, "Governance".
"""

from msgspec import Struct

from schemas.fields import Importance
from streams.budget.policy_reader import Reader

PERIOD_MS_MAX = 10 * 365 * 24 * 3_600_000
PLACES = 4


class GovernanceRules(Struct, frozen=True, kw_only=True):
    """Shares are of all tasks; `review_due_ms` counts from when a task became critical."""

    critical_requires_review: bool
    critical_share_max: float
    review_due_ms: int
    expected_share: dict[Importance, float]


def read_governance_rules(reader: Reader) -> GovernanceRules:
    """Return the rules in a policy's table; errors go where the policy's go."""
    requires_review = reader.flag("critical_requires_review")
    share_max = reader.decimal("critical_share_max", above=0, at_most=1, places=PLACES)
    review_due_ms = reader.whole("review_due_ms", 1, PERIOD_MS_MAX)
    expected = reader.child("expected_share")
    shares = {
        importance: float(expected.decimal(importance, at_least=0, at_most=1, places=PLACES))
        for importance in Importance
    }
    expected.finish()
    reader.finish()
    return GovernanceRules(
        critical_requires_review=requires_review,
        critical_share_max=float(share_max),
        review_due_ms=review_due_ms,
        expected_share=shares,
    )
