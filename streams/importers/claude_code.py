"""Transcripts of Claude Code: one file per session, sub-agents in files of their own or in lines.

- One line per content block; each repeats the usage of its message (`message.id`), and in a third
  of them `output_tokens` has grown: the last line of a message counts.
- A message is complete when four newer ones of the same agent have begun, or with the end of the
  session. In the sessions seen no message of an agent stands between the blocks of another one of
  it, so four is wide. A block that comes later still is a repeat: it adds nothing. Messages are counted in the order in which they began, so that a transcript that is
  still growing gives the same events for its beginning every time.
- Files of a session and of its sub-agents are read side by side, by the times of their lines, each
  in its own order: so that a parent's budget sees a child's usage when it happened.
- The same message stands in several files where a session was resumed or forked, or where a
  sub-agent's lines are kept twice: the first place counts, in the order of the sessions' first times.
- A line belongs to the session that it names, also where a file holds several.
- `input_tokens` excludes the cache; ours is the sum with cache reads and cache writes.
- A sub-agent (`agentId`, or lines with `isSidechain` without one) is a child task. `progress` lines
  of its parent carry its messages again: they are looked at when the whole session is read, and
  count only for agents that have no lines of their own. Such a child is labelled
  `seen_in: progress`.
- Messages of the model `<synthetic>` are written by the program itself: no call was made.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from schemas.events import Event
from streams.importers.claude_lines import (
    NO_AGENT,
    ClaudeLine,
    Report,
    progress_of,
    read_line,
    report_of,
)
from streams.importers.lines import BAD_LINE, Progress, read_lines, why
from streams.importers.recent import RecentKeys, Sequences
from streams.importers.summary import ImportSummary
from streams.importers.tasks import NO_TIME, Options, TaskLog, safe_id

AGENT = "claude-code"
OPEN_MESSAGES_MAX = 4
# Messages of progress lines that are kept until their session is read; each takes about 1 KB.
PROGRESS_MESSAGES_MAX = 20_000
# Sessions that are open at once, where files are mixed; each takes about 4 KB.
FAMILIES_OPEN_MAX = 2_000
# Sub-agents' files that are open at once; each has a buffer.
FILES_OPEN_MAX = 32

_HEAD_LINES = 200
_LINE_TYPES = frozenset(
    {"assistant", "user", "system", "progress", "summary", "file-history-snapshot"}
    | {"queue-operation", "attachment", "last-prompt", "custom-title", "ai-title", "mode"}
)


class Head(Struct, frozen=True):
    """What a transcript says about itself in its first lines; `agent` where it is a sub-agent's."""

    session: str
    agent: str | None = None
    began: datetime | None = None


class _Part(NamedTuple):
    head: Head
    path: Path


class _Read(NamedTuple):
    head: Head
    path: Path
    number: int
    line: ClaudeLine


class ClaudeCodeImporter:
    """Transcripts, session by session, each with the files of its sub-agents."""

    expected = "a Claude Code transcript (JSON lines with `type` and `sessionId`)"

    def __init__(self, options: Options, summary: ImportSummary, progress: Progress) -> None:
        self._options, self._summary, self._progress = options, summary, progress
        self._counted = RecentKeys()
        self._own_files: dict[str, set[str]] = {}
        self._families: OrderedDict[str, _Family] = OrderedDict()  # the longest idle one first
        self._left = Sequences()

    def recognises(self, line: bytes) -> bool:
        """Whether the line has a type of a transcript, and names a session or a leaf of one."""
        try:
            read = read_line(line)
        except BAD_LINE:
            return False
        return read.type in _LINE_TYPES and (
            read.session is not None or read.type in {"summary", "file-history-snapshot"}
        )

    def read(self, paths: Sequence[Path]) -> Iterator[Event]:
        """Yield the events of each session."""
        groups: dict[str, list[_Part]] = {}
        for part in sorted((_Part(_head(path), path) for path in paths), key=_age):
            groups.setdefault(part.head.session, []).append(part)
        for session, parts in groups.items():
            agents = (part.head.agent for part in parts)
            self._own_files[session] = {agent for agent in agents if agent is not None}
        waiting = set(groups)
        for session, parts in groups.items():
            waiting.discard(session)
            for read in self._side_by_side(parts):
                yield from self._events(read)
            for done in [name for name in self._families if name not in waiting]:
                yield from self._families.pop(done).finish()

    def _side_by_side(self, parts: list[_Part]) -> Iterator[_Read]:
        """Yield the lines of a session's files by time; the clock of a file never runs backwards."""
        coming = sorted(parts, key=lambda part: (part.head.agent is not None, _age(part)))
        active: list[tuple[datetime, int, _Read, Iterator[_Read]]] = []
        for index, part in enumerate(coming):
            while active and (
                len(active) >= FILES_OPEN_MAX or active[0][0] < (part.head.began or NO_TIME)
            ):
                yield from self._next(active)
            lines = self._lines(part)
            if (first := next(lines, None)) is not None:
                heapq.heappush(active, (first.line.timestamp or NO_TIME, index, first, lines))
        while active:
            yield from self._next(active)

    def _next(self, active: list[tuple[datetime, int, _Read, Iterator[_Read]]]) -> Iterator[_Read]:
        clock, index, read, lines = active[0]
        yield read
        if (following := next(lines, None)) is None:
            heapq.heappop(active)
        else:
            clock = max(clock, following.line.timestamp or clock)
            heapq.heapreplace(active, (clock, index, following, lines))

    def _lines(self, part: _Part) -> Iterator[_Read]:
        for line in read_lines(part.path, self._summary, self._progress):
            try:
                yield _Read(part.head, part.path, line.number, read_line(line.data))
            except BAD_LINE as error:
                self._summary.count_unreadable(part.path, line.number, why(error, ended=line.ended))

    def _events(self, read: _Read) -> Iterator[Event]:
        session = read.line.session or read.head.session
        if session not in self._families:
            self._families[session] = _Family(
                session,
                self._own_files.get(session, set()),
                self._options,
                self._summary,
                self._counted,
                self._left,
            )
            if len(self._families) > FAMILIES_OPEN_MAX:
                yield from self._families.popitem(last=False)[1].finish()
        self._families.move_to_end(session)
        try:
            yield from self._families[session].events(read.line, read.head)
        except BAD_LINE as error:
            reason = why(error, ended=True)
            self._summary.count_unreadable(read.path, read.number, reason)


class _Agent:
    """One task of a session: the session itself or a sub-agent, with the messages still open."""

    def __init__(self, task: TaskLog, counted: RecentKeys, summary: ImportSummary) -> None:
        self.task = task
        self.time: datetime | None = None
        self.asked: datetime | None = None  # when it last had something to send
        self._counted = counted
        self._summary = summary
        self._open: dict[str, Report] = {}

    def passes(self, time: datetime | None) -> None:
        if time is None:
            return
        if self.time is not None and time < self.time:
            self._summary.clock_jumps += 1
        self.time = time

    def reports(self, report: Report) -> Iterator[Event]:
        """Take in one line of a message; yield the messages that it completes."""
        if (known := self._open.get(report.key)) is not None:
            known.add(report)
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
        left: Sequences,
    ) -> None:
        self._left = left
        self._root_id = f"{AGENT}/{safe_id(session)}"
        self._own_files = own_files
        self._options, self._summary, self._counted = options, summary, counted
        self._agents: dict[str | None, _Agent] = {}  # None: the session itself
        self._in_progress: dict[tuple[str, str], tuple[str | None, Report]] = {}

    def events(self, line: ClaudeLine, head: Head) -> Iterator[Event]:
        """Yield what a line completes.

        Raises:
            BAD_LINE: the line is unreadable; nothing of it was counted.
        """
        name = _agent_of(line, head)
        report, progress = report_of(line), progress_of(line)
        if progress is not None:
            yield from self._notices(name, *progress)
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
            self._left.leave(agent.task)

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
            sequence=self._left.take_up(task_id),
        )
        self._agents[name] = _Agent(task, self._counted, self._summary)
        yield task.start(time)

    def _task_id(self, name: str | None) -> str:
        agent = self._agents.get(name)
        return self._root_id if agent is None else agent.task.task_id

    def _notices(self, parent: str | None, name: str, report: Report) -> Iterator[Event]:
        """Keep a sub-agent's message until it is known whether the agent has lines of its own."""
        known = self._in_progress.get((name, report.key))
        if known is not None or name in self._own_files:
            self._summary.repeats += 1
        if name in self._own_files:
            return
        if known is not None:
            known[1].add(report)
        else:
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


def _agent_of(line: ClaudeLine, head: Head) -> str | None:
    """Return the sub-agent that a line belongs to; None: the session itself."""
    if line.session is None:
        return head.agent  # titles, snapshots
    return line.agent or (NO_AGENT if line.sidechain else None)


def _age(part: _Part) -> tuple[datetime, str]:
    return part.head.began or NO_TIME, str(part.path)


def _head(path: Path) -> Head:
    """Read until the first line that names a session; what comes before tells titles and snapshots."""
    for line in read_lines(path):
        try:
            read = read_line(line.data)
        except BAD_LINE:
            continue
        if read.session is not None and read.timestamp is not None:
            return Head(read.session, read.agent, read.timestamp)
        if line.number >= _HEAD_LINES:
            break
    return Head(path.name.removesuffix(".gz").removesuffix(".jsonl"))


IMPORTER = ClaudeCodeImporter
