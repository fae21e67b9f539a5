"""`stoploss topics create`: make the topics, or check those that exist."""

from typing import Annotated

import typer

from streams.cli.exits import AnswerIsNoError
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, Json, TimeoutS
from streams.cli.shot import ask_place
from streams.cli.show import print_json
from streams.cli.values import whole
from streams.kafka.topics import TopicsReport, create_or_check_topics

app = typer.Typer()


@app.command()
def create(
    partitions: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole("--partitions", at_least=1, at_most=10_000),
            help="Of `events` and of what the ledger writes; it never grows later. "
            "12 by default, 4 for a local Kafka.",
        ),
    ] = None,
    replication: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole("--replication", at_least=-1, at_most=100),
            help="Copies of each record; -1 is the broker's default.",
        ),
    ] = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Create nothing, only compare.")] = False,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Create the topics that are missing, and compare the settings of the others.

    Nothing that exists is changed: what differs is named, and the exit code is 1.

    Example: STOPLOSS_BOOTSTRAP_SERVERS=kafka:9092 stoploss topics create --replication 3
    """
    report = ask_place(
        folder,
        timeout_s,
        lambda settings: create_or_check_topics(
            settings, partitions, replication, create=not check
        ),
    )
    if as_json:
        print_json(report)
    else:
        _show(report)
    if not report.fine:
        wrong = len(report.missing) + len(report.differences)
        raise AnswerIsNoError(f"topics: {wrong} not as they should be")


def _show(report: TopicsReport) -> None:
    for name in report.created:
        print(f"created   {name}")
    for name in report.missing:
        print(f"missing   {name}")
    differing = {difference.topic for difference in report.differences}
    for name in report.existing:
        if name not in differing:
            print(f"fine      {name}")
    for difference in report.differences:
        print(f"differs   {difference}")
