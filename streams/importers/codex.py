"""Rollouts of the Codex CLI (`rollout-*.jsonl`): one file per session.

- A call is reported twice or more, by `token_count` lines with the same cumulative totals: first
  when the answer is complete, again when the next request brings new rate limits. The same totals
  again are a repeat.
- `info: null` before a session's first call tells rate limits only; later it is a call whose
  numbers are not known.
- A call's numbers are what the cumulative totals grew by, so that a session's sum is its last total
  by construction, also where a report was lost. Where the totals fall (a process that resumed the
  file, or a compaction, began to count anew) the call's own numbers (`last_token_usage`) count.
- `input_tokens` includes what came from the cache. There is no cost: the call is priced.
- Totals that grow without input or output (a context window declared full) are no call.
- A forked or spawned session begins with a copy of its parent's history, `token_count` lines
  included, old or stamped anew while the copy is written; its totals go on from its parent's. In
  such a file reports that another file has too are repeats, and so is whatever is not later than a
  moment after the session began: no model answers within it. A spawned session is a child task.
- The tools that a call made the agent use stand after its first report, in newer versions before it;
  what tells them apart is whether a tool has answered in between.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from schemas.events import Event
from schemas.refusal import UNREADABLE
from streams.importers.codex_lines import (
    CodexLine,
    Head,
    Info,
    Payload,
    Totals,
    chars_of,
    head_of,
    head_of_file,
    model_of,
    next_head,
    payload_of,
    read_line,
)
from streams.importers.lines import BAD_LINE, Progress, read_lines, why
from streams.importers.phases import ToolKind, kind_of_tool, strongest
from streams.importers.recent import RecentKeys
from streams.importers.summary import ImportSummary
from streams.importers.tasks import NO_TIME, Call, Options, TaskLog, safe_id, step_ms

AGENT = "codex"
_KINDS_OF_LINE = frozenset(
    {
        "session_meta",
        "turn_context",
        "response_item",
        "event_msg",
        "compacted",
        "token_usage_record",
    }
)
_TOOL_CALLS = frozenset(
    {"function_call", "custom_tool_call", "local_shell_call", "web_search_call", "tool_search_call"}
)
_COPY_TAKES = timedelta(seconds=1)
# Sessions that are open at once, where a file holds several; each takes about 3 KB.
SESSIONS_OPEN_MAX = 2_000


class CodexImporter:
    """Rollouts, parents before the sessions that were forked from them."""

    expected = "a Codex rollout (JSON lines with `type` and `payload`)"

    def __init__(self, options: Options, summary: ImportSummary, progress: Progress) -> None:
        self._options, self._summary, self._progress = options, summary, progress
        self._reported = RecentKeys()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._parents: dict[str, str | None] = {}

    def recognises(self, line: bytes) -> bool:
        """Whether the line has a type of a rollout, and a payload."""
        try:
            read = read_line(line)
        except BAD_LINE:
            return False
        return read.type in _KINDS_OF_LINE and bytes(read.payload).startswith(b"{")

    def read(self, paths: Sequence[Path]) -> Iterator[Event]:
        """Yield the events of each session; a session may go on in a second file."""
        # By time: a parent began before its children, in whatever order the files were named.
        parts = sorted(((head_of_file(path), path) for path in paths), key=_age)
        self._parents = {head.session: head.parent for head, _ in parts}
        last = {head.session: index for index, (head, _) in enumerate(parts)}
        for index, (head, path) in enumerate(parts):
            yield from self._file(head, path)
            for done in [name for name in self._sessions if last.get(name, index) <= index]:
                yield from self._sessions.pop(done).finish()

    def _file(self, head: Head, path: Path) -> Iterator[Event]:
        for line in read_lines(path, self._summary, self._progress):
            try:
                read = read_line(line.data)
                if read.type == "session_meta":
                    head = next_head(head, head_of(read, path))
                yield from self._session(head).events(read)
            except BAD_LINE as error:
                reason = why(error, ended=line.ended)
                self._summary.count_unreadable(path, line.number, reason)
            while len(self._sessions) > SESSIONS_OPEN_MAX:
                yield from self._sessions.popitem(last=False)[1].finish()

    def _session(self, head: Head) -> "_Session":
        session = self._sessions.get(head.session)
        if session is None:
            self._parents.setdefault(head.session, head.parent)
            root = _root(head.session, self._parents)
            session = _Session(head, root, self._options, self._summary, self._reported)
            self._sessions[head.session] = session
        self._sessions.move_to_end(head.session)
        return session


class _Session:
    """One session, line by line. A call is held back until the next begins: its tools follow it."""

    def __init__(
        self,
        head: Head,
        root: str,
        options: Options,
        summary: ImportSummary,
        reported: RecentKeys,
    ) -> None:
        self._head = head
        self._summary = summary
        self._reported = reported  # by all sessions of the import
        self._task = TaskLog(
            options,
            summary,
            task_id=_task_id(head.session),
            source=f"import/{_task_id(head.session)}",
            task_type=AGENT,
            parent_task_id=None if head.parent is None else _task_id(head.parent),
            root_task_id=_task_id(root),
        )
        self._started = False
        self._called = False
        self._totals: Totals | None = None
        self._seen = RecentKeys()
        self._call: Call | None = None
        self._tools = _Tools()
        self._model: str | None = None
        self._asked: datetime | None = None  # when the agent last had something to send
        self._time: datetime | None = None

    def events(self, line: CodexLine) -> Iterator[Event]:
        """Yield what a line completes.

        Raises:
            BAD_LINE: the line is unreadable; nothing of it was counted.
        """
        payload = payload_of(line)
        self._model = model_of(line) or self._model
        self._passes(line.timestamp)
        if not self._started:
            self._started = True
            yield self._task.start(self._head.began or self._time)
        if payload.type == "token_count":
            yield from self._reports(payload.info)
        elif payload.type in _TOOL_CALLS:
            self._tools.used(payload)
        elif line.type == "response_item" and payload.role == "assistant":
            self._tools.said(payload.content)
        elif line.type == "turn_context" or _asks(payload):
            self._asked = self._time
            if self._call is not None:
                self._tools.move_to(self._call)

    def finish(self) -> Iterator[Event]:
        """Yield the last call and the end."""
        if self._call is not None:
            self._tools.move_to(self._call)
            yield self._task.usage(self._call)
            self._call = None
        if self._started:
            yield self._task.end(self._time)

    def _passes(self, time: datetime | None) -> None:
        if time is None:
            return
        if self._time is not None and time < self._time:
            self._summary.clock_jumps += 1
        self._time = time

    def _reports(self, info: Info | None) -> Iterator[Event]:
        if info is None or info.total_token_usage is None:
            if self._called:
                yield from self._begin(None)
            return
        total, last = info.total_token_usage, info.last_token_usage
        before = self._totals
        if self._is_repeat(total, last):
            self._summary.repeats += 1
            if self._call is not None:
                self._tools.move_to(self._call)
            return
        self._totals = total
        if before is None and self._head.has_history and last is not None:
            used: Totals | None = last  # its totals began to grow in another session
        else:
            used = total.since(before or Totals())
        if used is None:
            self._summary.counter_resets += 1
            self._seen = RecentKeys()  # the new totals may pass the old ones
            self._seen.add(total.key)
            used = last
        if used is None or used.input_tokens + used.output_tokens > 0:
            yield from self._begin(used)

    def _is_repeat(self, total: Totals, last: Totals | None) -> bool:
        report = (total.key, last and last.key)
        if not self._seen.add(total.key):
            return True
        known = not self._reported.add(report)
        if not self._head.has_history or self._called:
            return False
        began = self._head.began
        copied = began is not None and self._time is not None and self._time <= began + _COPY_TAKES
        if known or copied:
            self._totals = total  # what the session itself uses is added to this
            return True
        return False

    def _begin(self, used: Totals | None) -> Iterator[Event]:
        if self._call is not None:
            yield self._task.usage(self._call)
        self._called = True
        taken_ms = step_ms(self._asked, self._time)
        call = Call(time=self._time, model=self._model, duration_ms=taken_ms)
        if used is None:
            call.known = False
        else:
            call.input, call.output = used.input_tokens, used.output_tokens
            # A part larger than its whole would be refused; the sum must stay what Codex says.
            call.cache_read = min(used.cached_input_tokens, call.input)
            call.cache_write = min(used.cache_write_input_tokens, call.input - call.cache_read)
            call.reasoning = min(used.reasoning_output_tokens, call.output)
        self._tools.move_to(call)
        self._call = call


class _Tools:
    """What was said and used since the last report, until it is known by which call."""

    def __init__(self) -> None:
        self._kinds: list[ToolKind] = []
        self._chars = 0

    def used(self, payload: Payload) -> None:
        arguments = payload.arguments if payload.arguments is not None else payload.input
        action = payload.action if isinstance(payload.action, dict) else _object(arguments)
        command = action.get("command", action.get("cmd", ""))
        if isinstance(command, list):
            command = _script(command) or " ".join(str(word) for word in command)
        self._kinds.append(kind_of_tool(payload.name or payload.type, str(command)))
        self._chars += len(arguments) if isinstance(arguments, str) else 0

    def said(self, content: Raw) -> None:
        self._chars += chars_of(content)

    def move_to(self, call: Call) -> None:
        if self._kinds:
            call.kind = strongest((call.kind, *self._kinds))
            call.tool_calls += len(self._kinds)
            call.files_read += self._kinds.count(ToolKind.READ)
        call.output_chars += self._chars
        self._kinds, self._chars = [], 0


def _object(arguments: object) -> dict[str, Any]:
    """Return the arguments of a tool; Codex writes them as JSON inside a string."""
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except UNREADABLE:
            return {}
    return arguments if isinstance(arguments, dict) else {}


def _script(words: list[Any]) -> str | None:
    """Return what a shell is to run: the `ls` of `["bash", "-lc", "ls"]`."""
    if len(words) == len(("bash", "-lc", "ls")) and str(words[0]).endswith("sh"):
        return str(words[-1])
    return None


def _asks(payload: Payload) -> bool:
    """Whether the line gives the model something to answer: a tool's result, a user's words."""
    return payload.type.endswith("_output") or payload.type == "user_message"


def _task_id(session: str) -> str:
    return f"{AGENT}/{safe_id(session)}"


def _age(part: tuple[Head, Path]) -> tuple[bool, datetime, str]:
    head, path = part
    return head.has_history, head.began or NO_TIME, str(path)


def _root(session: str, parents: dict[str, str | None]) -> str:
    """Return the topmost known ancestor; it need not be in the import."""
    root, met = session, {session}
    while (parent := parents.get(root)) is not None and parent not in met:
        root = parent
        met.add(root)
    return root


IMPORTER = CodexImporter
