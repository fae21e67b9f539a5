"""`stoploss alerts`: what fires now, and what has fired."""

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from schemas.alerts import Severity
from streams.cli.edges import EDGES_SHOWN, AlertRow, AlertsAnswer, by_severity
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, FromPart, Json, TimeoutS
from streams.cli.show import (
    SEVERITY_STYLES,
    console,
    plain,
    print_json,
    severity_text,
    source_text,
    table,
)
from streams.cli.sources import Source, ask_source
from streams.cli.tables import shortened
from streams.insight.times import instant

SCOPE_COLUMNS = 24


def alerts(
    *,
    edges_too: Annotated[
        bool,
        typer.Option("--all", help=f"The last {EDGES_SHOWN} edges, too: what fired, and ended."),
    ] = False,
    part: FromPart = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """List the alerts that fire now, the worst first; times are in UTC.

    VALUE and THRESHOLD are in the unit that the message names. The agents judge; where none run
    nothing new fires: `stoploss doctor` says how far they are.

    Example: stoploss alerts --all
    """

    async def question(source: Source) -> AlertsAnswer:
        return await source.alerts(EDGES_SHOWN if edges_too else 0)

    answer = ask_source(folder, timeout_s, part, question)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


def _show(answer: AlertsAnswer) -> None:
    out = console()
    if answer.firing:
        out.print(_firing_table(answer.firing))
        out.print(severities_text(by_severity(answer.firing)))
    else:
        out.print("nothing fires", style="green")
    if answer.recent:
        out.print()
        out.print(_edges_table(answer.recent))
    out.print(source_text(answer.source))


def _firing_table(rows: list[AlertRow]) -> Table:
    made = table(
        "SEVERITY", "ALERT", "SCOPE", "SINCE", "VALUE", "THRESHOLD", "MESSAGE",
        right=("VALUE", "THRESHOLD"),
    )  # fmt: skip
    _give_way(made)
    for row in rows:
        made.add_row(
            severity_text(row.severity),
            plain(row.name),
            shortened(row.scope, SCOPE_COLUMNS),
            plain(instant(row.since)),
            _number(row.value),
            _number(row.threshold),
            plain(row.message.removeprefix(f"{row.scope}: ")),
        )
    return made


def _edges_table(rows: list[AlertRow]) -> Table:
    made = table("TIME", "STATE", "SEVERITY", "ALERT", "SCOPE", "MESSAGE")
    _give_way(made)
    for row in rows:
        made.add_row(
            Text(plain(instant(row.time)), "dim"),
            row.state.value,
            severity_text(row.severity),
            plain(row.name),
            shortened(row.scope, SCOPE_COLUMNS),
            plain(row.message.removeprefix(f"{row.scope}: ")),
        )
    return made


def _give_way(made: Table) -> None:
    """Let the message be cut, and nothing else: what it is, and whether it fires, comes first."""
    made.expand = True
    for column in made.columns[:-1]:
        column.min_width = len(str(column.header))
    made.columns[-1].ratio = 1


def severities_text(counts: Mapping[Severity, int]) -> Text:
    """Return `firing: 1 critical, 2 warning`, or `nothing fires`."""
    said = Text("firing: " if counts else "nothing fires")
    for index, (severity, count) in enumerate(counts.items()):
        said.append(", " if index else "")
        said.append(f"{count} {severity.value}", SEVERITY_STYLES[severity])
    return said


def _number(value: float) -> str:
    return f"{value:,.10g}"
