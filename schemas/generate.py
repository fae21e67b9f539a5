"""`python -m schemas.generate`: write `schemas/generated/`; with `--check`, compare only."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.asyncapi import asyncapi_document
from schemas.contract import MESSAGES, message_schema

GENERATED = Path(__file__).parent / "generated"


def generated_files() -> dict[str, str]:
    """Return the text of every generated file by its name: the same on every machine."""
    files = {f"{message.type}.schema.json": _text(message_schema(message)) for message in MESSAGES}
    return files | {"asyncapi.json": _text(asyncapi_document())}


def first_difference(folder: Path) -> str | None:
    """Return the first file of `folder` that is not as generated and why, or None."""
    expected = generated_files()
    found = {path.name: path for path in folder.glob("*")}
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{name}: is missing"
        if name not in expected:
            return f"{name}: no message has this name"
        if found[name].read_text("utf-8") != expected[name]:
            return f"{name}: differs from what the types say"
    return None


def write(folder: Path) -> None:
    """Write every file anew, and remove those of messages that are gone."""
    folder.mkdir(exist_ok=True)
    expected = generated_files()
    for path in folder.glob("*.json"):
        if path.name not in expected:
            path.unlink()
    for name, text in expected.items():
        (folder / name).write_text(text, "utf-8")


def main(arguments: Sequence[str] | None = None, folder: Path = GENERATED) -> int:
    """Return 0, or 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    if not parser.parse_args(arguments).check:
        write(folder)
        return 0
    difference = first_difference(folder)
    if difference is not None:
        sys.stderr.write(f"{folder.name}/{difference}; run: make schemas\n")
    return 0 if difference is None else 1


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
