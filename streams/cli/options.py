"""Options that several commands share, each with one name and one meaning."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from schemas.fields import NAME_LENGTH_MAX
from streams.cli.facts import From
from streams.cli.values import choice, number, whole

DEFAULT_DIR = Path(".stoploss")
TIMEOUT_S = 10.0

Dir = Annotated[
    Path,
    typer.Option(
        "--dir",
        metavar="FOLDER",
        help="The data folder whose Kafka is meant, where STOPLOSS_BOOTSTRAP_SERVERS names none.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]
TimeoutS = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        parser=number("--timeout", at_least=0.1, at_most=3600),
        help="How long to wait for Kafka, and for the ledger.",
    ),
]
FromPart = Annotated[
    From | None,
    typer.Option(
        "--from",
        metavar="view|topics",
        parser=choice("--from", From),
        help="Where to look; the view, and the topics where it cannot be asked, if left out.",
    ),
]
Newest = Annotated[
    int,
    typer.Option(
        "--limit",
        metavar="N",
        parser=whole("--limit", at_least=1, at_most=10_000),
        help="The newest N of them.",
    ),
]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="WHO", help="Who says so; your user name if left out."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the log.")]
TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]


def user() -> str:
    """Return the name of the operating system's user, "unknown" where there is none."""
    try:
        return getpass.getuser()[:NAME_LENGTH_MAX] or "unknown"
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"


def named(by: str | None) -> str:
    """Return who an operator says to be."""
    return user() if by is None else by
