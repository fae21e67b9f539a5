"""What producers send twice is dropped, for each task by itself."""

import pytest

from schemas.topics import Topic
from streams.budget import dedupe
from streams.budget.dedupe import SOURCES_MAX
from streams.budget.policy import policy_from_toml
from tests.unit.budget.story import all_said, story
from tests.unit.budget.world import START_MS, World, record


def tokens(text: str) -> int:
    """What TASK-1 has used in the end, in tokens."""
    return story(text).task("TASK-1").tokens.used // 1_000


@pytest.mark.parametrize(
    ("text", "used"),
    [
        pytest.param(
            """
            usage TASK-1 PR 1    seq=7
            usage TASK-1 PR 20   seq=7 id=other
            usage TASK-1 PR 300  seq=6
            usage TASK-1 PR 4000 seq=9
            """,
            4_001,
            id="at or below the highest sequence of the source",
        ),
        pytest.param(
            """
            usage TASK-1 PR 1    seq=7
            usage TASK-1 PR 20   seq=7 source=other
            """,
            21,
            id="each source has its own",
        ),
        pytest.param(
            """
            usage TASK-1 PR 1    seq=7
            usage TASK-2 PR 20   seq=8
            usage TASK-1 PR 300  seq=8
            """,
            301,
            id="each task has its own",
        ),
        pytest.param(
            """
            usage TASK-1 PR 1    id=a
            usage TASK-1 PR 20   id=a
            usage TASK-1 PR 300  id=b
            usage TASK-1 PR 4000 id=a source=other
            """,
            4_301,
            id="without one by source and id",
        ),
        pytest.param(
            """
            usage TASK-1 PR 1    seq=7 id=a
            usage TASK-1 PR 20   id=a
            """,
            21,
            id="the two ways are apart",
        ),
        pytest.param(
            """
            usage TASK-1 PR 1     seq=0
            usage TASK-1 SLEEP 20 seq=9
            usage TASK-1 PR 300   seq=5
            """,
            301,
            id="a refused event leaves its sequence free",
        ),
    ],
)
def test_duplicates(text: str, used: int) -> None:
    assert tokens(text) == used


def test_without_a_sequence_the_last_ones_are_remembered_and_no_more() -> None:
    policy = policy_from_toml("[dedupe]\nrecent = 3", "short.toml")
    world = story(
        """
        usage TASK-1 PR 1     id=a
        usage TASK-1 PR 20    id=b
        usage TASK-1 PR 300   id=c
        usage TASK-1 PR 1     id=a    → nothing
        usage TASK-1 PR 4000  id=d
        usage TASK-1 PR 20    id=b    → nothing
        usage TASK-1 PR 50000 id=a
        """,
        policy=policy,
    )
    assert world.task("TASK-1").tokens.used == 54_321_000


def test_the_window_of_the_built_in_policy_is_256() -> None:
    world = story("")
    assert world.default_policy.dedupe_recent == 256


def test_of_too_many_sources_the_one_silent_for_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SOURCES_MAX == 256
    monkeypatch.setattr(dedupe, "SOURCES_MAX", 3)
    world = story("""
        usage TASK-1 PR 1     seq=5 source=a
        usage TASK-1 PR 20    seq=5 source=b
        usage TASK-1 PR 300   seq=5 source=c
        usage TASK-1 PR 1     seq=5 source=a  → nothing
        begin TASK-1 PR       seq=6 source=a
        usage TASK-1 PR 4000  seq=1 source=d
        usage TASK-1 PR 1     seq=6 source=a  → nothing   # it went on meanwhile
        usage TASK-1 PR 50000 seq=1 source=b              # forgotten
    """)
    assert world.task("TASK-1").tokens.used == 54_321_000


def test_what_is_for_all_of_a_partition_is_judged_for_the_partition() -> None:
    world = story("""
        start TASK-1 planned=THINK
        grant-all ×2 seq=1 source=cli
        grant-all ×2 seq=1 source=cli   → nothing
        grant-all ×2 id=a
        grant-all ×2 id=a               → nothing
        mode enforce id=a               → nothing
    """)
    assert world.lifecycles()[-1].limits["THINK"]["tokens"] == 24_000
    assert world.state.mode == "observe"


@pytest.mark.parametrize("sequence", ["9223372036854775808", "-1", "x", "+1", "1.0", "٣"])
def test_a_sequence_is_digits_of_63_bits(sequence: str) -> None:
    world = World()
    text = record("task.started", "TASK-1", "e", {}, START_MS, sequence=7)
    world.take(text.replace(b"00000000000000000007", sequence.encode()))
    assert all_said(world, Topic.DEAD_LETTERS) == ["refused sequence"]


def test_the_largest_sequence_is_one() -> None:
    assert tokens(f"usage TASK-1 PR 5 seq={2**63 - 1}") == 5
