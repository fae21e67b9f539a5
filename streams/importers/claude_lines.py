"""Lines of a transcript of Claude Code, as far as they are of use to us."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from schemas.fields import NAME_LENGTH_MAX, Tokens
from streams.importers.phases import ToolKind, kind_of_tool, strongest
from streams.importers.tasks import Call, step_ms

NO_AGENT = "sidechain"  # older versions name no agent
_SYNTHETIC = "<synthetic>"

Time = Annotated[datetime, Meta(tz=True)]


class _CacheCreation(Struct):
    ephemeral_1h_input_tokens: Tokens | None = None


class _Usage(Struct):
    input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_creation: _CacheCreation | None = None


class _Block(Struct):
    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class _Message(Struct):
    id: str | None = None
    model: Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)] | None = None
    usage: _Usage | None = None
    content: list[_Block] | str | None = None


class ClaudeLine(
    Struct, rename={"session": "sessionId", "sidechain": "isSidechain", "agent": "agentId"}
):
    """One line: of the session `session`, or of its sub-agent `agent`."""

    type: str
    session: str | None = None
    sidechain: bool | None = None
    agent: str | None = None
    timestamp: Time | None = None
    uuid: str | None = None
    requestId: str | None = None  # noqa: N815 - the log's name
    message: Raw = Raw(b"null")
    data: Raw = Raw(b"null")


class InnerLine(Struct):
    """The line of a sub-agent that a progress line carries."""

    type: str = ""
    timestamp: Time | None = None
    uuid: str | None = None
    requestId: str | None = None  # noqa: N815 - the log's name
    message: Raw = Raw(b"null")


class _Progress(Struct):
    type: str = ""
    agentId: str | None = None  # noqa: N815 - the log's name
    message: Raw = Raw(b"null")


_LINE = msgspec.json.Decoder(ClaudeLine)
_MESSAGE = msgspec.json.Decoder(_Message)
_PROGRESS_DATA = msgspec.json.Decoder(_Progress)
_PROGRESS_LINE = msgspec.json.Decoder(InnerLine)


class Report(Struct):
    """What the lines of one message have told so far."""

    key: str
    time: datetime | None
    model: str | None
    usage: _Usage
    asked: datetime | None = None  # when the agent last had something to send
    # Blocks by what tells them apart: the same one may stand in several files.
    tools: dict[str, ToolKind] = {}
    texts: dict[int, int] = {}

    def add(self, later: "Report") -> None:
        """Take in a later line of the message: its usage replaces the earlier one."""
        self.time, self.usage = later.time or self.time, later.usage
        self.model = later.model or self.model
        self.tools |= later.tools
        self.texts |= later.texts

    def call(self) -> Call:
        """Return the message as a call; Claude's input excludes the cache, ours includes it."""
        usage = self.usage
        read = usage.cache_read_input_tokens or 0
        write = usage.cache_creation_input_tokens or 0
        hour = usage.cache_creation and usage.cache_creation.ephemeral_1h_input_tokens
        kinds = list(self.tools.values())
        return Call(
            time=self.time,
            model=self.model,
            input=(usage.input_tokens or 0) + read + write,
            cache_read=read,
            cache_write=write,
            cache_write_1h=min(hour or 0, write),
            output=usage.output_tokens or 0,
            duration_ms=step_ms(self.asked, self.time),
            kind=strongest(kinds),
            tool_calls=len(kinds),
            files_read=kinds.count(ToolKind.READ),
            output_chars=sum(self.texts.values()),
            known=usage.input_tokens is not None and usage.output_tokens is not None,
        )


def read_line(data: bytes) -> ClaudeLine:
    """Return a line.

    Raises:
        BAD_LINE: it is unreadable.
    """
    return _LINE.decode(data)


def report_of(line: "ClaudeLine | InnerLine") -> Report | None:
    """Return what a line tells about a call; None where there was none.

    Raises:
        BAD_LINE: the message in it is unreadable.
    """
    if line.type != "assistant":
        return None
    message = _MESSAGE.decode(line.message)
    if message.usage is None or message.model == _SYNTHETIC:
        return None
    key = message.id or line.requestId or line.uuid or str(line.timestamp)
    report = Report(key=key, time=line.timestamp, model=message.model, usage=message.usage)
    blocks = message.content if isinstance(message.content, list) else []
    for block in blocks:
        if block.type in {"tool_use", "server_tool_use"} and block.name:
            arguments = block.input if isinstance(block.input, dict) else {}
            kind = kind_of_tool(block.name, str(arguments.get("command", "")))
            report.tools[block.id or f"{line.uuid} {len(report.tools)}"] = kind
        elif block.type == "text" and block.text:
            report.texts[hash(block.text)] = len(block.text)
    return report


def progress_of(line: ClaudeLine) -> tuple[str, Report] | None:
    """Return the sub-agent, and what a progress line tells about a call of it.

    Raises:
        BAD_LINE: what it carries is unreadable.
    """
    if line.type != "progress":
        return None
    progress = _PROGRESS_DATA.decode(line.data)
    if progress.type != "agent_progress":
        return None
    report = report_of(_PROGRESS_LINE.decode(progress.message))
    return None if report is None else (progress.agentId or NO_AGENT, report)
