"""The rule that infers phases from tools."""

import pytest

from streams.importers.phases import ToolKind, kind_of_command, kind_of_tool, phase_of, strongest


@pytest.mark.parametrize(
    ("tool", "kind"),
    [
        ("Read", ToolKind.READ),
        ("Grep", ToolKind.SEARCH),
        ("Glob", ToolKind.SEARCH),
        ("WebSearch", ToolKind.SEARCH),
        ("WebFetch", ToolKind.READ),
        ("Edit", ToolKind.EDIT),
        ("MultiEdit", ToolKind.EDIT),
        ("Write", ToolKind.EDIT),
        ("NotebookEdit", ToolKind.EDIT),
        ("TodoWrite", ToolKind.PLAN),
        ("ExitPlanMode", ToolKind.PLAN),
        ("update_plan", ToolKind.PLAN),
        ("apply_patch", ToolKind.EDIT),
        ("view_image", ToolKind.READ),
        ("web_search_call", ToolKind.SEARCH),
        ("write_stdin", ToolKind.RUN),
        ("mcp__server__fs_read", ToolKind.READ),
        ("mcp__server__run_tests", ToolKind.TEST),
        ("Bash", ToolKind.RUN),
        ("shell", ToolKind.RUN),
        ("Task", ToolKind.OTHER),
        ("AskUserQuestion", ToolKind.OTHER),
        ("", ToolKind.OTHER),
    ],
)
def test_a_tools_name_says_what_it_does(tool: str, kind: ToolKind) -> None:
    assert kind_of_tool(tool) is kind


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("ls -la", ToolKind.READ),
        ("cd src && cat a.py | head -20", ToolKind.READ),
        ("sed -n '1,200p' a.py", ToolKind.READ),
        ("sed -i 's/a/b/' a.py", ToolKind.EDIT),
        ("cat > a.py <<'EOF'\nprint(1)\nEOF", ToolKind.EDIT),
        ("ls > /dev/null", ToolKind.READ),
        ("grep -rn x . 2>/dev/null | sort", ToolKind.SEARCH),
        ("rg x && pytest -q", ToolKind.TEST),
        ("python -m pytest tests", ToolKind.TEST),
        ("PYTHONPATH=. timeout 60 npm run test", ToolKind.TEST),
        ("cargo test --all", ToolKind.TEST),
        ("git grep x", ToolKind.SEARCH),
        ("git status", ToolKind.RUN),
        ("python setup.py build", ToolKind.RUN),
        ("/usr/bin/make", ToolKind.RUN),
        ("rm -rf build", ToolKind.EDIT),
        ("cd somewhere", ToolKind.OTHER),
        ("", ToolKind.OTHER),
    ],
)
def test_a_command_says_what_it_does(command: str, kind: ToolKind) -> None:
    assert kind_of_command(command) is kind


@pytest.mark.parametrize(
    ("kinds", "before", "phase"),
    [
        ([ToolKind.READ, ToolKind.EDIT, ToolKind.RUN], "THINK", "IMPLEMENT"),
        ([ToolKind.READ, ToolKind.TEST], "IMPLEMENT", "VERIFY"),
        ([ToolKind.SEARCH, ToolKind.PLAN], "VERIFY", "PLAN"),
        ([ToolKind.READ], "IMPLEMENT", "THINK"),
        ([ToolKind.OTHER], "IMPLEMENT", "IMPLEMENT"),
        ([], "VERIFY", "VERIFY"),
    ],
)
def test_the_strongest_tool_of_a_call_decides(
    kinds: list[ToolKind], before: str, phase: str
) -> None:
    assert phase_of(strongest(kinds), before) == phase
