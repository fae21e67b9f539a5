from tests.unit.budget.story import story, all_said


def test_a_grant_takes_the_verdict_back_and_forgets_no_usage() -> None:
    w = story("""
        start  TASK-1 planned=THINK   → continue    # medium, medium: 6,000 tokens
        usage  TASK-1 THINK 9_000     → review      # three levels at once: the highest is said
        grant  TASK-1 ×2              → continue    # 9,000 of 12,000
        usage  TASK-1 THINK 3_000     → notice
        begin TASK-1 THINK
        tick +135m
        finish TASK-1
        tick +2d
    """)
    print(*all_said(w), sep="\n")
