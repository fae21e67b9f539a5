"""Children count in their ancestors' task cells, and are held with them."""

import pytest

from schemas.topics import Topic
from streams.budget import families
from tests.unit.budget.story import all_said, story, tell

FAMILY = """
    start ROOT  planned=THINK                 # 6,000
    start CHILD planned=THINK parent=ROOT
    start GRAND planned=THINK parent=CHILD
"""


def test_what_a_child_uses_counts_at_every_depth() -> None:
    world = story(
        FAMILY
        + """
        usage GRAND THINK 5_399  → continue; ROOT continue
        usage GRAND THINK 1      → notice; CHILD notice; ROOT notice
        usage CHILD THINK 600    → CHILD notice; GRAND notice; ROOT notice
    """
    )
    assert all_said(world, Topic.BREACHES) == [
        "GRAND THINK tokens notice",
        "GRAND task tokens notice",
        "CHILD task tokens notice",
        "ROOT task tokens notice",
    ]
    assert world.task("ROOT").tokens.used == 6_000_000
    assert world.task("ROOT").phases == {}


def test_cost_rolls_up_and_latency_does_not() -> None:
    world = story("""
        start ROOT  planned=THINK override.task.cost_usd=1.0
        start CHILD parent=ROOT
        usage CHILD THINK cost=2.0 ms=86_000_000 → ROOT block; block
    """)
    assert all_said(world, Topic.DECISIONS) == [
        "CHILD continue to block from ROOT observe",  # one event, one decision for each
        "ROOT continue to block observe",
    ]
    assert world.task("ROOT").latency.used == 0
    assert [one.cell.metric for one in world.breaches("ROOT")] == ["cost_usd"] * 4


def test_open_descendants_of_a_blocked_task_are_held_and_let_go_with_it() -> None:
    world = story(
        FAMILY
        + """
        start  OTHER planned=THINK parent=ROOT
        finish OTHER
        usage  ROOT THINK 12_000  → block; CHILD block; GRAND block; OTHER continue
        grant  ROOT ×3            → continue; CHILD continue; GRAND continue
    """
    )
    assert all_said(world, Topic.DECISIONS) == [
        "ROOT continue to block observe",
        "CHILD continue to block from ROOT observe",
        "GRAND continue to block from ROOT observe",
        "ROOT block to continue observe",
        "CHILD block to continue observe",
        "GRAND block to continue observe",
    ]
    held = world.decisions("CHILD")[0]
    assert held.message == (
        "ROOT, above this task: the task at 200 % of its token budget (12,000 of 6,000 tokens): "
        "stop until someone investigates or grants more"
    )
    assert (held.used, held.limit) == (12_000, 6_000)


def test_a_child_that_is_at_block_itself_stays_there_when_the_inherited_one_is_lifted() -> None:
    world = story(
        FAMILY
        + """
        usage CHILD THINK 12_000  → block; ROOT block; GRAND block
        grant ROOT ×3             → continue; CHILD block; GRAND block
        grant CHILD ×3            → continue; GRAND continue
    """
    )
    assert all_said(world, Topic.DECISIONS)[:3] == [
        "CHILD continue to block observe",
        "ROOT continue to block observe",
        "GRAND continue to block from CHILD observe",
    ]
    assert "CHILD block to block" not in "".join(all_said(world))


def test_a_child_that_starts_below_a_blocked_task_is_held_at_once() -> None:
    story("""
        start ROOT planned=THINK
        usage ROOT THINK 12_000
        start CHILD parent=ROOT   → block; CHILD continue to block from ROOT observe
        start GRAND parent=CHILD  → block; GRAND continue to block from ROOT observe
    """)


def test_a_late_start_takes_what_stands_below_it_along() -> None:
    story("""
        start ROOT planned=THINK
        usage ROOT THINK 12_000       → block
        start GRAND parent=CHILD      → continue
        start CHILD parent=ROOT       → block; GRAND block
        grant ROOT ×2                 → notice; CHILD continue; GRAND continue
    """)


def test_a_late_start_lets_earlier_usage_roll_up() -> None:
    world = story("""
        start ROOT planned=THINK
        usage CHILD THINK 12_000              → CHILD started; review; ROOT continue
        start CHILD parent=ROOT x=2           → block; ROOT block
    """)
    assert all_said(world, Topic.DECISIONS)[1:] == [
        "CHILD review to block from ROOT observe",
        "ROOT continue to block observe",
    ]
    assert world.task("ROOT").tokens.used == 12_000_000
    last = world.lifecycles("CHILD")[-1]
    assert (last.limits_version, last.parent_task_id, last.flags) == (2, "ROOT", [])


def test_an_unknown_parent_is_opened_as_inferred() -> None:
    world = story("start CHILD parent=ROOT  → ROOT started")
    assert world.lifecycles("ROOT")[0].flags == ["inferred"]
    tell(world, "start ROOT planned=THINK complexity=large  → continue")
    assert world.lifecycles("ROOT")[-1].limits_version == 2


def test_what_a_child_uses_after_its_parents_end_is_published_and_holds_nobody() -> None:
    world = story("""
        mode enforce
        start  ROOT planned=THINK
        start  CHILD planned=THINK parent=ROOT x=10
        finish ROOT
        usage  CHILD THINK 12_000      → ROOT block; block
    """)
    assert all_said(world, Topic.DECISIONS) == [
        "CHILD continue to block from ROOT enforced",  # an ended ancestor's block holds the living
        "ROOT continue to block ended",
    ]


def test_what_an_ended_child_inherited_stays_as_it_was() -> None:
    world = story("""
        start  ROOT planned=THINK
        start  CHILD planned=THINK parent=ROOT
        usage  ROOT THINK 12_000      → CHILD block
        finish CHILD
        grant  ROOT ×10               → continue; CHILD block
        usage  CHILD THINK 1          → block
    """)
    assert len(world.decisions("CHILD")) == 1


def test_whose_block_is_inherited_may_change_unsaid() -> None:
    # The nearer ancestor comes to block by itself: the verdict of those below stays.
    world = story(
        FAMILY
        + """
        usage ROOT THINK 12_000       → GRAND block
        usage CHILD THINK 12_000      → CHILD block; GRAND block
        finish GRAND
        grant CHILD ×4                → block; GRAND block
    """
    )
    assert world.task("GRAND").inherited_from == "CHILD"
    assert len(world.decisions("GRAND")) == 1


def test_a_parent_is_remembered_while_a_child_is() -> None:
    world = story("""
        start ROOT planned=THINK
        start CHILD planned=THINK parent=ROOT
        finish ROOT
        finish CHILD +2d
        usage CHILD THINK 6_000 +23h  → ROOT notice
        tick +1h                      → CHILD gone from tasks; ROOT gone from tasks
    """)
    assert list(world.state.tasks) == []
    assert world.state.children == {}


def test_a_parent_waits_for_the_last_of_its_children() -> None:
    world = story("""
        start ROOT
        start ONE parent=ROOT
        start TWO parent=ROOT
        finish ROOT
        finish ONE +2d
        finish TWO +1h
        tick +23h       → ONE gone from tasks
        tick +1h        → TWO gone from tasks; ROOT gone from tasks
    """)
    assert list(world.state.tasks) == []


def test_a_parent_that_ends_later_outlives_its_children() -> None:
    world = story("""
        start ROOT planned=THINK
        start ONE parent=ROOT
        start TWO parent=ROOT
        usage ONE THINK 3_000
        finish ONE
        tick +1d                      → ONE gone from tasks
        recover ROOT refold           → continue    # what a forgotten child has used stays spent
        usage ROOT THINK 2_400        → notice
        finish TWO
        finish ROOT +1h
        tick +23h                     → TWO gone from tasks
        tick +1h                      → ROOT gone from tasks
    """)
    assert list(world.state.tasks) == []


def test_usage_below_keeps_an_ancestor_from_being_abandoned() -> None:
    world = story("""
        start ROOT
        start CHILD parent=ROOT
        usage CHILD THINK 1 +6d
        tick +6d
    """)
    assert world.state.open_tasks == 2


def test_a_family_has_no_circles() -> None:
    story("""
        start ONE parent=ONE     → refused data.parent_task_id
        start TWO parent=ONE
        start SIX parent=TWO
        start ONE parent=SIX     → refused data.parent_task_id
        start ONE parent=partition/3 → refused data.parent_task_id
    """)


def test_a_family_has_a_bounded_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    assert families.DEPTH_MAX == 64
    monkeypatch.setattr(families, "DEPTH_MAX", 3)
    story("""
        start CHILD parent=ROOT
        start GRAND parent=CHILD
        start LAST  parent=GRAND   → refused data.parent_task_id
        start ROOT  parent=ABOVE   → refused data.parent_task_id
        start LAST  parent=CHILD
    """)


def test_a_start_that_names_another_parent_later_changes_nothing() -> None:
    world = story("""
        start CHILD parent=ROOT
        start CHILD parent=OTHER
    """)
    assert world.lifecycles("CHILD")[-1].parent_task_id == "ROOT"
    assert "OTHER" not in world.state.tasks


def test_a_family_has_one_root_and_all_others_are_below_it() -> None:
    state = story("start A\nstart B parent=A\nstart C parent=B\nstart D parent=A").state
    assert [state.root(state.tasks[one]).task_id for one in "ABCD"] == ["A", "A", "A", "A"]
    assert sorted(state.descendants("A")) == ["B", "C", "D"]
    assert list(state.descendants("C")) == []
