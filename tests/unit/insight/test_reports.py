"""A report: three lines that say what to do, then what they rest on."""

from pathlib import Path

import msgspec
import pytest

from schemas.baselines import Baseline, MetricBaseline
from schemas.envelope import Envelope
from schemas.fields import Cause, Complexity, Importance, Metric
from schemas.quantiles import quantile, with_value
from schemas.reports import ExplanationReport, LimitsChange, Report, Similar
from schemas.sketches import Histogram
from schemas.state import TaskStateData
from streams.insight.advice import what_happened, what_to_do
from streams.insight.report_text import markdown, plain_text, summary_text
from streams.insight.reports import Below, Material, compose, report_link
from streams.insight.similar import Baselines
from streams.insight.summary import change_text
from streams.insight.task_facts import NOWHERE
from tests.unit.budget.story import story
from tests.unit.insight.told import facts_of, records

HERE = Path(__file__).parent


def baseline(
    phase: str,
    *used: float,
    metric: Metric = Metric.TOKENS,
    complexity: Complexity = Complexity.MEDIUM,
    importance: Importance = Importance.MEDIUM,
) -> Baseline:
    sketch = Histogram()
    for value in used:
        sketch = with_value(sketch, value)
    p50, p75, p90, p99 = (quantile(sketch, share) or 0.0 for share in (0.5, 0.75, 0.9, 0.99))
    found = MetricBaseline(
        count=len(used), sum=sum(used), p50=p50, p75=p75, p90=p90, p99=p99, sketch=sketch
    )
    return Baseline(
        phase=phase,
        complexity=complexity,
        importance=importance,
        executions=len(used),
        metrics={metric: found},
    )


USUAL = Baselines([baseline("THINK", *[3_500] * 5), baseline("IMPLEMENT", *[3_000] * 6)])


def report_on(text: str, baselines: Baselines = USUAL, *, with_state: bool = False) -> Report:
    """Tell a history; report on TASK-1, with what `tasks` says of it where that is asked for."""
    world = story(text)
    facts = facts_of(records(world))
    task = facts["TASK-1"]
    state = None
    if with_state:
        state = msgspec.json.decode(world.records["TASK-1"], type=Envelope[TaskStateData]).data
    children = [facts[child] for child in task.children]
    return compose(Material(facts=task, baselines=baselines, children=children, state=state))


def test_a_task_within_its_budget_has_nothing_to_do() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK,IMPLEMENT
        usage  TASK-1 THINK 3_100
        end    TASK-1 THINK completed ms=20000
        usage  TASK-1 IMPLEMENT 2_700
        end    TASK-1 IMPLEMENT completed ms=4000
        finish TASK-1 completed
    """)
    assert report.summary == [
        "Within budget: 61 % of its token budget (5,800 of 9,500 tokens); completed.",
        "Nothing stood out: every phase used what similar ones use.",
        "Nothing to do.",
    ]
    assert (report.final, report.findings, report.explanation) == (True, [], "none")
    assert summary_text(report).splitlines()[0].startswith("✅ Within budget")


def test_a_phase_over_its_budget_is_named_with_its_cause_and_what_similar_ones_use() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK,IMPLEMENT
        begin  TASK-1 THINK
        usage  TASK-1 THINK 8_000 files=30 out=2000
        end    TASK-1 THINK backtracked ms=10000
        begin  TASK-1 THINK +1m
        usage  TASK-1 THINK 1_000
        end    TASK-1 THINK completed ms=20000
        usage  TASK-1 IMPLEMENT 700
        end    TASK-1 IMPLEMENT completed ms=4000
        finish TASK-1 completed
    """)
    assert report.summary == [
        "Over budget: 123 % of its token budget (11,700 of 9,500 tokens); at warn; completed.",
        f"{report.findings[0]} 3 more below.",
        "Name the files that matter before THINK begins, or give research a limit of its own.",
    ]
    assert [
        finding.replace("medium tasks of medium importance", "…") for finding in report.findings
    ] == [
        "THINK came to 166 % of its token budget (10,000 of 6,000 tokens): extensive research, 30 files read by then; now 183 % (11,000 of 6,000 tokens).",
        "The task came to 123 % of its token budget (11,700 of 9,500 tokens): extensive research, 30 files read.",
        "IMPLEMENT used 700 tokens; … average 3,000 tokens: 76 % below.",
        "THINK used 11,000 tokens; … average 3,500 tokens: 214 % above.",
    ]
    assert [(phase.phase, phase.attempts, phase.outcome) for phase in report.phases] == [
        ("THINK", 2, "completed"),
        ("IMPLEMENT", 1, "completed"),
    ]
    assert report.explanation == "asked"


def test_at_review_an_explanation_is_owed_until_somebody_gives_one() -> None:
    history = """
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 9_100      → review
    """
    owed = report_on(history)
    assert owed.explanation == "owed"
    assert owed.summary[2] == "Write down why: `stoploss explain TASK-1 --text …`."
    given = report_on(f'{history}\nexplain TASK-1 "the migration was missing"')
    assert given.explanation == "none"
    assert [(each.by, each.text) for each in given.explanations] == [
        ("ada", "the migration was missing")
    ]


def test_an_explanation_before_the_next_block_does_not_answer_for_it() -> None:
    report = report_on("""
        start   TASK-1 planned=THINK
        usage   TASK-1 THINK 9_100      → review
        explain TASK-1 "the migration was missing"
        usage   TASK-1 THINK 9_100      → block
    """)
    assert report.explanation == "owed"


def test_a_task_at_block_is_to_be_investigated_and_asked_about() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 13_100      → block
    """)
    assert report.summary[0] == (
        "Over budget: 218 % of its token budget (13,100 of 6,000 tokens); at block."
    )
    assert report.summary[2] == (
        "Investigate; then grant more (`stoploss grant`) or end the task. "
        "Write down why: `stoploss explain TASK-1 --text …`."
    )
    (block,) = report.blocks
    assert (block.enforced, block.false_positive) == (False, None)
    assert "Was this a false positive?" in plain_text(report)
    assert summary_text(report).startswith("🛑")


def test_where_most_similar_tasks_are_over_a_limit_the_limit_is_what_to_change() -> None:
    report = report_on(
        """
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 6_500 out=500
        end    TASK-1 THINK completed ms=20000
        """,
        Baselines([baseline("THINK", *[9_000] * 5)]),
    )
    assert report.summary[2] == (
        "Raise the token budget of THINK: half of medium tasks of medium importance use more than "
        "its 6,000 tokens."
    )


def test_what_children_use_counts_for_their_parent() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK
        start  TASK-2 parent=TASK-1 planned=THINK
        usage  TASK-2 THINK 5_000 cost=0.25
        end    TASK-2 THINK completed ms=20000
        finish TASK-2 completed
        finish TASK-1 completed
    """)
    assert report.metrics[Metric.TOKENS].used == 5_000
    assert report.metrics[Metric.LATENCY_MS].used == 0


def test_what_an_open_phase_has_used_is_known_from_tasks_or_from_what_it_crossed() -> None:
    history = """
        start  TASK-1 planned=THINK
        begin  TASK-1 THINK
        usage  TASK-1 THINK 5_500       → notice
        usage  TASK-1 THINK 10
    """
    assert report_on(history).metrics[Metric.TOKENS].used == 5_500
    with_state = report_on(history, with_state=True)
    assert with_state.metrics[Metric.TOKENS].used == 5_510
    (phase,) = with_state.phases
    assert (phase.attempts, phase.counters["input_tokens"]) == (1, 5_510)
    assert phase.metrics[Metric.TOKENS].share == 0.9183
    assert not with_state.final


def test_a_report_says_of_no_limit_that_a_part_was_used_which_was_not() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK
        grant  TASK-1 ×10
        usage  TASK-1 THINK 53_998
        finish TASK-1 completed
    """)
    (phase,) = report.phases
    assert phase.metrics[Metric.TOKENS].share == 0.8999
    assert report.summary[0] == (
        "Within budget: 89 % of its token budget (53,998 of 60,000 tokens); completed."
    )
    over = report_on("""
        start  TASK-1 planned=THINK
        grant  TASK-1 ×10
        usage  TASK-1 THINK 60_001
        finish TASK-1 completed
    """)
    assert over.metrics[Metric.TOKENS].share == 1
    assert over.summary[0].startswith("Over budget: 100 % of its token budget (60,001 of 60,000")
    assert summary_text(over).startswith("⚠️")


def test_an_open_phase_is_not_yet_below_what_is_usual() -> None:
    report = report_on(
        """
        start  TASK-1 planned=THINK
        begin  TASK-1 THINK
        usage  TASK-1 THINK 10
        """,
        with_state=True,
    )
    assert report.findings == []


def test_a_level_that_a_grant_took_back_is_not_that_of_the_cell_any_more() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 9_100      → review
        grant  TASK-1 ×10              → continue
    """)
    assert report.metrics[Metric.TOKENS].level == "continue"
    assert report.metrics[Metric.TOKENS].limit == 60_000


def test_a_task_at_block_that_was_explained_is_only_to_be_investigated() -> None:
    report = report_on("""
        start   TASK-1 planned=THINK
        usage   TASK-1 THINK 13_100      → block
        explain TASK-1 "half of it was research"
    """)
    assert report.summary[2] == "Investigate; then grant more (`stoploss grant`) or end the task."


@pytest.mark.parametrize(
    ("before", "owed"),
    [
        pytest.param('explain TASK-1 "half of it was research"', "asked", id="it was given"),
        pytest.param("", "owed", id="nobody has given it"),
    ],
)
def test_a_grant_that_lowers_a_block_to_review_asks_for_nothing_new(before: str, owed: str) -> None:
    report = report_on(f"""
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 12_100       → block
        {before}
        grant  TASK-1 ×1.3               → review
    """)
    assert (report.verdict, report.explanation == "owed") == ("review", owed == "owed")


def test_a_block_after_a_grant_asks_again() -> None:
    report = report_on("""
        start   TASK-1 planned=THINK
        usage   TASK-1 THINK 12_100      → block
        explain TASK-1 "half of it was research"
        grant   TASK-1 ×1.3              → review
        usage   TASK-1 THINK 4_000       → block
    """)
    assert report.explanation == "owed"


GRANTED = """
    start  TASK-1 planned=THINK
    usage  TASK-1 THINK 10_000 files=30 out=2000    → block
    grant  TASK-1 ×2 by=ann reason=rush             → notice
    usage  TASK-1 THINK 600 files=4
    end    TASK-1 THINK completed ms=20000
    finish TASK-1 completed
"""


def test_after_a_grant_a_crossing_is_told_as_it_was_beside_what_holds_now() -> None:
    report = report_on(GRANTED)
    cause = next(each for each in report.causes if each.cell.phase == "THINK")
    assert (cause.used, cause.limit, cause.used_now, cause.limit_now) == (
        12_000,
        6_000,
        12_600,
        12_000,
    )
    assert cause.evidence["files_read"] == 30
    assert cause.changed == LimitsChange(
        change="granted",
        by="ann",
        reason="rush",
        time="2026-01-01T00:00:00.000Z",
        limits_version=2,
    )
    assert cause.text == (
        "THINK came to 200 % of its token budget (12,000 of 6,000 tokens): extensive research, 30 files "
        "read by then; now 105 % (12,600 of 12,000 tokens) after a grant by ann"
    )


def test_after_a_grant_the_three_lines_say_what_the_table_says() -> None:
    report = report_on(GRANTED)
    assert report.summary[0] == (
        "Over budget: 105 % of its token budget (12,600 of 12,000 tokens); at notice; completed."
    )
    assert report.summary[1] == f"{report.findings[0]} 2 more below."
    assert "now 105 % (12,600 of 12,000 tokens) after a grant by ann" in report.findings[0]
    (row,) = [line for line in plain_text(report).splitlines() if line.startswith("THINK  ")]
    assert "12,600     105 %" in row
    assert report.limits_changes == [each.changed for each in report.causes][:1]
    said = "2026-01-01T00:00:00Z a grant by ann: rush\n"
    assert f"Limits changed (the table has those that hold now)\n  {said}" in plain_text(report)
    assert f"## Limits changed (the table has those that hold now)\n- {said}" in markdown(report)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            "reclassify TASK-1 importance=high by=ann reason=urgent",
            "a reclassification by ann",
            id="another class",
        ),
        pytest.param(
            "start TASK-1 planned=THINK complexity=large", "a late start", id="late start"
        ),
        pytest.param(
            "grant TASK-1 ×2 by=ann reason=rush\ngrant TASK-1 ×2 by=bob reason=rush",
            "a grant by bob",
            id="the last of several",
        ),
    ],
)
def test_what_gave_a_task_other_limits_is_named(change: str, said: str) -> None:
    start = "" if change.startswith("start") else "start TASK-1 planned=THINK\n"
    report = report_on(f"{start}usage TASK-1 THINK 9_600\n{change}")
    (cause,) = [each for each in report.causes if each.cell.phase == "THINK"]
    assert cause.limit == 6_000
    assert cause.text.endswith(f"after {said}")


def test_what_is_crossed_of_a_lower_limit_is_a_crossing_of_its_own() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK importance=critical why="it loses data"
        usage  TASK-1 THINK 19_000
        review TASK-1 refuse by=ann
    """)
    (cause,) = [each for each in report.causes if each.cell.phase == "THINK"]
    assert (cause.level, cause.limit, cause.limit_now) == ("review", 9_000, 9_000)
    assert cause.changed is None
    assert [change_text(each) for each in report.limits_changes] == [
        "a review of its justification by ann"
    ]


def test_limits_that_are_another_version_only_are_no_change_of_a_crossing() -> None:
    report = report_on("""
        start   TASK-1 planned=THINK
        usage   TASK-1 THINK 9_600
        recover TASK-1 refold by=ann reason="the sums were wrong"
        explain TASK-1 "half of it was research"
    """)
    assert (report.limits_changes, {each.changed for each in report.causes}) == ([], {None})


def test_where_no_limit_holds_any_more_a_crossing_says_so() -> None:
    facts = facts_of(records(story("start TASK-1 planned=THINK\nusage TASK-1 THINK 9_600")))[
        "TASK-1"
    ]
    facts.limits = {}
    report = compose(Material(facts=facts, baselines=Baselines()))
    assert report.causes[0].text.endswith("by then; now 9,600 tokens without a limit")


def test_a_level_that_is_withdrawn_accuses_nobody() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK
        begin  TASK-1 THINK
        usage  TASK-1 THINK 3_500
        tick   +10m
        end    TASK-1 THINK completed ms=1000
        finish TASK-1 completed
    """)
    assert (report.causes, report.findings) == ([], [])


def test_without_limits_and_without_similar_tasks_it_says_so() -> None:
    facts = facts_of(records(story("start TASK-1")))["TASK-1"]
    facts.limits = {}
    report = compose(Material(facts=facts, baselines=Baselines()))
    assert report.summary == [
        "Used 0 tokens; no limit is known.",
        "Nothing stood out; too few similar tasks have ended to compare with.",
        "Nothing to do.",
    ]


def test_what_there_is_nothing_of_is_left_out_of_the_text() -> None:
    facts = facts_of(records(story("start TASK-1")))["TASK-1"]
    report = compose(Material(facts=facts, baselines=Baselines()))
    assert plain_text(report).splitlines() == [
        "TASK-1",
        "medium complexity, medium importance; open; verdict continue",
        "",
        "✅ Within budget: 0 % of its token budget (0 of 23,400 tokens).",
        "✅ Nothing stood out; too few similar tasks have ended to compare with.",
        "💡 Nothing to do.",
    ]
    assert markdown(report).count("\n") == 7


def test_over_150_percent_a_word_is_asked_for_also_where_no_level_was_crossed() -> None:
    history = """
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 9_600
        end    TASK-1 THINK completed
    """
    facts = facts_of(records(story(history)))["TASK-1"]
    facts.crossings, facts.owed = {}, NOWHERE
    report = compose(Material(facts=facts, baselines=Baselines()))
    assert report.explanation == "asked"
    assert report.summary[2] == "Say why in a sentence: `stoploss explain TASK-1 --text …`."
    assert plain_text(report).endswith("Explanations\n  An explanation is asked for.\n")


def test_far_more_than_usual_within_the_limits_is_worth_a_look() -> None:
    report = report_on(
        """
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 4_000 out=1000
        end    TASK-1 THINK completed ms=20000
        """,
        Baselines([baseline("THINK", *[1_000] * 5)]),
    )
    assert report.summary[1:] == [
        "THINK used 5,000 tokens; medium tasks of medium importance average 1,000 tokens: 400 % above.",
        "Look at why THINK took more than usual.",
    ]


def test_the_text_is_a_table_and_what_stands_below_it() -> None:
    report = report_on("""
        start   TASK-1 planned=THINK,IMPLEMENT owner=ann team=red task_type=fix
        usage   TASK-1 THINK 19_100 cost=0.371 ms=200000
        end     TASK-1 THINK completed
        explain TASK-1 "half of it | was *research*" phase=THINK
        finish  TASK-1 completed
    """)
    assert plain_text(report) == (HERE / "report.txt").read_text("utf-8")
    shown = markdown(report)
    assert shown.startswith("# TASK-1\n\nmedium complexity, medium importance, fix, ann, red; ")
    assert (
        "| THINK | 1 | 19,100 | 318 % | 3 m 20 s | 148 % | $0.37 | 3,500 tokens (5 runs) |" in shown
    )
    assert "- 2026-01-01T00:00:00Z ada: half of it \\| was \\*research\\* (THINK)" in shown


@pytest.mark.parametrize("cause", list(Cause))
def test_each_cause_has_words_for_what_happened_and_what_to_do(cause: Cause) -> None:
    evidence = {"model_calls": 4, "unknown_usage": 3, "computed_limit": 6_000, "files_read": 1}
    assert what_happened(cause, dict(evidence))
    assert what_happened(cause, {})
    assert what_to_do(cause, "THINK").endswith(".")
    assert what_to_do(cause, None)


def test_similar_tasks_are_those_of_the_same_class_or_else_of_the_same_complexity() -> None:
    known = Baselines(
        [
            baseline("THINK", 1_000, 2_000, 3_000),
            baseline("THINK", 9_000, 9_000, importance=Importance.HIGH),
            baseline("THINK", 1, 1, 1, 1, 1, complexity=Complexity.LARGE),
            baseline("PLAN", 1, 1, 1, 1, 1),
            baseline("SPEC", *[0] * 9),
            baseline("THINK", 5, 5, metric=Metric.LATENCY_MS, importance=Importance.LOW),
        ]
    )
    assert len(known) == 6
    used = {Metric.TOKENS: 9_600}
    medium = (Complexity.MEDIUM, Importance.MEDIUM)
    found = known.similar("THINK", *medium, used)[Metric.TOKENS]
    assert msgspec.structs.replace(found, p50=0, p90=0) == Similar(
        of="medium tasks", count=5, mean=4_800, p50=0, p90=0, ratio=2
    )
    assert found.p50 == pytest.approx(3_000, rel=0.01)
    assert known.similar("THINK", *medium, {Metric.LATENCY_MS: 5}) == {}
    assert known.similar("SPEC", *medium, used) == {}, "nothing is no mean to compare with"


def test_the_link_has_the_id_quoted() -> None:
    template = "https://budget.example/tasks/{task_id}/report"
    found = report_link(template, "a/b c?é")
    assert found == "https://budget.example/tasks/a%2Fb%20c%3F%C3%A9/report"
    assert report_link(None, "a") is None


def test_what_those_below_have_used_may_be_told_as_a_sum() -> None:
    facts = facts_of(records(story("start TASK-1")))["TASK-1"]
    below = Below(tokens=700, cost_usd=2)
    report = compose(Material(facts=facts, baselines=Baselines(), below=below))
    assert (report.metrics[Metric.TOKENS].used, report.metrics[Metric.COST_USD].used) == (700, 2)


def test_what_somebody_has_written_stays_on_its_line_in_markdown() -> None:
    report = report_on("""
        start   TASK-1 planned=THINK
        usage   TASK-1 THINK 9_100      → review
        explain TASK-1 "first line"
    """)
    (written,) = report.explanations
    text = msgspec.structs.replace(written, text="first\n# second\x07")
    shown = markdown(msgspec.structs.replace(report, explanations=[text]))
    assert "ada: first \\# second \n" in shown


def test_what_somebody_has_written_begins_no_line_of_ours_in_the_text() -> None:
    report = report_on("""
        start  TASK-1 planned=THINK
        usage  TASK-1 THINK 13_000
    """)
    forged = msgspec.structs.replace(
        report,
        task_id="T\n✅ Within budget",
        owner="ann\r\x1b[2Jbob",
        explanations=[
            ExplanationReport(
                by="eve\n✅ fine", text="one\ntwo\u2028three\x07", time="", phase=None
            )
        ],
    )
    lines = plain_text(forged).splitlines()
    assert lines[0] == "T�✅ Within budget"
    assert "ann��[2Jbob" in lines[1]
    assert lines[lines.index("Explanations") + 1 :][:4] == [
        "   eve",
        "    ✅ fine: one",
        "    two",
        "    three�",
    ]
