"""`stoploss audit`: who changed what, when and why."""

import time
from typing import Annotated

import typer
from rich.text import Text

from schemas.topics import Topic
from streams.cli.audits import AuditAnswer, AuditFilter, change_text
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, FromPart, Json, Newest, TimeoutS
from streams.cli.show import console, plain, print_json, source_text, table
from streams.cli.sources import Source, ask_source
from streams.cli.tables import shortened
from streams.cli.values import moment
from streams.insight.numbers import counted
from streams.insight.times import instant

SHOWN = 50


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
    part: FromPart = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show who changed what, when and why, the newest last.

    What commands say to all tasks (mode, policy, grants to all) is noted with the command itself; what
    is said about one task is noted by the agents, where they run. The view keeps the last entries, the
    topics those of a year; the last line says which of both was asked.

    Example: stoploss audit TASK-17 --since 7d
    """
    which = AuditFilter(task_id, since_ms)

    async def question(source: Source) -> AuditAnswer:
        return await source.audit(which, limit)

    answer = ask_source(folder, timeout_s, part, question, [Topic.AUDIT])
    if as_json:
        print_json(answer)
    else:
        _show(answer)


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
    out.print(_count_text(answer))
    out.print(source_text(answer.source))


def _count_text(answer: AuditAnswer) -> str:
    """Return `80 entries, the newest 50 are shown; --limit shows more`."""
    shown = len(answer.entries)
    left = answer.older_too or answer.count > shown
    more = f", the newest {shown} are shown; --limit shows more" if left else ""
    least = "at least " if answer.older_too else ""
    return f"{least}{counted(answer.count, 'entry', 'entries')}{more}"
