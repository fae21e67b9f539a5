"""`stoploss dead-letters`: what was refused, why, and sending it again."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from schemas.errors import InvalidFieldError, InvalidFileError
from schemas.fields import NAME_LENGTH_MAX, TEXT_LENGTH_MAX
from schemas.topics import EVENT_BYTES_MAX
from streams.cli.exits import AnswerIsNoError
from streams.cli.letters import (
    Letter,
    LetterAnswer,
    LetterFilter,
    LetterNumber,
    LettersAnswer,
    editable,
    find_letter,
    letter_answer,
    letter_number,
    list_letters,
)
from streams.cli.options import (
    DEFAULT_DIR,
    TIMEOUT_S,
    By,
    Dir,
    Json,
    Newest,
    Reason,
    TimeoutS,
    named,
)
from streams.cli.reading import Log
from streams.cli.resending import (
    Chosen,
    ReplayAnswer,
    Sendable,
    Sent,
    Why,
    choose,
    choose_edited,
    send,
)
from streams.cli.shot import ask
from streams.cli.show import console, plain, print_json, table
from streams.cli.tables import shortened
from streams.cli.values import moment, whole
from streams.insight.times import instant

SHOWN = 50
SENT_MAX = 1_000
ASKED_FROM = 11  # so many, and a person is asked first

app = typer.Typer()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


NumberArgument = Annotated[
    LetterNumber,
    typer.Argument(
        metavar="N", parser=letter_number, help="The letter's number, such as 0:42, from the list."
    ),
]
Since = Annotated[
    int | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        parser=moment("--since", _now_ms),
        help="Only those refused since then: 90m, 24h, 7d, or a time such as 2026-11-22T21:00:00Z.",
    ),
]


@app.callback(invoke_without_command=True)
def dead_letters(
    context: typer.Context,
    *,
    refused_for: Annotated[
        str | None,
        typer.Option(
            "--reason",
            "--refused-for",
            metavar="REASON",
            help="Only those refused for it, such as invalid_field.",
        ),
    ] = None,
    since_ms: Since = None,
    limit: Newest = SHOWN,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """List the records that were refused, the newest last.

    A number is the place of the refused record in events, PARTITION:OFFSET: it never changes. With a
    topic before it, such as executions/0:42, it is one that an agent could not read.

    Example: stoploss dead-letters --reason invalid_field --since 24h
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    which = LetterFilter(refused_for, since_ms)

    async def question(log: Log) -> LettersAnswer:
        return await list_letters(log, which, limit)

    answer = ask(folder, timeout_s, question)
    if as_json:
        print_json(answer)
    else:
        _show_list(answer)


def _refuse_options_before(context: typer.Context) -> None:
    """Refuse options of the list before another command, which would not see them."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = next(each for each in context.command.params if each.name == name).opts[0]
            raise InvalidFieldError(option, f"before {context.invoked_subcommand}", "it after that")


@app.command()
def show(
    number: NumberArgument,
    *,
    original: Annotated[
        bool, typer.Option("--original", help="Print the event alone, to be corrected in a file.")
    ] = False,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show all about one letter: why, what is allowed, and the original.

    The original is shown as text where it is UTF-8, else in hexadecimal digits.

    Example: stoploss dead-letters show 0:42 --original > event.json
    """
    if original and as_json:
        raise InvalidFieldError("--original", "--json", "one of them")

    async def question(log: Log) -> Letter:
        return await find_letter(log, number)

    letter = ask(folder, timeout_s, question)
    if original:
        sys.stdout.buffer.write(editable(letter))
    elif as_json:
        print_json(letter_answer(letter))
    else:
        _show_letter(letter_answer(letter))


@app.command()
def replay(
    numbers: Annotated[
        list[LetterNumber] | None,
        typer.Argument(
            metavar="[N]", parser=letter_number, help="Which ones; all that match if left out."
        ),
    ] = None,
    *,
    reason: Reason,
    by: By = None,
    refused_for: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Only those refused for it, such as unknown_type."),
    ] = None,
    since_ms: Since = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Send this event for N: the original, corrected."),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=whole("--limit", at_least=1, at_most=10_000),
            help="Send nothing where more match.",
        ),
    ] = SENT_MAX,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending many.")] = False,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Send refused records again, when what was wrong is mended: the oldest first.

    Each goes to events with its key, its headers and its event's id, but without its sequence, since
    later events of its source have been counted. The ledger drops an event whose source and id are
    among the last that it counted for the task without a sequence (256 of them by default): sent
    twice, a letter changes nothing. Who sent it and why stands in the headers stoploss_replayed_by
    and stoploss_replayed_reason. What would be refused again is not sent: an event that is too
    large, or of which only a part was kept, never can be, nor what an agent has refused.

    Exit code 1 where a record was refused again; it is a new letter then.

    Example: stoploss dead-letters replay --refused-for unknown_type --reason "ledger is updated"
    """
    why, which = Why(named(by), reason), LetterFilter(refused_for, since_ms)
    _check(numbers, which, file, why)
    edited = None if file is None else _content(file)

    async def chosen_ones(log: Log) -> Chosen:
        if edited is None or not numbers:
            return await choose(log, numbers or [], which, why, limit)
        return await choose_edited(log, numbers[0], edited, str(file), why)

    chosen = ask(folder, timeout_s, chosen_ones)
    if dry_run or not chosen.sendable:
        would_send = [str(each.number) for each in chosen.sendable]
        _answer(ReplayAnswer(would_send=would_send, skipped=chosen.skipped), as_json=as_json)
        return
    _confirm(chosen.sendable, yes=yes)

    async def sent(log: Log) -> list[Sent]:
        return await send(log, chosen.sendable, timeout_s)

    answer = ReplayAnswer(sent=ask(folder, timeout_s, sent), skipped=chosen.skipped)
    _answer(answer, as_json=as_json)
    again = [each for each in answer.sent if each.refused is not None]
    if again:
        raise AnswerIsNoError("\n".join(map(_refused_again, again)))


def _check(
    numbers: list[LetterNumber] | None, which: LetterFilter, file: Path | None, why: Why
) -> None:
    """Refuse what does not fit together."""
    for option, text, length_max in (
        ("--reason", why.reason, TEXT_LENGTH_MAX),
        ("--by", why.by, NAME_LENGTH_MAX),
    ):
        if not 0 < len(text.strip()) <= length_max:
            raise InvalidFieldError(option, text, f"1 to {length_max} characters")
    if numbers and which != LetterFilter():
        raise InvalidFieldError("--refused-for, --since", "given", "them without N: N says which")
    if file is not None and len(numbers or []) != 1:
        raise InvalidFieldError("--file", str(file), "it with exactly one N")


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(EVENT_BYTES_MAX + 1)
    except OSError as error:
        problem = error.strerror or str(error)
        raise InvalidFileError("--file", file, "a file that can be read", problem) from None
    return content.strip()


def _confirm(sendable: list[Sendable], *, yes: bool) -> None:
    """Ask whether so many are meant.

    Raises:
        InvalidFieldError: there is nobody to ask.
        typer.Abort: they are not.
    """
    if yes or len(sendable) < ASKED_FROM:
        return
    if not sys.stdin.isatty():
        raise InvalidFieldError("--yes", "absent", f"it to send {len(sendable)} letters")
    typer.confirm(f"send {len(sendable)} letters again?", abort=True, err=True)


def _answer(answer: ReplayAnswer, *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    for skipped in answer.skipped:
        print(plain(f"{skipped.number} is not sent: {skipped.why}"))
    for number in answer.would_send:
        print(f"{number} would be sent")
    for each in answer.sent:
        if each.refused is None:
            at = each.written
            print(f"{each.number} was sent again, as {at.partition}:{at.offset}")
    if not (answer.sent or answer.would_send or answer.skipped):
        print("no letter matches")


def _refused_again(sent: Sent) -> str:
    assert sent.refused is not None
    at, detail = sent.written, sent.refused
    return (
        f"{sent.number}: refused again ({sent.reason}): {detail.field}: {detail.value}; "
        f"use {detail.allowed} [letter {at.partition}:{at.offset}]"
    )


def _show_list(answer: LettersAnswer) -> None:
    out = console()
    made = table("NUMBER", "REFUSED", "REASON", "TASK", "WHAT")
    made.expand = out.is_terminal  # a file would get lines as wide as they may be
    made.columns[-1].ratio = 1
    for each in answer.letters:
        detail = each.detail
        value = f": {detail.value}" if detail.value else ""
        allowed = f"; use {detail.allowed}" if detail.allowed else ""
        made.add_row(
            each.number,
            Text(plain(instant(each.time)), "dim"),
            plain(each.reason),
            "–" if each.task_id is None else shortened(each.task_id),
            plain(f"{detail.field}{value}{allowed}"),
        )
    if answer.letters:
        out.print(made)
    left = answer.count - len(answer.letters)
    more = f", the newest {len(answer.letters)} are shown; --limit shows more" if left else ""
    out.print(f"{answer.count} dead letters{more}")


def _show_letter(answer: LetterAnswer) -> None:
    lines = [
        ("number", answer.number),
        ("refused", f"{instant(answer.time)}, {answer.reason}"),
        ("field", answer.detail.field),
        ("value", answer.detail.value),
        ("allowed", answer.detail.allowed),
        ("task", answer.task_id),
        ("record", f"{answer.topic} partition {answer.partition} offset {answer.offset}"),
        ("key", answer.key),
        *(
            ("header", f"{each.name or each.name_base64}: {_value(each.value, each.value_base64)}")
            for each in answer.headers
        ),
    ]
    out = console()
    for name, text in lines:
        if text:
            out.print(plain(f"{name:<8} {text}"), soft_wrap=True)
    if answer.headers_count > len(answer.headers):
        out.print(f"only the first of {answer.headers_count} headers are kept")
    cut = answer.kept_bytes < answer.original_bytes
    kept = f"the first {answer.kept_bytes} of " if cut else ""
    form = "in hexadecimal digits, since it is no UTF-8" if answer.original is None else "as text"
    out.print(f"original ({kept}{answer.original_bytes} bytes, {form}):")
    for line in (answer.original or answer.original_hex or "").splitlines():
        out.print(plain(line), soft_wrap=True)


def _value(text: str | None, base64: str | None) -> str:
    if text is not None:
        return text
    return "null" if base64 is None else f"{base64} (base64)"
