"""`stoploss report`: how a task went, or goes."""

import asyncio
import enum
import secrets
import time
from typing import Annotated

import aiokafka.errors
import msgspec
import typer
from aiokafka import AIOKafkaProducer
from msgspec import Struct

from schemas.audit import Action, Audit
from schemas.envelope import Envelope, rfc3339
from schemas.errors import InvalidFieldError
from schemas.fields import NAME_LENGTH_MAX
from schemas.reports import Report
from schemas.topics import Topic
from streams.cli.exits import Exit
from streams.cli.materials import TOPICS, task_material
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, Json, TaskArgument, TimeoutS, user
from streams.cli.reading import opened
from streams.cli.shot import ask_place
from streams.cli.show import plain, print_json
from streams.cli.values import choice
from streams.insight.report_text import markdown, plain_text, summary_text
from streams.insight.reports import OWED
from streams.kafka.producers import discard
from streams.kafka.settings import Settings

# That somebody has read a report is worth writing down, and not worth waiting for.
AUDIT_WITHIN_S = 2.0


class Format(enum.StrEnum):
    """As what a report is printed."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


class SummaryAnswer(Struct, frozen=True):
    """What `--summary` answers; `explanation` is none, asked or owed."""

    task_id: str
    summary: list[str]
    explanation: str
    link: str | None


def report(
    task_id: TaskArgument,
    *,
    summary: Annotated[
        bool,
        typer.Option(
            "--summary", help="The three lines; exit code 1 while an explanation is owed."
        ),
    ] = False,
    style: Annotated[
        Format | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            parser=choice("--format", Format),
            help="text, markdown or json; text where it is left out.",
        ),
    ] = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show how a task went, or goes: three lines first, then what they rest on.

    The report that was written when the task had ended, else one made of what the topics say now.
    With --summary it is a gate for VERIFY: exit code 1 while an explanation is owed
    (`stoploss explain`). That a report was read stands in the audit.

    Example: stoploss report TASK-17 --summary
    """
    if as_json and style not in (None, Format.JSON):
        raise InvalidFieldError("--format", style.value, "json, or none, with --json")
    if style is Format.MARKDOWN and summary:
        raise InvalidFieldError("--format", style.value, "text or json with --summary")
    style = Format.JSON if as_json else style or Format.TEXT

    async def question(settings: Settings) -> Report:
        async with opened(settings, TOPICS) as log:
            found = (await task_material(log, task_id)).report()
        await write_down(settings, task_id, user())
        return found

    found = ask_place(folder, timeout_s, question)
    if summary:
        _show_summary(found, style)
        if found.explanation == OWED:
            raise typer.Exit(Exit.NO)
    elif style is Format.JSON:
        print_json(found)
    else:
        text = markdown(found) if style is Format.MARKDOWN else plain_text(found)
        _print_lines(text)


def _show_summary(found: Report, style: Format) -> None:
    if style is Format.JSON:
        print_json(SummaryAnswer(found.task_id, found.summary, found.explanation, found.link))
    else:
        _print_lines(summary_text(found))


def _print_lines(text: str) -> None:
    for line in text.splitlines():
        print(plain(line))


async def write_down(settings: Settings, task_id: str, by: str) -> None:
    """Append to the audit that somebody has read a report, if that is done in a moment."""
    subject = f"report/{task_id}"[:NAME_LENGTH_MAX]
    record = Envelope(
        id=secrets.token_hex(16),
        source="stoploss-cli",
        type="stoploss.audit",
        subject=subject,
        time=rfc3339(time.time_ns() // 1_000_000),
        data=Audit(subject=subject, action=Action.REPORT_READ, by=by, task_id=task_id),
    )
    producer = AIOKafkaProducer(**settings.producer_kwargs("cli-audit"))
    try:
        async with asyncio.timeout(AUDIT_WITHIN_S):
            await producer.start()
            topic = settings.topic(Topic.AUDIT)
            await producer.send_and_wait(topic, msgspec.json.encode(record), subject.encode(), 0)
            await producer.stop()
    except (aiokafka.errors.KafkaError, OSError, TimeoutError):
        await discard(producer)
