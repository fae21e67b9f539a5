"""`stoploss verify`: two judges of what the ledger wrote: its own fold again, and another one."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.exits import AnswerIsNoError
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, Json, TimeoutS
from streams.cli.place import kafka_of
from streams.cli.progress import progress
from streams.cli.show import console, print_json, table
from streams.insight.numbers import counted
from streams.verify.refold import verify as refold
from streams.verify.result import (
    IndependentReport,
    IndependentResult,
    PartitionReport,
    VerifyResult,
)
from streams.verify.second import judge

Independent = Annotated[
    bool,
    typer.Option(
        "--independent",
        help="Judge by a second program that shares no code with the ledger, not by its own fold.",
    ),
]


def verify(
    *,
    is_independent: Independent = False,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Fold the events again, and compare everything that the ledger wrote.

    Exit code 1 and the first difference of each partition where they differ. The ledger may run
    meanwhile.

    Example: stoploss verify --json
    """
    result: VerifyResult | IndependentResult
    if is_independent:
        result = asyncio.run(_judge(folder, timeout_s))
    else:
        result = asyncio.run(_verify(folder, timeout_s))
    if as_json:
        print_json(result)
    elif isinstance(result, VerifyResult):
        _show(result)
    else:
        _show_independent(result)
    if not result.equal:
        differences = [each.difference for each in result.partitions if each.difference is not None]
        raise AnswerIsNoError("\n".join(str(each) for each in differences))


async def _verify(folder: Path, timeout_s: float) -> VerifyResult:
    """How long it takes depends on the log, so the deadline is for reaching Kafka only."""
    async with kafka_of(folder, timeout_s) as place:
        with progress("folding", in_bytes=False) as advance:
            return await refold(place.settings, on_progress=advance)


async def _judge(folder: Path, timeout_s: float) -> IndependentResult:
    async with kafka_of(folder, timeout_s) as place:
        with progress("judging", in_bytes=False) as advance:
            return await judge(place.settings, on_progress=advance)


def _show_independent(result: IndependentResult) -> None:
    made = table("PARTITION", "EVENTS", "TO OFFSET", "", right=("PARTITION", "EVENTS"))
    made.columns[2].justify = "right"
    for each in result.partitions:
        made.add_row(
            str(each.partition),
            f"{each.events:,}",
            f"{each.next_offset:,}",
            "not judged" if each.not_judged else "equal" if each.equal else "differs",
        )
    out = console()
    out.print(made)
    for line in filter(None, map(_not_judged, result.partitions)):
        out.print(line)
    if all(each.not_judged for each in result.partitions):
        out.print("nothing was judged")
    elif result.equal:
        out.print("equal: everything that was judged follows from the events")


def _show(result: VerifyResult) -> None:
    made = table("PARTITION", "EVENTS", "TO OFFSET", "COMPARED", "", right=("PARTITION", "EVENTS"))
    for column in (2, 3):
        made.columns[column].justify = "right"
    for each in result.partitions:
        made.add_row(
            str(each.partition),
            f"{each.events:,}",
            f"{each.next_offset:,}",
            f"{sum(each.compared.values()):,}",
            "equal" if each.equal else "differs",
        )
    out = console()
    out.print(made)
    for line in filter(None, map(_reservation, result.partitions)):
        out.print(line)
    if result.equal:
        out.print("equal: everything that the ledger wrote follows from the events")


def _reservation(report: PartitionReport) -> str | None:
    """Return what could not be judged any more."""
    if report.from_checkpoint:
        return _unjudged(report)
    if report.trimmed:
        removed = counted(report.trimmed, "record")
        return f"partition {report.partition}: retention has removed {removed}"
    return None


def _not_judged(report: IndependentReport) -> str | None:
    if report.not_judged is None:
        return _unjudged(report)
    why = {
        "no_checkpoint": "`lifecycle` has no checkpoint that they cover",
        "policy_gone": "`tasks` no longer has the policy that held at a checkpoint",
    }[report.not_judged]
    return f"partition {report.partition}: not judged: the first events are gone, and {why}"


def _unjudged(report: PartitionReport | IndependentReport) -> str | None:
    """Return where judging has begun, and what is not judged, where inputs are gone."""
    if not report.from_checkpoint:
        return None
    return (
        f"partition {report.partition}: `events` begins at a checkpoint, offset "
        f"{report.first_offset}; not judged: "
        f"{counted(report.unjudged_tasks, 'task')} that began before it"
    )
