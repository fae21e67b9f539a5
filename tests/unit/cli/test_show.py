"""What commands print."""

import pytest

from schemas.fields import Verdict
from streams.cli.show import all_partitions, bar
from streams.cli.tables import shortened


def test_one_partition_is_the_only_one() -> None:
    assert [all_partitions(count) for count in (1, 4)] == ["the only partition", "all 4 partitions"]


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (None, ""),
        (0.0, "···│··"),
        (0.5, "██·│··"),
        (1.0, "███│··"),
        (2.0, "██████"),
        (9.0, "██████"),
    ],
)
def test_the_bar_is_full_at_twice_the_limit(share: float | None, shown: str) -> None:
    assert bar(share, Verdict.WARN).plain == shown


def test_an_id_keeps_its_beginning_and_its_end_and_steers_no_terminal() -> None:
    assert shortened("TASK-17", 24) == "TASK-17"
    assert shortened("TASK\x1b[2J\n17") == "TASK�[2J�17"
    assert shortened("claude-code/e5fdee4fc2bb1843", 24) == "claude-code…e4fc2bb1843"
