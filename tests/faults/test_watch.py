"""How long something waited: from its append to the commit that covers it."""

from tests.faults.watch import Progress


def test_the_oldest_that_a_commit_covers_is_what_waited() -> None:
    progress = Progress()
    progress.appended(0, append_ms=1_000)
    progress.appended(10, append_ms=2_000)
    progress.appended(20, append_ms=3_000)
    progress.committed(15, wall_ms=5_000)
    assert progress.longest_ms == 4_000
    progress.longest_ms = 0
    progress.committed(30, wall_ms=5_500)
    assert progress.longest_ms == 2_500
    assert (progress.next_offset, progress.appended_offset) == (30, 20)


def test_what_is_told_after_it_was_committed_has_not_waited() -> None:
    progress = Progress()
    progress.committed(15, wall_ms=5_000)
    progress.appended(10, append_ms=1_000)
    progress.committed(30, wall_ms=9_000)
    assert progress.longest_ms == 0


def test_a_record_that_is_read_again_takes_nothing_back() -> None:
    progress = Progress()
    progress.committed(15, wall_ms=5_000)
    progress.committed(10, wall_ms=5_000)
    assert progress.next_offset == 15
