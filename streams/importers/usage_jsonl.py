"""Usage of any agent as JSON lines with numbers only: one line per report of a call.

| field | means |
|---|---|
| `source` | `agent:where it came from`; the part before the colon is the kind of task |
| `session`, `parent_session` | the task, and its parent's session where it is a sub-agent's |
| `ts` | RFC 3339; null where unknown |
| `input_tokens` | uncached input; null: the call's numbers are not known |
| `cached_input_tokens`, `cache_write_tokens` | read from the cache; written to it, a part of the uncached |
| `output_tokens`, `reasoning_tokens` | all output; the part of it that was reasoning, null: not told |
| `raw_duplicate` | true: a repeat, the call is counted by another line |
| `call` | the same for all reports of a call, where the agent repeats it once per content block |
| `cost_usd` | null: to be priced |
| `tool_calls`, `tool_kinds`, `files_read`, `output_chars` | what the call did (kinds: `phases.py`) |
| `session_ended` | true: the session's last line, where the writer knows it |

A line number is a call's sequence, and the source of events carries a digest of the file's first
line: so a file may hold sessions in any order, sessions may go on in another file, and a file that
has grown gives its old events again and the new ones.

Where no line says that a session ended, it ends when none of its family has had a line for a while
(`IDLE_LINES`), or with the last file. What comes later still belongs to it, as late usage.

A file may also hold a line per session that tells how it ended: `usage_sessions.py`. Such files are
read first, since what they tell belongs to the start of a task; each line takes about 1 KB of memory.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.events import Event
from schemas.fields import COST_USD_MAX, NAME_LENGTH_MAX, Count, TaskOutcome, Tokens
from streams.importers.lines import BAD_LINE, Progress, read_lines, why
from streams.importers.phases import ToolKind, strongest
from streams.importers.summary import ImportSummary
from streams.importers.tasks import Call, Options, TaskLog, safe_id, step_ms
from streams.importers.usage_sessions import (
    SessionRow,
    decode_session,
    has_sessions,
    is_session_line,
)

IDLE_LINES = 2_000
# Sessions that are open at once; each takes about 2 KB.
FAMILIES_OPEN_MAX = 5_000

_KINDS = {kind.value: kind for kind in ToolKind}


class Row(Struct):
    """One line; what is not named here is of no use to us."""

    source: Annotated[str, Meta(min_length=1, max_length=1_000)]
    session: Annotated[str, Meta(min_length=1, max_length=1_000)]
    ts: datetime | None = None
    model: Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)] | None = None
    input_tokens: Tokens | None = None
    cached_input_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    reasoning_tokens: Tokens | None = None
    cost_usd: Decimal | None = None
    tool_calls: list[str] | Count | None = None
    tool_kinds: list[str] | None = None
    files_read: Count | None = None
    output_chars: Count | None = None
    raw_duplicate: bool = False
    call: str | None = None
    parent_session: str | None = None
    session_ended: bool = False

    def __post_init__(self) -> None:
        if self.ts is not None and self.ts.tzinfo is None:
            self.ts = self.ts.replace(tzinfo=UTC)
        cost = self.cost_usd
        if cost is not None and not (cost.is_finite() and 0 <= cost <= COST_USD_MAX):
            raise ValueError(f"cost_usd must be from 0 to {COST_USD_MAX}")


class _Looked(Struct):
    source: str
    session: str
    input_tokens: int | None


_ROW = msgspec.json.Decoder(Row)
_LOOKED = msgspec.json.Decoder(_Looked)


class _Session:
    """An open task, and what repeats told about a call that is still to be counted."""

    def __init__(self, task: TaskLog, outcome: TaskOutcome) -> None:
        self.task = task
        self.outcome = outcome
        self.time: datetime | None = None  # of its last line
        self.call: str | None = None
        self.did = _Did()


class _Did(Struct):
    """What a call did, over its reports: an agent may repeat it once per content block."""

    since: datetime | None = None  # the line before its first report
    kind: ToolKind = ToolKind.OTHER
    tool_calls: int = 0
    files_read: int = 0
    output_chars: int = 0

    def add(self, row: Row) -> None:
        kinds = (_KINDS.get(kind, ToolKind.OTHER) for kind in row.tool_kinds or ())
        self.kind = strongest((self.kind, *kinds))
        tools = row.tool_calls or 0
        self.tool_calls += tools if isinstance(tools, int) else len(tools)
        self.files_read += row.files_read or 0
        self.output_chars += row.output_chars or 0


class _Family:
    """A session without a parent, with all sub-agents below it; `line` is the last one of any."""

    def __init__(self) -> None:
        self.sessions: dict[str, _Session] = {}
        self.line = 0


class _Ending(Struct, frozen=True):
    """How a session ended, and the line that tells it."""

    row: SessionRow
    digest: str
    number: int


class UsageJsonlImporter:
    """Lines of numbers, sessions in any order."""

    expected = "usage as JSON lines (`source`, `session`, `input_tokens`, …)"

    def __init__(self, options: Options, summary: ImportSummary, progress: Progress) -> None:
        self._options, self._summary, self._progress = options, summary, progress
        self._families: OrderedDict[str, _Family] = OrderedDict()  # the longest idle one first
        self._roots: dict[str, str] = {}  # of the sessions that are open
        self._line = 0  # over all files
        self._endings: dict[str, _Ending] = {}
        self._seen: set[str] = set()  # the sessions with an ending that have calls

    def recognises(self, line: bytes) -> bool:
        """Whether the line names source and session, and tokens or how it ended."""
        if is_session_line(line):
            return True
        try:
            _LOOKED.decode(line)
        except BAD_LINE:
            return False
        return True

    def read(self, paths: Sequence[Path]) -> Iterator[Event]:
        """Yield the events of the files in the order given; last the sessions without calls."""
        with_sessions = [path for path in paths if has_sessions(path)]
        for path in with_sessions:
            self._read_sessions(path)
        for path in paths:
            if path not in with_sessions:
                yield from self._read_calls(path)
        for root in list(self._families):
            yield from self._end_family(root)
        for task_id, ending in self._endings.items():
            if task_id not in self._seen:
                yield from self._whole(task_id, ending)

    def _read_sessions(self, path: Path) -> None:
        digest = ""
        for line in read_lines(path, self._summary, self._progress):
            digest = digest or _digest(line.data)
            try:
                row = decode_session(line.data)
            except BAD_LINE as error:
                self._summary.count_unreadable(path, line.number, why(error, ended=line.ended))
            else:
                task_id = f"{_agent(row.source)}/{safe_id(row.session)}"
                self._endings[task_id] = _Ending(row, digest, line.number)

    def _read_calls(self, path: Path) -> Iterator[Event]:
        digest = ""
        for line in read_lines(path, self._summary, self._progress):
            digest = digest or _digest(line.data)
            self._line += 1
            try:
                row = _ROW.decode(line.data)
            except BAD_LINE as error:
                self._summary.count_unreadable(path, line.number, why(error, ended=line.ended))
                continue
            yield from self._events(row, digest, line.number)
            yield from self._end_idle()

    def _whole(self, task_id: str, ending: _Ending) -> Iterator[Event]:
        """Yield the events of a session of which only the total is known."""
        row = ending.row
        task = TaskLog(
            self._options,
            self._summary,
            task_id=task_id,
            source=_source(ending.digest, task_id),
            task_type=row.task_type or _agent(row.source),
            labels=row.labels(),
        )
        yield task.start(row.agent_started_at)
        yield task.usage(row.total(), sequence=ending.number)
        yield task.end(row.agent_ended_at, row.outcome)

    def _events(self, row: Row, digest: str, number: int) -> Iterator[Event]:
        agent = _agent(row.source)
        task_id = f"{agent}/{safe_id(row.session)}"
        parent = row.parent_session and f"{agent}/{safe_id(row.parent_session)}"
        parent = None if parent == task_id else parent
        root = self._roots.get(parent, parent) if parent else task_id
        family = self._families.setdefault(root, _Family())
        self._families.move_to_end(root)
        family.line = self._line
        source = _source(digest, task_id)
        session = family.sessions.get(task_id)
        if session is None:
            ending = self._ending(task_id)
            task = TaskLog(
                self._options,
                self._summary,
                task_id=task_id,
                source=source,
                task_type=(ending and ending.task_type) or agent,
                parent_task_id=parent,
                root_task_id=root,
                labels=None if ending is None else ending.labels(),
            )
            outcome = TaskOutcome.COMPLETED if ending is None else ending.outcome
            session = family.sessions[task_id] = _Session(task, outcome)
            self._roots[task_id] = root
            yield task.start(row.ts)
        session.task.source = source
        yield from self._reports(session, row, number)
        if row.session_ended:
            yield from self._end_family(root) if root == task_id else self._end(family, task_id)

    def _reports(self, session: _Session, row: Row, number: int) -> Iterator[Event]:
        before, session.time = session.time, row.ts or session.time
        if before is not None and row.ts is not None and row.ts < before:
            self._summary.clock_jumps += 1
        if row.call is None or row.call != session.call:
            session.call, session.did = row.call, _Did(since=before)
        session.did.add(row)
        if row.raw_duplicate:
            self._summary.repeats += 1
            return
        yield session.task.usage(_call(row, session.did), sequence=number)
        session.call = None

    def _end_idle(self) -> Iterator[Event]:
        while self._families:
            longest = next(iter(self._families.values()))
            idle = self._line - longest.line > IDLE_LINES
            if not idle and len(self._families) <= FAMILIES_OPEN_MAX:
                return
            yield from self._end_family(next(iter(self._families)))

    def _end_family(self, root: str) -> Iterator[Event]:
        family = self._families.pop(root)
        for task_id in sorted(family.sessions, key=lambda task_id: task_id == root):
            yield from self._end(family, task_id)  # the parent last

    def _end(self, family: _Family, task_id: str) -> Iterator[Event]:
        session = family.sessions.pop(task_id)
        self._roots.pop(task_id, None)
        yield session.task.end(session.time, session.outcome)

    def _ending(self, task_id: str) -> SessionRow | None:
        ending = self._endings.get(task_id)
        if ending is None:
            return None
        self._seen.add(task_id)
        return ending.row


def _call(row: Row, did: _Did) -> Call:
    uncached, cached = row.input_tokens or 0, row.cached_input_tokens or 0
    output, reasoning = row.output_tokens or 0, row.reasoning_tokens
    return Call(
        time=row.ts,
        model=row.model,
        input=uncached + cached,
        cache_read=cached,
        cache_write=min(row.cache_write_tokens or 0, uncached),
        output=output,
        reasoning=None if reasoning is None else min(reasoning, output),
        cost_usd=row.cost_usd,
        duration_ms=step_ms(did.since, row.ts),
        kind=did.kind,
        tool_calls=did.tool_calls,
        files_read=did.files_read,
        output_chars=did.output_chars,
        known=row.input_tokens is not None and row.output_tokens is not None,
    )


def _digest(first_line: bytes) -> str:
    return hashlib.blake2b(first_line, digest_size=4).hexdigest()


def _source(digest: str, task_id: str) -> str:
    return f"import/usage-jsonl/{digest}/{task_id}"


def _agent(source: str) -> str:
    """Return `claude-code` of `claude_code:owner/repository`; what follows the colon names somebody."""
    return safe_id(source.partition(":")[0].replace("_", "-"))


IMPORTER = UsageJsonlImporter
