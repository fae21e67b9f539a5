"""Figures as lines of JSON, one a measurement, and as a table for a person."""

import json
from collections.abc import Iterable, Sequence

import msgspec


def emit(figure: str, measured: msgspec.Struct) -> None:
    """Print one measurement as a line of JSON on stdout, as soon as it is there."""
    print(json.dumps({"figure": figure, **msgspec.to_builtins(measured)}), flush=True)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table in Markdown on stdout."""
    print()
    print(f"| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    for row in rows:
        print(f"| {' | '.join(_shown(cell) for cell in row)} |")
    print(flush=True)


def _shown(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:,}" if isinstance(cell, int | float) else str(cell)
