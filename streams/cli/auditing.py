"""`stoploss audit`: who changed what, when and why."""

import collections
import time
from collections.abc import AsyncIterator
from typing import Annotated

import typer
from msgspec import Struct
from rich.text import Text

from schemas.audit import Action, Audit
from schemas.envelope import Envelope
from schemas.topics import Topic
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, Json, Newest, TimeoutS
from streams.cli.reading import opened
from streams.cli.shot import ask_place
from streams.cli.show import console, plain, print_json, table
from streams.cli.tables import shortened
from streams.cli.values import moment
from streams.insight.numbers import counted
from streams.insight.times import instant
from streams.kafka.settings import Settings

SHOWN = 50
# An agent that begins again writes under the same ids what it has written since its last offsets.
RECENT_MAX = 10_000


class AuditEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change: `before` and `after` hold what changed, by field."""

    id: str
    time: str
    by: str
    action: Action
    subject: str
    task_id: str | None = None
    reason: str | None = None
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    flags: list[str] = []


class AuditAnswer(Struct, frozen=True):
    """What `stoploss audit` found: how many entries there are, and the newest of them, newest last."""

    count: int
    entries: list[AuditEntry]


class AuditFilter(Struct, frozen=True):
    """Which entries are meant; None leaves nothing out."""

    task_id: str | None = None
    since_ms: int | None = None

    def takes(self, entry: Audit) -> bool:
        """Whether an entry is about the task that is meant; that of its report is, too."""
        task_id = self.task_id
        return task_id is None or task_id in (entry.task_id, entry.subject)


def audit(
    task_id: Annotated[
        str | None, typer.Argument(metavar="[TASK]", help="Only what is about this task.")
    ] = None,
    *,
    since_ms: Annotated[
        int | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            parser=moment("--since", lambda: time.time_ns() // 1_000_000),
            help="Only what was noted since then: 90m, 24h, 7d, or a time such as "
            "2026-11-22T21:00:00Z.",
        ),
    ] = None,
    limit: Newest = SHOWN,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show who changed what, when and why, the newest last.

    What commands say to all tasks (mode, policy, grants to all) is noted with the command itself; what
    is said about one task is noted by the agents, where they run.

    Example: stoploss audit TASK-17 --since 7d
    """
    which = AuditFilter(task_id, since_ms)

    async def question(settings: Settings) -> AuditAnswer:
        return await audit_answer(settings, which, limit)

    answer = ask_place(folder, timeout_s, question)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


async def audit_answer(settings: Settings, which: AuditFilter, limit: int) -> AuditAnswer:
    """Return what the topic `audit` holds.

    Raises:
        UnavailableError: no broker answers, or there is no such topic.
    """
    async with opened(settings, [Topic.AUDIT]) as log:
        return await newest(log.audits(which.since_ms), which, limit)


async def newest(
    entries: AsyncIterator[Envelope[Audit]], which: AuditFilter, limit: int
) -> AuditAnswer:
    """Return the newest entries that are meant; one that was written twice counts once."""
    count, recent = 0, dict[str, None]()
    found = collections.deque[AuditEntry](maxlen=limit)
    async for envelope in entries:
        if not which.takes(envelope.data) or envelope.id in recent:
            continue
        recent[envelope.id] = None
        if len(recent) > RECENT_MAX:
            del recent[next(iter(recent))]
        count += 1
        found.append(_entry(envelope))
    return AuditAnswer(count, sorted(found, key=lambda entry: entry.time))


def _entry(envelope: Envelope[Audit]) -> AuditEntry:
    said = envelope.data
    return AuditEntry(
        id=envelope.id,
        time=envelope.time,
        by=said.by,
        action=said.action,
        subject=said.subject,
        task_id=said.task_id,
        reason=said.reason,
        before=said.before,
        after=said.after,
        flags=said.flags,
    )


def change_text(before: dict[str, str], after: dict[str, str]) -> str:
    """Return `importance low → critical`; what did not change is left out."""
    changes = []
    for name, now in after.items():
        was = before.get(name)
        if was is None:
            changes.append(f"{name} {now}")
        elif was != now:
            changes.append(f"{name} {was} → {now}")
    return ", ".join(changes)


def _show(answer: AuditAnswer) -> None:
    out = console()
    made = table("WHEN", "WHO", "WHAT", "ABOUT", "CHANGE", "WHY")
    made.expand = out.is_terminal  # a file would get lines as wide as they may be
    made.columns[-2].ratio = made.columns[-1].ratio = 1
    for each in answer.entries:
        made.add_row(
            Text(plain(instant(each.time)), "dim"),
            shortened(each.by),
            each.action.value.replace("_", " "),
            shortened(each.subject),
            plain("; ".join(filter(None, (change_text(each.before, each.after), *each.flags)))),
            plain(each.reason or ""),
        )
    if answer.entries:
        out.print(made)
    left = answer.count - len(answer.entries)
    more = f", the newest {len(answer.entries)} are shown; --limit shows more" if left else ""
    out.print(f"{counted(answer.count, 'entry', 'entries')}{more}")
