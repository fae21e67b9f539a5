"""Lines of a Codex rollout, as far as they are of use to us, and what a rollout says about itself."""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta, Raw, Struct

from schemas.fields import NAME_LENGTH_MAX, Tokens
from streams.importers.lines import BAD_LINE, read_lines
from streams.importers.tasks import NO_TIME

_HEAD_LINES = 50
_ID_IN_NAME = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Time = Annotated[datetime, Meta(tz=True)]


class Totals(Struct, frozen=True):
    """Tokens, as Codex counts them: the cached are part of the input, reasoning of the output."""

    input_tokens: Tokens = 0
    cached_input_tokens: Tokens = 0
    cache_write_input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    reasoning_output_tokens: Tokens = 0
    total_tokens: Tokens = 0

    def since(self, before: Self) -> "Totals | None":
        """Return what was added since `before`; None where a class of tokens has become fewer."""
        added = [now - then for now, then in zip(self.key, before.key, strict=True)]
        return None if min(added[:-1]) < 0 else Totals(*added)

    @property
    def key(self) -> tuple[int, ...]:
        """All counts, to compare them by."""
        return (
            self.input_tokens,
            self.cached_input_tokens,
            self.cache_write_input_tokens,
            self.output_tokens,
            self.reasoning_output_tokens,
            self.total_tokens,
        )


class Info(Struct, frozen=True):
    """The numbers of a report: of the session so far, and of the last call."""

    total_token_usage: Totals | None = None
    last_token_usage: Totals | None = None


class Payload(Struct):
    """What an event or an item of the conversation tells."""

    type: str = ""
    info: Info | None = None
    name: str = ""
    arguments: Any = None
    input: Any = None
    action: Any = None
    role: str = ""
    content: Raw = Raw(b"null")


class _Context(Struct):
    model: Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)] | None = None


class _Meta(Struct):
    id: str = ""
    session_id: str = ""
    timestamp: Time | None = None
    forked_from_id: str | None = None
    parent_thread_id: str | None = None
    source: Any = None


class CodexLine(Struct):
    """One line; what its payload is depends on `type`."""

    type: str
    timestamp: Time | None = None
    payload: Raw = Raw(b"null")


_LINE = msgspec.json.Decoder(CodexLine)
_PAYLOAD = msgspec.json.Decoder(Payload)
_CONTEXT = msgspec.json.Decoder(_Context)
_META = msgspec.json.Decoder(_Meta)


class _Text(Struct):
    text: str = ""


_TEXTS = msgspec.json.Decoder(list[_Text])


class Head(Struct, frozen=True):
    """What a rollout says about itself in its first lines."""

    session: str
    began: datetime | None = None
    parent: str | None = None
    has_history: bool = False  # of the session it was forked or spawned from


def read_line(data: bytes) -> CodexLine:
    """Return a line.

    Raises:
        BAD_LINE: it is unreadable.
    """
    return _LINE.decode(data)


def payload_of(line: CodexLine) -> Payload:
    """Return what a line tells, empty for kinds of lines that tell no usage.

    Raises:
        BAD_LINE: it is unreadable.
    """
    if line.type in {"event_msg", "response_item"}:
        return _PAYLOAD.decode(line.payload)
    return Payload()


def model_of(line: CodexLine) -> str | None:
    """Return the model that a turn is done with.

    Raises:
        BAD_LINE: it is unreadable.
    """
    return _CONTEXT.decode(line.payload).model if line.type == "turn_context" else None


def chars_of(content: Raw) -> int:
    """Return the length of what the model said.

    Raises:
        BAD_LINE: it is unreadable.
    """
    return sum(len(part.text) for part in _TEXTS.decode(content))


def head_of_file(path: Path) -> Head:
    """Return what the first lines say; the file's name must do where they are lost."""
    for line in read_lines(path):
        try:
            read = read_line(line.data)
            if read.type == "session_meta":
                return head_of(read, path)
        except BAD_LINE:
            pass  # it is counted when the file is imported
        if line.number >= _HEAD_LINES:
            break
    return Head(_id_of(path))


def head_of(line: CodexLine, path: Path) -> Head:
    """Return what a `session_meta` line says.

    Raises:
        BAD_LINE: it is unreadable.
    """
    meta = _META.decode(line.payload)
    source = meta.source if isinstance(meta.source, dict) else {}
    subagent = source.get("subagent")
    spawn = subagent.get("thread_spawn") if isinstance(subagent, dict) else None
    spawned_by = spawn.get("parent_thread_id") if isinstance(spawn, dict) else None
    parent = meta.parent_thread_id or spawned_by
    session = meta.id or meta.session_id or _id_of(path)
    parent = parent if isinstance(parent, str) and parent != session else None
    has_history = parent is not None or meta.forked_from_id is not None
    return Head(session, meta.timestamp or line.timestamp, parent, has_history)


def next_head(head: Head, found: Head) -> Head:
    """Return whose lines follow: a copied history names its own session, an older one."""
    copied = head.has_history and (found.began or NO_TIME) <= (head.began or NO_TIME)
    return head if copied else found


def _id_of(path: Path) -> str:
    """Return the session's id from its file's name, where the first lines are lost."""
    found = _ID_IN_NAME.findall(path.name)
    return found[-1] if found else path.name
