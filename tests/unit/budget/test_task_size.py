"""How large the record of an open task is: it is written again with every batch."""

from bench.task_size import PHASES, RECORD_BYTES_MAX, folded, stored


def record_bytes(begun_phases: int) -> int:
    found = stored(folded(3, begun_phases))
    return max(len(value) for key, value in found.items() if key.startswith("TASK-"))


def test_a_task_of_four_planned_phases_with_all_limits_is_small_in_its_first_phase() -> None:
    assert record_bytes(1) < RECORD_BYTES_MAX


def test_each_phase_that_has_begun_adds_little() -> None:
    assert record_bytes(len(PHASES)) - record_bytes(1) < 400 * (len(PHASES) - 1)
