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
from rich.text import Text

from schemas.audit import Action, Audit
from schemas.envelope import Envelope, rfc3339
from schemas.errors import InvalidFieldError
from schemas.fields import NAME_LENGTH_MAX
from schemas.reports import Report
from schemas.topics import Topic
from streams.cli.exits import Exit
from streams.cli.facts import AnsweredFrom, From
from streams.cli.materials import TOPICS, TaskMaterial
from streams.cli.options import (
    DEFAULT_DIR,
    TIMEOUT_S,
    Dir,
    FromPart,
    Json,
    TaskArgument,
    TimeoutS,
    user,
)
from streams.cli.place import Place
from streams.cli.shot import ask_at
from streams.cli.show import console, plain, print_json, source_text
from streams.cli.sources import Source, answer_at
from streams.cli.values import choice
from streams.insight.report_text import markdown, plain_text, summary_text
from streams.insight.reports import OWED
from streams.kafka.producers import discard
from streams.kafka.settings import Settings

# That somebody has read a report is worth writing down, and not worth waiting for.
AUDIT_WITHIN_S = 2.0
GATE_ASKS = "a gate has to know the last decision"


class Format(enum.StrEnum):
    """As what a report is printed."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


class ReportAnswer(Report, frozen=True, kw_only=True, omit_defaults=True):
    """What `stoploss report` answers.

    `written`: it is the last revision that was written; else it was made now, of what is known by now.
    """

    written: bool
    source: AnsweredFrom


class SummaryAnswer(Struct, frozen=True):
    """What `--summary` answers; `explanation` is none, asked or owed, `written` as in `ReportAnswer`."""

    task_id: str
    summary: list[str]
    explanation: str
    link: str | None
    revision: int
    written: bool
    source: AnsweredFrom


def report(
    task_id: TaskArgument,
    *,
    summary: Annotated[
        bool,
        typer.Option(
            "--summary", help="The three lines alone; exit code 1 while an explanation is owed."
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
    part: FromPart = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show how a task went, or goes: three lines first, then what they rest on.

    The report that was written when the task had ended, else one made of what is known now. With
    --summary it is a gate for VERIFY: exit code 1 while an explanation is owed (`stoploss explain`),
    and always asks the topics. The last line says which revision it is, and whether the view was asked,
    or the topics. That a report was read stands in the audit; that the gate was passed does not.

    Example: stoploss report TASK-17 --summary
    """
    if as_json and style not in (None, Format.JSON):
        raise InvalidFieldError("--format", style.value, "json, or none, with --json")
    if style is Format.MARKDOWN and summary:
        raise InvalidFieldError("--format", style.value, "text or json with --summary")
    if part is From.VIEW and summary:
        raise InvalidFieldError("--from", part.value, "topics, or none, with --summary")
    style = Format.JSON if as_json else style or Format.TEXT

    async def question(source: Source) -> TaskMaterial:
        return await source.report(task_id)

    async def at(place: Place) -> ReportAnswer:
        # A view may be seconds behind a decision that owes, and so would a gate be that believed it.
        asked = From.TOPICS if summary else part
        found, source = await answer_at(place, timeout_s, asked, question, TOPICS)
        if summary:
            source = msgspec.structs.replace(source, why=GATE_ASKS)
        else:  # that a machine passes VERIFY is no reading by a person, however often it does
            await write_down(place.settings, task_id, user())
        return report_answer(found, source, place.settings.report_url)

    found = ask_at(folder, timeout_s, at)
    if summary:
        _show_summary(found, style)
        if found.explanation == OWED:
            raise typer.Exit(Exit.NO)
    elif style is Format.JSON:
        print_json(found)
    else:
        text = markdown(found) if style is Format.MARKDOWN else plain_text(found)
        _print_lines(text)
        _print_source(found)


def report_answer(found: TaskMaterial, source: AnsweredFrom, url: str | None) -> ReportAnswer:
    """Return a report with what it is.

    Args:
        found: the report, or what it is made of.
        source: of what it was read.
        url: the template of the address at which reports are to be read.
    """
    report = found.report(url)
    fields = {name: getattr(report, name) for name in report.__struct_fields__}
    return ReportAnswer(**fields, written=found.written is not None, source=source)


def _show_summary(found: ReportAnswer, style: Format) -> None:
    if style is Format.JSON:
        print_json(
            SummaryAnswer(
                found.task_id,
                found.summary,
                found.explanation,
                found.link,
                found.revision,
                found.written,
                found.source,
            )
        )
    else:
        _print_lines(summary_text(found))
        _print_source(found)


def _print_lines(text: str) -> None:
    for line in text.splitlines():
        print(plain(line))


def _print_source(found: ReportAnswer) -> None:
    which = f"revision {found.revision}" if found.written else "made now, not written yet"
    console().print(Text(f"{which}; ", "dim").append_text(source_text(found.source)))


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
