"""A policy's document as TOML that `policy check` takes, with what each number rests on beside it."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

NEVER = "never"  # what TOML, which has no null, has for it
COMMENT_COLUMN = 40


def toml(
    document: Mapping[str, Any],
    comments: Mapping[str, str] | None = None,
    head: Sequence[str] = (),
) -> str:
    """Return a policy's document as TOML: null is "never" there.

    Args:
        document: tables of tables, numbers and texts.
        comments: by the path of a value, such as `phases.THINK.tokens`, or of a table.
        head: lines to begin with, as comments.
    """
    first = "".join(f"{_comment(line)}\n" for line in head)
    return (f"{first}\n" if first else "") + _table(document, comments or {}, ())


def _table(document: Mapping[str, Any], comments: Mapping[str, str], path: tuple[str, ...]) -> str:
    plain = {key: value for key, value in document.items() if not isinstance(value, dict)}
    lines = [
        _commented(f"{_key(key)} = {_value(value)}", comments.get(".".join((*path, key))))
        for key, value in plain.items()
    ]
    head = ""
    if path and (plain or not document):
        name = _commented(f"[{'.'.join(map(_key, path))}]", comments.get(".".join(path)))
        head = f"\n{name}\n"
    tables = (
        _table(value, comments, (*path, key))
        for key, value in document.items()
        if isinstance(value, dict)
    )
    return head + "".join(f"{line}\n" for line in lines) + "".join(tables)


def _commented(line: str, comment: str | None) -> str:
    return line if comment is None else f"{line.ljust(COMMENT_COLUMN - 1)} {_comment(comment)}"


def _comment(text: str) -> str:
    # A comment ends with its line, and names in it may come from anybody.
    return "# " + "".join(each if each.isprintable() else "�" for each in text)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _string(key)


def _value(value: object) -> str:
    match value:
        case None:
            return _string(NEVER)
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case Decimal():
            return f"{value:f}"
        case _:
            return str(value)


def _string(text: str) -> str:
    # A JSON string is a basic string of TOML, but for DEL.
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007F")
