"""What commands print: JSON, tables, bars."""

import sys
from fractions import Fraction
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.alerts import Severity
from schemas.fields import Mode, Verdict
from streams.cli.facts import AnsweredFrom, From
from streams.insight.numbers import duration
from streams.insight.printable import printable

LEVEL_STYLES = {
    Verdict.CONTINUE: "green",
    Verdict.NOTICE: "cyan",
    Verdict.WARN: "yellow",
    Verdict.REVIEW: "magenta",
    Verdict.BLOCK: "bold red",
}
MODE_STYLES = {Mode.OBSERVE: "cyan", Mode.PARTIAL: "yellow", Mode.ENFORCE: "bold red"}
SEVERITY_STYLES = {
    Severity.INFO: "cyan",
    Severity.WARNING: "yellow",
    Severity.CRITICAL: "bold red",
}
PIPED_COLUMNS = 1_000  # so that no line is cut or wrapped
BAR_WIDTH = 6
BAR_FULL_SHARE = 2.0  # where a task's tokens block by default

_JSON = msgspec.json.Encoder(decimal_format="number")


def console() -> Console:
    """Return the console of stdout; piped, it is as wide as its content."""
    width = None if sys.stdout.isatty() else PIPED_COLUMNS
    return Console(width=width, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:  # noqa: ANN401 - any Struct of ours
    """Print `value` as one JSON document on stdout."""
    text = msgspec.json.format(_JSON.encode(value)) if sys.stdout.isatty() else _JSON.encode(value)
    print(text.decode(), flush=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table without lines."""
    made = Table(
        box=None, pad_edge=False, header_style="bold", padding=(0, 1), collapse_padding=True
    )
    for name in columns:
        made.add_column(
            name, justify="right" if name in right else "left", overflow="ellipsis", no_wrap=True
        )
    return made


def source_text(source: AnsweredFrom | None) -> Text:
    """Return where an answer comes from and how old it is, as one dim line."""
    assert source is not None, "whoever answers says so"
    if source.part is From.VIEW:
        return Text(f"from the view, {duration(source.age_ms)} old", "dim")
    return Text(plain(f"from the topics: {source.why}"), "dim")


def verdict_text(verdict: Verdict) -> Text:
    """Return a verdict in the colour of its level."""
    return Text(verdict.value, LEVEL_STYLES[verdict])


def severity_text(severity: Severity) -> Text:
    """Return how bad an alert is, in its colour."""
    return Text(severity.value, SEVERITY_STYLES[severity])


def plain(text: str) -> str:
    """Return `text` without what could steer a terminal: ids and reasons come from anybody."""
    return printable(text)


def all_partitions(count: int) -> str:
    """Return `all 4 partitions`, or `the only partition`."""
    return "the only partition" if count == 1 else f"all {count} partitions"


def bar(share: Fraction | float | None, verdict: Verdict) -> Text:
    """Return how far a limit is used; the bar is full at twice the limit, `│` is the limit."""
    if share is None:
        return Text("")
    filled = min(round(share / BAR_FULL_SHARE * BAR_WIDTH), BAR_WIDTH)
    cells = ["█" if place < filled else "·" for place in range(BAR_WIDTH)]
    if filled <= BAR_WIDTH // 2:
        cells[BAR_WIDTH // 2] = "│"
    return Text("".join(cells), LEVEL_STYLES[verdict])
