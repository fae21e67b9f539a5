"""What commands print: JSON, tables, numbers as people read them."""

import sys
from decimal import Decimal
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.fields import Metric, Mode, Number, Verdict

LEVEL_STYLES = {
    Verdict.CONTINUE: "green",
    Verdict.NOTICE: "cyan",
    Verdict.WARN: "yellow",
    Verdict.REVIEW: "magenta",
    Verdict.BLOCK: "bold red",
}
MODE_STYLES = {Mode.OBSERVE: "cyan", Mode.PARTIAL: "yellow", Mode.ENFORCE: "bold red"}
PIPED_COLUMNS = 1_000  # so that no line is cut or wrapped
BAR_WIDTH = 6
BAR_FULL_SHARE = 2.0  # where a task's tokens block by default
THOUSANDS_FROM, MILLIONS_FROM = 100_000, 1_000_000

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


def verdict_text(verdict: Verdict) -> Text:
    """Return a verdict in the colour of its level."""
    return Text(verdict.value, LEVEL_STYLES[verdict])


def amount(value: Number, metric: Metric) -> str:
    """Return `12,345`, `3 m 20 s` or `$1.23`."""
    match metric:
        case Metric.TOKENS:
            return f"{int(value):,}"
        case Metric.LATENCY_MS:
            return duration(int(value))
        case Metric.COST_USD:
            return f"${Decimal(value):,.2f}"


def plain(text: str) -> str:
    """Return `text` without what could steer a terminal: ids and reasons come from anybody."""
    return "".join(each if each.isprintable() else "�" for each in text)


def metric_name(metric: Metric) -> str:
    """Return `tokens`, `latency` or `cost`: the unit stands with the number."""
    return metric.value.removesuffix("_ms").removesuffix("_usd")


def compact(tokens: Number) -> str:
    """Return `12,345`, from 100,000 on `123k`, from a million on `1.23M`; rounded down."""
    whole = int(tokens)
    if whole >= MILLIONS_FROM:
        return f"{whole // 10_000 / 100:,.2f}M"
    return f"{whole // 1000}k" if whole >= THOUSANDS_FROM else f"{whole:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return `1 file`, `1,200 files`; `many` where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def all_partitions(count: int) -> str:
    """Return `all 4 partitions`, or `the only partition`."""
    return "the only partition" if count == 1 else f"all {count} partitions"


def duration(passed_ms: int) -> str:
    """Return `0.4 s`, `12 s`, `3 m 20 s`, `2 h 5 m`, `3 d 4 h`."""
    if passed_ms < 10_000:  # noqa: PLR2004 - below, tenths tell something
        return f"{passed_ms / 1000:.1f} s"
    seconds = passed_ms // 1000
    for unit, name, part, part_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= unit:
            return f"{seconds // unit} {name} {seconds % unit // part} {part_name}"
    return f"{seconds} s"


def percent(share: float | None) -> str:
    """Return `93 %`, rounded down: what shows 90 % has reached it; a dash where nothing is limited."""
    return "–" if share is None else f"{int(share * 100):,} %"


def bar(share: float | None, verdict: Verdict) -> Text:
    """Return how far a limit is used; the bar is full at twice the limit, `│` is the limit."""
    if share is None:
        return Text("")
    filled = min(round(share / BAR_FULL_SHARE * BAR_WIDTH), BAR_WIDTH)
    cells = ["█" if place < filled else "·" for place in range(BAR_WIDTH)]
    if filled <= BAR_WIDTH // 2:
        cells[BAR_WIDTH // 2] = "│"
    return Text("".join(cells), LEVEL_STYLES[verdict])
