"""Critical needs a reason, and the reason may need a review."""

from schemas.fields import Number
from streams.budget.policy import default_governance_rules, policy_from_toml
from tests.unit.budget.story import story
from tests.unit.budget.world import World

STRICT = policy_from_toml("[governance]\ncritical_requires_review = true", "strict.toml")


def budget(world: World) -> tuple[Number, str, list[str]]:
    """Of THINK: 6,000 tokens × importance; as what it is budgeted, and the flags."""
    last = world.lifecycles()[-1]
    assert last.budgeted_importance is not None
    return last.limits["THINK"]["tokens"], last.budgeted_importance.value, last.flags


def test_critical_with_a_justification_is_critical() -> None:
    world = story('start TASK-1 importance=critical why="a hole in the login"')
    assert budget(world) == (12_000, "critical", [])
    assert world.lifecycles()[-1].justification == "a hole in the login"


def test_critical_without_one_is_budgeted_as_high_and_flagged() -> None:
    for words in ("", 'why="  "', "why=null"):
        text = f"start TASK-1 importance=critical {words}"
        world = story(text.replace("why=null", ""))
        assert budget(world) == (9_000, "high", ["critical_unjustified"])
        assert world.lifecycles()[-1].importance == "critical"


def test_a_refused_justification_lowers_the_limits_and_an_approved_one_raises_them() -> None:
    world = story("""
        start  TASK-1 importance=critical why=outage planned=THINK
        usage  TASK-1 THINK 8_500          → continue
        review TASK-1 refuse reason=no     → notice      # 8,500 of 9,000
    """)
    assert budget(world) == (9_000, "high", ["critical_refused"])
    last = world.lifecycles()[-1]
    assert (last.by, last.approved, last.reason, last.limits_version) == ("ada", False, "no", 2)
    again = story("""
        start  TASK-1 importance=critical why=outage planned=THINK
        review TASK-1 refuse
        usage  TASK-1 THINK 18_000         → block
        usage  TASK-1 THINK 500
        review TASK-1 approve              → review
    """)
    assert budget(again) == (12_000, "critical", [])
    over = again.lifecycles()[-1].overshoot
    assert over is not None
    assert (over.at_block, over.used, over.overshoot) == (18_000, 18_500, 500)


def test_a_review_that_changes_nothing_judges_nothing_anew() -> None:
    world = story("""
        start  TASK-1 importance=critical why=outage
        review TASK-1 approve
        start  TASK-2
        review TASK-2 refuse
    """)
    assert [one.limits_version for one in world.lifecycles()] == [1] * 4


def test_a_review_reaches_the_phases_even_where_the_task_has_an_override() -> None:
    world = story(
        """
        start  TASK-1 importance=critical why=outage planned=THINK override.task.tokens=9 \
               override.task.latency_ms=9
        review TASK-1 refuse
    """.replace("\\\n", " ")
    )
    assert budget(world)[0] == 9_000


def test_an_approval_can_bring_the_justification_that_was_missing() -> None:
    world = story("""
        start  TASK-1 importance=critical
        review TASK-1 approve             # of what?
        review TASK-1 approve reason="data loss"
    """)
    before, after = world.lifecycles()[1:]
    assert (before.budgeted_importance, after.budgeted_importance) == ("high", "critical")
    assert after.justification == "data loss"


def test_a_policy_can_ask_for_a_review_first() -> None:
    world = story('start TASK-1 importance=critical why="outage"', policy=STRICT)
    assert budget(world) == (9_000, "high", ["critical_unreviewed"])
    world = story(
        """
        start  TASK-1 importance=critical why=outage
        review TASK-1 approve
        """,
        policy=STRICT,
    )
    assert budget(world) == (12_000, "critical", [])


def test_the_reason_of_a_reclassification_justifies_it() -> None:
    world = story("""
        start      TASK-1 importance=low
        reclassify TASK-1 importance=critical reason="data is being lost" by=bob
    """)
    last = world.lifecycles()[-1]
    assert budget(world) == (12_000, "critical", ["reclassified"])
    assert (last.justification, last.by) == ("data is being lost", "bob")
    assert last.previous == {"complexity": "medium", "importance": "low"}


def test_a_new_reason_has_to_be_reviewed_anew() -> None:
    world = story(
        """
        start      TASK-1 importance=critical why=outage
        review     TASK-1 approve
        reclassify TASK-1 importance=high
        reclassify TASK-1 importance=critical
        """,
        policy=STRICT,
    )
    assert budget(world) == (9_000, "high", ["reclassified", "critical_unreviewed"])


def test_without_a_policy_the_users_own_numbers_hold() -> None:
    rules = default_governance_rules()
    assert (float(rules.critical_share_max), rules.review_due_ms) == (0.1, 24 * 3_600_000)
    assert rules.critical_requires_review is False
