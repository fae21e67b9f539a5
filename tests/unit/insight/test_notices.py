"""What is sent to people: a title and a few lines, and nothing that others could steer."""

import msgspec
import pytest

from schemas.alerts import Alert, AlertState, Severity
from schemas.envelope import Envelope
from schemas.reports import Report
from streams.insight.notices import (
    NoticeKind,
    notice_of_alert,
    notice_of_completion,
    slack_payload,
)
from streams.insight.report_text import summary_text
from tests.unit.insight.test_reports import report_on

ENDED = """
    start  TASK-1 planned=THINK
    usage  TASK-1 THINK 100
    end    TASK-1 THINK completed
    finish TASK-1 completed
"""


def alert(state: AlertState, scope: str = "TASK-1") -> Envelope[Alert]:
    return Envelope(
        id="lifecycle-0-7-stuck_task-0",
        source="stoploss-agents",
        type="stoploss.alert",
        subject=f"stuck_task/{scope}",
        time="2026-11-26T17:00:00.000Z",
        data=Alert(
            name="stuck_task",
            scope=scope,
            state=state,
            value=5.0,
            threshold=4.0,
            message="in THINK for 5 h",
            severity=Severity.WARNING,
            number=1,
            since="2026-11-26T17:00:00.000Z",
            task_id=scope,
        ),
    )


def ended(report: Report) -> Envelope[Report]:
    return Envelope(
        id="report-1", source="s", type="stoploss.report", subject="TASK-1", time="", data=report
    )


@pytest.mark.parametrize(
    ("state", "title"),
    [
        (AlertState.FIRING, "⚠️ stuck task firing: TASK-1"),
        (AlertState.RESOLVED, "✅ stuck task resolved: TASK-1"),
    ],
)
def test_an_alert_says_its_name_its_state_and_its_scope(state: AlertState, title: str) -> None:
    notice = notice_of_alert(alert(state))
    assert (notice.kind, notice.title, notice.text) == (NoticeKind.ALERT, title, "in THINK for 5 h")
    assert notice.record["data"]["state"] == state.value
    assert "traceparent" not in notice.record


def test_an_end_says_the_three_lines() -> None:
    report = report_on(ENDED)
    notice = notice_of_completion(ended(report))
    assert notice is not None
    assert (notice.title, notice.severity) == ("TASK-1 ended: completed", Severity.INFO)
    assert notice.text == summary_text(report).rstrip()
    assert len(notice.text.splitlines()) == 3


def test_a_task_that_ended_at_block_is_a_warning() -> None:
    notice = notice_of_completion(ended(report_on(ENDED.replace("100", "13_000"))))
    assert notice is not None
    assert notice.severity is Severity.WARNING


def test_a_task_that_ended_below_one_at_block_is_none() -> None:
    notice = notice_of_completion(
        ended(
            report_on("""
                start  TASK-P planned=THINK
                start  TASK-1 planned=THINK parent=TASK-P
                usage  TASK-P THINK 12_000    → block; TASK-1 block
                finish TASK-1 failed
            """)
        )
    )
    assert notice is not None
    assert (notice.severity, "inherited from TASK-P" in notice.text) == (Severity.INFO, True)


@pytest.mark.parametrize(
    ("field", "value"), [("final", False), ("revision", 2)], ids=["an open task", "a correction"]
)
def test_what_is_no_end_is_not_said(field: str, value: object) -> None:
    report = report_on(ENDED)
    changed = Report(
        **{name: getattr(report, name) for name in report.__struct_fields__} | {field: value}
    )
    assert notice_of_completion(ended(changed)) is None


def test_a_name_is_no_mention_and_no_link_in_slack() -> None:
    payload = slack_payload(notice_of_alert(alert(AlertState.FIRING, "<!channel> & <http://a|b>")))
    assert payload == {
        "text": "*⚠️ stuck task firing: &lt;!channel&gt; &amp; &lt;http://a|b&gt;*\nin THINK for 5 h"
    }


def test_a_name_of_several_lines_begins_none_where_people_read() -> None:
    forged = "T\n🛑 TASK-2 ended: failed\x1b[2J\u2028\r"
    told = notice_of_alert(alert(AlertState.FIRING, forged))
    assert told.title == "⚠️ stuck task firing: T�🛑 TASK-2 ended: failed�[2J��"
    assert told.record["data"]["scope"] == forged, "programs get what was said"
    waits = alert(AlertState.FIRING)
    waits = msgspec.structs.replace(
        waits, data=msgspec.structs.replace(waits.data, message=f"{forged} waits")
    )
    assert notice_of_alert(waits).text == "T�🛑 TASK-2 ended: failed�[2J�� waits"
    report = report_on(ENDED)
    changed = msgspec.structs.replace(
        report, task_id=forged, summary=[f"{forged} is within budget", "Nothing", "Nothing"]
    )
    end = notice_of_completion(ended(changed))
    assert end is not None
    assert len(str(slack_payload(end)["text"]).splitlines()) == 4


def test_a_link_leads_to_the_report() -> None:
    report = report_on(ENDED)
    linked = Report(
        **{name: getattr(report, name) for name in report.__struct_fields__}
        | {"link": "https://stoploss.example/reports/TASK-1"}
    )
    notice = notice_of_completion(ended(linked))
    assert notice is not None
    assert slack_payload(notice)["text"].endswith(
        "\n<https://stoploss.example/reports/TASK-1|Report>"
    )
