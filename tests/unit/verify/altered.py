"""Changes to the data of one record, each of which makes it wrong; and of which it can be made."""

from collections.abc import Callable
from typing import Any


def another_cause(data: dict[str, Any]) -> None:
    """One whose sign does not hold: these histories have no run of so many calls."""
    data["cause"] = "unclassified" if data["cause"] != "unclassified" else "inefficient"


def more_evidence(data: dict[str, Any]) -> None:
    data["evidence"]["metered_tokens"] += 1


def is_explained(envelope: dict[str, Any]) -> bool:
    return "cause" in envelope["data"]


def put(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data[name] = value

    return change


def one_flag_more(data: dict[str, Any]) -> None:
    known = data.get("flags", [])
    data["flags"] = [*known, "superseded" if "superseded" not in known else "reclassified"]


def more_overshoot(data: dict[str, Any]) -> None:
    data["overshoot"]["at_block"] -= 1


def has_overshoot(envelope: dict[str, Any]) -> bool:
    return "overshoot" in envelope["data"]


def another_input(data: dict[str, Any]) -> None:
    data["input"]["offset"] += 1


def is_of_a_task(envelope: dict[str, Any]) -> bool:
    return "task_id" in envelope["data"]


def flag_lost(data: dict[str, Any]) -> bool:
    return bool(data["flags"]) and bool(data["flags"].pop())
