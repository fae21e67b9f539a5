"""What is sent to people: an alert, or that a task has ended, as a title and a few lines.

Source: budget model, "Reports" (a finished task's notification carries the summary and the link) and
"Alerts".
"""

import enum
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from schemas.alerts import Alert, AlertState, Severity
from schemas.envelope import Envelope
from schemas.fields import Verdict
from schemas.reports import Report
from streams.insight.printable import printable
from streams.insight.report_text import summary_text

SEVERITIES = tuple(Severity)
_MARKS = {Severity.INFO: "ℹ️", Severity.WARNING: "⚠️", Severity.CRITICAL: "🛑"}  # noqa: RUF001 - the sign
_RESOLVED_MARK = "✅"
_SLACK_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class NoticeKind(enum.StrEnum):
    """What a notice is about."""

    ALERT = "alert"
    COMPLETION = "completion"


class Notice(Struct, frozen=True, kw_only=True):
    """One message; its `id` is that of the record that caused it, so that a repeated one is known.

    `title` is one line, and `text` has no other lines than ours: a name in them cannot begin one.
    """

    id: str
    kind: NoticeKind
    severity: Severity
    title: str
    text: str
    time: str
    task_id: str | None
    link: str | None
    record: dict[str, Any]  # the whole CloudEvent, for programs


def notice_of_alert(record: Envelope[Alert]) -> Notice:
    """Return the notice of an alert that fires or is resolved."""
    alert = record.data
    resolved = alert.state is AlertState.RESOLVED
    mark = _RESOLVED_MARK if resolved else _MARKS[alert.severity]
    name = alert.name.replace("_", " ")
    return Notice(
        id=record.id,
        kind=NoticeKind.ALERT,
        severity=alert.severity,
        title=printable(f"{mark} {name} {alert.state.value}: {alert.scope}"),
        text=printable(alert.message),
        time=record.time,
        task_id=alert.task_id,
        link=None,
        record=_plain(record),
    )


def notice_of_completion(record: Envelope[Report]) -> Notice | None:
    """Return the notice that a task has ended, None for a report that only corrects an earlier one."""
    report = record.data
    if not report.final or report.revision > 1:
        return None
    # An inherited one has had its warning, with the parent: a thousand children bring no other.
    is_own_block = report.verdict is Verdict.BLOCK and report.inherited_from is None
    return Notice(
        id=record.id,
        kind=NoticeKind.COMPLETION,
        severity=Severity.WARNING if is_own_block else Severity.INFO,
        title=printable(f"{report.task_id} ended: {report.outcome or 'completed'}"),
        text=summary_text(report).rstrip(),
        time=record.time,
        task_id=report.task_id,
        link=report.link,
        record=_plain(record),
    )


def slack_payload(notice: Notice) -> Mapping[str, Any]:
    """Return the JSON body that Slack's incoming webhooks take, and those that are made like them.

    Names come from anybody: what would be a link or a mention there is escaped.
    """
    title, text = (each.translate(_SLACK_ESCAPES) for each in (notice.title, notice.text))
    link = notice.link or ""
    more = f"\n<{link}|Report>" if link else ""
    return {"text": f"*{title}*\n{text}{more}"}


def _plain(record: Envelope[Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(record, builtin_types=(msgspec.Raw,))
    return plain
