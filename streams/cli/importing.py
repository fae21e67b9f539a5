"""`stoploss import`: real agents' logs become events, to Kafka or to a file of JSON lines."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import typer

from schemas.encode import encode_event
from schemas.errors import InvalidFieldError, InvalidFileError
from schemas.topics import Topic
from streams.cli.exits import say_unreadable
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, Json, TimeoutS
from streams.cli.place import kafka_of
from streams.cli.progress import progress
from streams.cli.publishing import publisher
from streams.cli.reading import opened
from streams.cli.show import print_json
from streams.importers.base import Import, import_events, importer_names
from streams.importers.summary import ImportSummary
from streams.insight.numbers import counted
from streams.local.private import FILE_MODE

# Between two events the loop has to run now and then, or nothing is sent meanwhile.
OTHERS_EVERY = 100


def import_logs(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help=f"One of {', '.join(importer_names())}.")
    ],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Logs, plain or gzip, or their folders.")
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write JSON lines there instead of to Kafka; - is stdout."
        ),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(help="Put all usage into this phase, instead of inferring it from the tools."),
    ] = None,
    task_type: Annotated[
        str | None, typer.Option(help="The kind of work; the agent's name if left out.")
    ] = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Turn the logs of coding agents into events. Importing a log again changes nothing.

    Lines that cannot be read are counted and named, and never end the import.

    Example: stoploss import claude-code ~/.claude/projects --out history.jsonl
    """
    if source not in importer_names():
        raise InvalidFieldError("SOURCE", source, f"one of {', '.join(importer_names())}")
    to_stdout = out is not None and str(out) == "-"
    if to_stdout and as_json:
        raise InvalidFieldError("--out", "-", "a file with --json: stdout cannot hold both")
    with progress("reading", in_bytes=True) as advance:
        events = import_events(
            source,
            files,
            phase=phase,
            task_type=task_type,
            on_progress=lambda done: advance(done, None),
        )
        advance(0, events.bytes_total)
        if out is None:
            asyncio.run(_to_kafka(events, folder, timeout_s))
        else:
            _to_file(events, out)
    if as_json:
        print_json(events.summary)
    else:
        _show(events.summary, sys.stderr if to_stdout else sys.stdout)


async def _to_kafka(events: Import, folder: Path, timeout_s: float) -> None:
    async with kafka_of(folder, timeout_s) as place:
        async with opened(place.settings, [Topic.EVENTS]):
            pass  # without the topic a producer would retry for ever
        async with publisher(place.settings, "import") as made:
            for count, event in enumerate(events):
                await made.send(event)
                if count % OTHERS_EVERY == 0:
                    await asyncio.sleep(0)


def _to_file(events: Import, out: Path) -> None:
    with _opened(out) as file:
        for event in events:
            file.write(encode_event(event) + b"\n")


@contextlib.contextmanager
def _opened(out: Path) -> Iterator[BinaryIO]:
    if str(out) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    except OSError as error:
        problem = error.strerror or str(error)
        raise InvalidFileError("--out", out, "a file that you can write", problem) from None
    with os.fdopen(descriptor, "wb") as file:
        yield file


def _show(summary: ImportSummary, file: TextIO) -> None:
    tokens = summary.tokens
    read = f"{counted(summary.files, 'file')}, {counted(summary.lines, 'line')}"
    lines = [
        f"{read} → {counted(summary.events, 'event')}",
        f"{counted(summary.sessions, 'task')}, {summary.subagents:,} of them of sub-agents",
        f"{counted(summary.calls, 'call')}, {summary.unknown_usage:,} of unknown usage",
        f"{counted(summary.repeats, 'repeat')} of calls left out",
        counted(tokens.total, "token"),
        f"    {tokens.uncached_input:,} input, {tokens.output:,} output",
        f"    {tokens.cache_read:,} read from the cache, {tokens.cache_write:,} written to it",
        f"${summary.cost_usd:,.2f}",
    ]
    if summary.calls_unpriced_by_model:
        models = ", ".join(summary.calls_unpriced_by_model)
        lines.append(f"cost unknown: {models}")
    for line in lines:
        print(line, file=file)
    say_unreadable(summary.unreadable, summary.unreadable_named)
