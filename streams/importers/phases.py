"""Logs of agents know no phases: here stands the one rule that infers them from the tools used.

| what the call made the agent do        | kind   | phase     |
|----------------------------------------|--------|-----------|
| write, edit, patch, move or delete     | edit   | IMPLEMENT |
| run tests                              | test   | VERIFY    |
| run anything else                      | run    | VERIFY    |
| make or change a plan, a to-do list    | plan   | PLAN      |
| search in files or on the web          | search | THINK     |
| read files, lists or pages             | read   | THINK     |
| nothing, or something else             | other  | as before |

A call with several tools belongs to the kind that stands highest in this table. Before its first
tool a session is in THINK. The rule sees tool names and command words; none of them goes further
than here, only the kind does.
"""

import enum
import re
from collections.abc import Iterable

FIRST_PHASE = "THINK"
COMMAND_CHARS_MAX = 4_000  # a command can carry a whole file; its first words say what it does


class ToolKind(enum.StrEnum):
    """What a tool does; the order of the members is the order of the table above."""

    EDIT = "edit"
    TEST = "test"
    RUN = "run"
    PLAN = "plan"
    SEARCH = "search"
    READ = "read"
    OTHER = "other"


PHASE_BY_KIND = {
    ToolKind.EDIT: "IMPLEMENT",
    ToolKind.TEST: "VERIFY",
    ToolKind.RUN: "VERIFY",
    ToolKind.PLAN: "PLAN",
    ToolKind.SEARCH: "THINK",
    ToolKind.READ: "THINK",
}
_RANK = {kind: rank for rank, kind in enumerate(ToolKind)}

# Words in a tool's name; the first row that has one of them decides, so that `update_plan` is a
# plan and `run_tests` a test.
_KIND_BY_WORD: tuple[tuple[ToolKind, frozenset[str]], ...] = (
    (ToolKind.PLAN, frozenset({"plan", "todo", "todos", "todowrite"})),
    (ToolKind.TEST, frozenset({"test", "tests"})),
    (
        ToolKind.EDIT,
        frozenset({"edit", "edits", "write", "patch", "replace", "insert", "create", "delete"}),
    ),
    (ToolKind.SEARCH, frozenset({"search", "grep", "glob", "find"})),
    (
        ToolKind.READ,
        frozenset({"read", "fetch", "view", "open", "list", "get", "ls", "cat", "show"}),
    ),
    (ToolKind.RUN, frozenset({"run", "execute"})),
)
_SHELL_WORDS = frozenset({"bash", "shell", "exec", "cmd", "command", "terminal", "stdin"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_SEGMENT = re.compile(r"&&|\|\||[;|\n]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=\S*$")
_WRAPPERS = frozenset({"sudo", "env", "time", "timeout", "nohup", "xargs", "command", "exec"})
_RUNNERS = frozenset(
    {"npm", "pnpm", "yarn", "bun", "cargo", "go", "mix", "make", "dotnet", "gradle", "mvn", "uv"}
    | {"poetry", "npx", "python", "python3", "bundle", "tox", "nox", "hatch", "deno", "rake"}
)
_TEST_WORD = re.compile(r"\b(?:pytest|unittest|jest|vitest|ctest|rspec|tests?)\b")
_KIND_BY_PROGRAM: dict[str, ToolKind] = (
    dict.fromkeys(
        ("pytest", "jest", "vitest", "ctest", "rspec", "tox", "nox", "phpunit"), ToolKind.TEST
    )
    | dict.fromkeys(
        ("apply_patch", "patch", "tee", "mv", "cp", "rm", "mkdir", "touch", "chmod", "ln"),
        ToolKind.EDIT,
    )
    | dict.fromkeys(("grep", "rg", "egrep", "find", "fd", "ag", "ack"), ToolKind.SEARCH)
    | dict.fromkeys(
        ("cat", "sed", "nl", "ls", "head", "tail", "less", "wc", "tree", "stat", "file"),
        ToolKind.READ,
    )
    | dict.fromkeys(
        ("pwd", "which", "awk", "cut", "sort", "echo", "printf", "jq", "diff"), ToolKind.READ
    )
)
_IN_PLACE = re.compile(r"\s(?:-i\S*|--in-place\S*)(?:\s|$)")
_TO_A_FILE = re.compile(r"(?<![0-9&])>{1,2}\s*(?!/dev/null|&)\S")


def strongest(kinds: Iterable[ToolKind]) -> ToolKind:
    """Return the kind that stands highest in the table; `other` where there is none."""
    return min(kinds, key=_RANK.__getitem__, default=ToolKind.OTHER)


def phase_of(kind: ToolKind, before: str) -> str:
    """Return the phase of a call whose strongest tool is `kind`, in a session that was in `before`."""
    return PHASE_BY_KIND.get(kind, before)


def kind_of_tool(tool: str, command: str = "") -> ToolKind:
    """Return what a tool does, by the words in its name; a shell's by its command, if that is known."""
    words = {word.lower() for word in _WORD.findall(tool)}
    if words & _SHELL_WORDS:
        return kind_of_command(command) if command.strip() else ToolKind.RUN
    for kind, signs in _KIND_BY_WORD:
        if words & signs:
            return kind
    return ToolKind.OTHER


def kind_of_command(command: str) -> ToolKind:
    """Return what a command line does: the strongest of its parts."""
    parts = _SEGMENT.split(command[:COMMAND_CHARS_MAX])
    return strongest(kind for part in parts if (kind := _kind_of_part(part)) is not None)


def _kind_of_part(part: str) -> ToolKind | None:
    words = part.split()
    while words and (_ASSIGNMENT.match(words[0]) or words[0] in _WRAPPERS or words[0].isdecimal()):
        words.pop(0)
    if not words or words[0] == "cd" or words[0].startswith("#"):
        return None
    program = words[0].rsplit("/", 1)[-1]
    if program in _RUNNERS and _TEST_WORD.search(" ".join(words[1:4])):
        return ToolKind.TEST
    if program == "git":
        return ToolKind.SEARCH if words[1:2] == ["grep"] else ToolKind.RUN
    kind = _KIND_BY_PROGRAM.get(program, ToolKind.RUN)
    if kind is ToolKind.READ and (
        _TO_A_FILE.search(part) or (program == "sed" and _IN_PLACE.search(part))
    ):
        return ToolKind.EDIT
    return kind
