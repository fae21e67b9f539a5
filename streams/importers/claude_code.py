"""Transcripts of Claude Code: one file per session, sub-agents in files of their own or in lines.

- One line per content block; each repeats the usage of its message (`message.id`), and in a third
  of them `output_tokens` has grown: the last line of a message counts.
- A message is complete when four newer ones of the same agent have begun, or with the end of the
  session. In the sessions seen, blocks of one message are never further apart than one other
  message, and only where agents write into one file. A block that comes later still is a repeat: it
  adds nothing. Messages are counted in the order in which they began, so that a transcript that is
  still growing gives the same events for its beginning every time.
- The same message stands in several files where a session was resumed or forked, or where a
  sub-agent's lines are kept twice: the first place counts, in the order of the sessions' first times.
- `input_tokens` excludes the cache; ours is the sum with cache reads and cache writes.
- A sub-agent (`agentId`, or lines with `isSidechain` without one) is a child task. `progress` lines
  of its parent carry its messages again: they are looked at when the whole session is read, and
  count only for agents that have no lines of their own. Such a child is labelled
  `seen_in: progress`.
- Messages of the model `<synthetic>` are written by the program itself: no call was made.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from schemas.events import Event
from schemas.fields import NAME_LENGTH_MAX, Tokens
from streams.importers.lines import BAD_LINE, Line, Progress, read_lines, why
from streams.importers.phases import ToolKind, kind_of_tool, strongest
from streams.importers.recent import RecentKeys
from streams.importers.summary import ImportSummary
from streams.importers.tasks import NO_TIME, Call, Options, TaskLog, safe_id, step_ms

AGENT = "claude-code"
OPEN_MESSAGES_MAX = 4
# Messages of progress lines that are kept until their session is read; each takes about 1 KB.
PROGRESS_MESSAGES_MAX = 20_000
NO_AGENT = "sidechain"  # older versions name no agent

_HEAD_LINES = 200
_SYNTHETIC = "<synthetic>"
_LINE_TYPES = frozenset(
    {"assistant", "user", "system", "progress", "summary", "file-history-snapshot"}
    | {"queue-operation", "attachment", "last-prompt", "custom-title", "ai-title", "mode"}
)

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
    name: str | None = None
    input: Any = None


class _Message(Struct):
    id: str | None = None
    model: Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)] | None = None
    usage: _Usage | None = None
    content: list[_Block] | str | None = None


class _Line(
    Struct, rename={"session": "sessionId", "sidechain": "isSidechain", "agent": "agentId"}
):
    type: str
    session: str | None = None
    sidechain: bool | None = None
    agent: str | None = None
    timestamp: Time | None = None
    uuid: str | None = None
    requestId: str | None = None  # noqa: N815 - the log's name
    message: Raw = Raw(b"null")
    data: Raw = Raw(b"null")


class _ProgressLine(Struct):
    """The line of a sub-agent that a progress line carries."""

    type: str = ""
    timestamp: Time | None = None
    uuid: str | None = None
    requestId: str | None = None  # noqa: N815 - the log's name
    message: Raw = Raw(b"null")


class _ProgressData(Struct):
    type: str = ""
    agentId: str | None = None  # noqa: N815 - the log's name
    message: Raw = Raw(b"null")


_LINE = msgspec.json.Decoder(_Line)
_MESSAGE = msgspec.json.Decoder(_Message)
_PROGRESS_DATA = msgspec.json.Decoder(_ProgressData)
_PROGRESS_LINE = msgspec.json.Decoder(_ProgressLine)


class _Report(Struct):
    """What the lines of one message have told so far."""

    key: str
    time: datetime | None
    asked: datetime | None
    model: str | None
    usage: _Usage
    kinds: list[ToolKind] = []
    chars: int = 0

    def call(self) -> Call:
        usage = self.usage
        read = usage.cache_read_input_tokens or 0
        write = usage.cache_creation_input_tokens or 0
        hour = usage.cache_creation and usage.cache_creation.ephemeral_1h_input_tokens
        return Call(
            time=self.time,
            model=self.model,
            input=(usage.input_tokens or 0) + read + write,
            cache_read=read,
            cache_write=write,
            cache_write_1h=min(hour or 0, write),
            output=usage.output_tokens or 0,
            duration_ms=step_ms(self.asked, self.time),
            kind=strongest(self.kinds),
            tool_calls=len(self.kinds),
            files_read=self.kinds.count(ToolKind.READ),
            output_chars=self.chars,
            known=usage.input_tokens is not None and usage.output_tokens is not None,
        )


class Head(Struct, frozen=True):
    """What a transcript says about itself in its first lines; `agent` where it is a sub-agent's."""

    session: str
    agent: str | None = None
    began: datetime | None = None


class ClaudeCodeImporter:
    """Transcripts, session by session: the session's own file first, then those of its sub-agents."""

    expected = "a Claude Code transcript (JSON lines with `type` and `sessionId`)"

    def __init__(self, options: Options, summary: ImportSummary, progress: Progress) -> None:
        self._options, self._summary, self._progress = options, summary, progress

    def recognises(self, line: bytes) -> bool:
        """Whether the line has a type of a transcript, and names a session or a leaf of one."""
        try:
            read = _LINE.decode(line)
        except BAD_LINE:
            return False
        return read.type in _LINE_TYPES and (
            read.session is not None or read.type in {"summary", "file-history-snapshot"}
        )

    def read(self, paths: Sequence[Path]) -> Iterator[Event]:
        """Yield the events of each session."""
        families: dict[str, list[tuple[Head, Path]]] = {}
        for head, path in sorted(((_head(path), path) for path in paths), key=_age):
            families.setdefault(head.session, []).append((head, path))
        counted = RecentKeys()
        for session, parts in families.items():
            own = {head.agent for head, _ in parts if head.agent is not None}
            family = _Family(session, own, self._options, self._summary, counted)
            for head, path in sorted(parts, key=lambda part: part[0].agent is not None):
                for line in read_lines(path, self._summary, self._progress):
                    yield from self._events(family, head, path, line)
            yield from family.finish()

    def _events(self, family: "_Family", head: Head, path: Path, line: Line) -> Iterator[Event]:
        try:
            yield from family.events(line.data, head)
        except BAD_LINE as error:
            self._summary.count_unreadable(path, line.number, why(error, line))


class _Agent:
    """One task of a session: the session itself or a sub-agent, with the messages still open."""

    def __init__(self, task: TaskLog, counted: RecentKeys, summary: ImportSummary) -> None:
        self.task = task
        self.time: datetime | None = None
        self.asked: datetime | None = None  # when it last had something to send
        self._counted = counted
        self._summary = summary
        self._open: dict[str, _Report] = {}

    def passes(self, time: datetime | None) -> None:
        if time is None:
            return
        if self.time is not None and time < self.time:
            self._summary.clock_jumps += 1
        self.time = time

    def reports(self, report: _Report) -> Iterator[Event]:
        """Take in one line of a message; yield the messages that it completes."""
        known = self._open.get(report.key)
        if known is not None:
            known.time, known.usage = report.time or known.time, report.usage
            known.model = report.model or known.model
            known.kinds += report.kinds
            known.chars += report.chars
            self._summary.repeats += 1
        elif self._counted.add(report.key):
            self._open[report.key] = report
            if len(self._open) > OPEN_MESSAGES_MAX:
                yield self._complete(next(iter(self._open)))
        else:
            self._summary.repeats += 1

    def finish(self) -> Iterator[Event]:
        while self._open:
            yield self._complete(next(iter(self._open)))

    def _complete(self, key: str) -> Event:
        return self.task.usage(self._open.pop(key).call())


class _Family:
    """A session and its sub-agents."""

    def __init__(
        self,
        session: str,
        own_files: set[str],
        options: Options,
        summary: ImportSummary,
        counted: RecentKeys,
    ) -> None:
        self._root_id = f"{AGENT}/{safe_id(session)}"
        self._own_files = own_files
        self._options, self._summary, self._counted = options, summary, counted
        self._agents: dict[str | None, _Agent] = {}  # None: the session itself
        self._in_progress: dict[tuple[str, str], tuple[str | None, _Report]] = {}

    def events(self, data: bytes, head: Head) -> Iterator[Event]:
        """Yield what a line completes.

        Raises:
            msgspec.MsgspecError: the line is unreadable; nothing of it was counted.
        """
        line = _LINE.decode(data)
        name = _agent_of(line, head)
        report = None
        if line.type == "assistant":
            report = _report(line.message, line.requestId or line.uuid, line.timestamp)
        elif line.type == "progress":
            yield from self._notices(name, line.data)
        if line.timestamp is None and name not in self._agents:
            return  # the head of a file: titles, snapshots, summaries
        yield from self._opens(name, line.timestamp)
        agent = self._agents[name]
        agent.passes(line.timestamp)
        if report is not None:
            report.asked = agent.asked
            yield from agent.reports(report)
        elif line.type == "user":
            agent.asked = line.timestamp

    def finish(self) -> Iterator[Event]:
        """Yield what is still open; each child ends before the session."""
        yield from self._settles_progress()
        for name in sorted(self._agents, key=lambda name: name is None):
            agent = self._agents[name]
            yield from agent.finish()
            yield agent.task.end(agent.time)

    def _opens(
        self, name: str | None, time: datetime | None, *, parent: str | None = None, **labels: str
    ) -> Iterator[Event]:
        if name in self._agents:
            return
        child = name is not None
        task_id = f"{self._root_id}/{safe_id(name)}" if name is not None else self._root_id
        task = TaskLog(
            self._options,
            self._summary,
            task_id=task_id,
            source=f"import/{task_id}",
            task_type=AGENT,
            parent_task_id=self._task_id(parent) if child else None,
            root_task_id=self._root_id,
            labels=labels,
        )
        self._agents[name] = _Agent(task, self._counted, self._summary)
        yield task.start(time)

    def _task_id(self, name: str | None) -> str:
        agent = self._agents.get(name)
        return self._root_id if agent is None else agent.task.task_id

    def _notices(self, parent: str | None, data: Raw) -> Iterator[Event]:
        """Keep a sub-agent's message until it is known whether the agent has lines of its own."""
        progress = _PROGRESS_DATA.decode(data)
        if progress.type != "agent_progress":
            return
        inner = _PROGRESS_LINE.decode(progress.message)
        if inner.type != "assistant":
            return
        report = _report(inner.message, inner.requestId or inner.uuid, inner.timestamp)
        if report is None:
            return
        name = progress.agentId or NO_AGENT
        if name in self._own_files:
            self._summary.repeats += 1
            return
        known = self._in_progress.get((name, report.key))
        if known is not None:
            self._summary.repeats += 1
            report.kinds = known[1].kinds + report.kinds
            report.chars += known[1].chars
        self._in_progress[name, report.key] = parent, report
        if len(self._in_progress) > PROGRESS_MESSAGES_MAX:
            yield from self._settles_progress()

    def _settles_progress(self) -> Iterator[Event]:
        kept, self._in_progress = self._in_progress, {}
        for (name, key), (parent, report) in kept.items():
            if name not in self._agents and key in self._counted:
                self._summary.repeats += 1
                continue
            if name not in self._agents:
                self._summary.subagents_seen_in_progress += 1
                yield from self._opens(name, report.time, parent=parent, seen_in="progress")
            agent = self._agents[name]
            agent.passes(report.time)
            yield from agent.reports(report)


def _agent_of(line: _Line, head: Head) -> str | None:
    """Return the sub-agent that a line belongs to; None: the session itself."""
    if line.session is None:
        return head.agent  # titles, snapshots
    return line.agent or (NO_AGENT if line.sidechain else None)


def _report(raw: Raw, otherwise: str | None, time: datetime | None) -> _Report | None:
    """Return what a line tells about a call; None where there was none."""
    message = _MESSAGE.decode(raw)
    if message.usage is None or message.model == _SYNTHETIC:
        return None
    key = message.id or otherwise or str(time)
    report = _Report(key=key, time=time, asked=None, model=message.model, usage=message.usage)
    blocks = message.content if isinstance(message.content, list) else []
    for block in blocks:
        if block.type in {"tool_use", "server_tool_use"} and block.name:
            arguments = block.input if isinstance(block.input, dict) else {}
            report.kinds.append(kind_of_tool(block.name, str(arguments.get("command", ""))))
        elif block.type == "text" and block.text:
            report.chars += len(block.text)
    return report


def _age(part: tuple[Head, Path]) -> tuple[datetime, str]:
    head, path = part
    return head.began or NO_TIME, str(path)


def _head(path: Path) -> Head:
    """Read until the first line that names a session; what comes before tells titles and snapshots."""
    for line in read_lines(path):
        try:
            read = _LINE.decode(line.data)
        except BAD_LINE:
            continue
        if read.session is not None and read.timestamp is not None:
            return Head(read.session, read.agent, read.timestamp)
        if line.number >= _HEAD_LINES:
            break
    return Head(path.name.removesuffix(".gz").removesuffix(".jsonl"))


IMPORTER = ClaudeCodeImporter
