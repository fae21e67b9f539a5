"""Wrong usage is one line on stderr that names field, value and what is allowed; exit code 2."""

from pathlib import Path

import pytest

from tests.unit.cli.command_line import run

WHY = ("--reason", "a test")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(("nonsense",), "No such command 'nonsense'", id="a command that is none"),
        pytest.param(("tasks", "--nonsense"), "No such option: --nonsense", id="an option"),
        pytest.param(("topics",), "Missing command", id="a group without its command"),
        pytest.param(("policy",), "Missing command", id="the other group"),
        pytest.param(("task",), "Missing argument 'TASK'", id="task without one"),
        pytest.param(
            ("tasks", "--timeout", "soon"),
            "--timeout: 'soon' is not allowed; use a number from 0.1 to 3600",
            id="a timeout in words",
        ),
        pytest.param(
            ("tasks", "--timeout", "nan"),
            "--timeout: 'nan' is not allowed; use a number from 0.1 to 3600",
            id="a timeout that is no number",
        ),
        pytest.param(
            ("tasks", "--from", "redis"),
            "--from: 'redis' is not allowed; use view, topics",
            id="a source that is none",
        ),
        pytest.param(
            ("alerts", "--timeout", "-1"),
            "--timeout: '-1' is not allowed; use a number from 0.1 to 3600",
            id="alerts before they were asked for",
        ),
        pytest.param(
            ("alerts", "queue_depth"), "Got unexpected extra argument", id="one alert by its name"
        ),
        pytest.param(
            ("topics", "create", "--partitions", "0"),
            "--partitions: '0' is not allowed; use a whole number from 1 to 10000",
            id="no partitions",
        ),
        pytest.param(
            ("topics", "create", "--replication", "1.5"),
            "--replication: '1.5' is not allowed; use a whole number from -1 to 100",
            id="one and a half copies",
        ),
        pytest.param(
            ("ledger", "--workers", "0"),
            "--workers: '0' is not allowed; use a whole number from 1 to 64",
            id="no workers",
        ),
        pytest.param(("report",), "Missing argument 'TASK'", id="a report on nothing"),
        pytest.param(
            ("report", "T", "--format", "pdf"),
            "--format: 'pdf' is not allowed; use text, markdown, json",
            id="a report as something else",
        ),
        pytest.param(
            ("report", "T", "--format", "markdown", "--json"),
            "--format: 'markdown' is not allowed; use json, or none, with --json",
            id="a report as two things",
        ),
        pytest.param(
            ("report", "T", "--format", "markdown", "--summary"),
            "--format: 'markdown' is not allowed; use text or json with --summary",
            id="three lines as a document",
        ),
        pytest.param(
            ("report", "T", "--from", "view", "--summary"),
            "--from: 'view' is not allowed; use topics, or none, with --summary",
            id="a gate that believes the view",
        ),
        pytest.param(
            ("agents", "nobody"),
            "NAME: 'nobody' is not allowed; use one of alerts, governance, baselines, reports, delivery",
            id="an agent that there is none of",
        ),
        pytest.param(
            ("agents", "delivery"),
            "sinks: None is not allowed; use a table such as [sinks.oncall] in stoploss.toml",
            id="delivery to nobody",
        ),
        pytest.param(
            ("demo", "--speed", "0"),
            "--speed: '0' is not allowed; use a number from 0.01 to 1000000",
            id="a demo that stands still",
        ),
        pytest.param(
            ("import", "cobol", "x.jsonl"),
            "SOURCE: 'cobol' is not allowed; use one of claude-code, codex, usage-jsonl",
            id="an agent that nobody knows",
        ),
        pytest.param(
            ("import", "codex", "no-such.jsonl"),
            "FILE: 'no-such.jsonl' is not allowed; use a file that can be read "
            "(No such file or directory)",
            id="a log that is not there",
        ),
        pytest.param(
            ("import", "codex", "x.jsonl", "--out", "-", "--json"),
            "--out: '-' is not allowed; use a file with --json: stdout cannot hold both",
            id="two things on stdout",
        ),
        pytest.param(
            ("replay", "no-such.jsonl"),
            "FILE: 'no-such.jsonl' is not allowed; use a file that can be read "
            "(No such file or directory)",
            id="replay of nothing",
        ),
        pytest.param(
            ("replay", "x", "--source", "cobol"),
            "--source: 'cobol' is not allowed; use one of events, claude-code, codex, usage-jsonl",
            id="replay of an unknown kind",
        ),
        pytest.param(
            ("replay", "x", "--mode", "strict"),
            "--mode: 'strict' is not allowed; use observe, partial, enforce",
            id="replay in an unknown mode",
        ),
        pytest.param(
            ("replay", "x", "--policy", "no-such.toml"),
            "--policy: 'no-such.toml' is not allowed; use a file that can be read "
            "(No such file or directory)",
            id="replay under no policy",
        ),
        pytest.param(
            ("grant", "T", "--multiplier", "2"), "Missing option '--reason'", id="no reason"
        ),
        pytest.param(
            ("grant", "T", *WHY),
            "--multiplier, --limit: 'neither' is not allowed; use exactly one of them",
            id="a grant of nothing",
        ),
        pytest.param(
            ("grant", "T", "--multiplier", "2", "--limit", "THINK.tokens=9", *WHY),
            "--multiplier, --limit: 'both' is not allowed; use exactly one of them",
            id="two grants at once",
        ),
        pytest.param(
            ("grant", "--multiplier", "2", *WHY),
            "TASK: None is not allowed; use either a task's id or --all",
            id="a grant to nobody",
        ),
        pytest.param(
            ("grant", "T", "--all", "--multiplier", "2", *WHY),
            "TASK: 'T' is not allowed; use either a task's id or --all",
            id="a grant to one and all",
        ),
        pytest.param(
            ("grant", "--all", "--limit", "task.tokens=9", *WHY),
            "--limit: ['task.tokens=9'] is not allowed; use --multiplier with --all",
            id="one limit for all",
        ),
        *[
            pytest.param(
                ("grant", "T", "--multiplier", multiplier, *WHY),
                f"--multiplier: '{multiplier}' is not allowed; use a number above 1, at most 10",
                id=f"multiplier {multiplier}",
            )
            for multiplier in ("1", "10.1", "-2", "much", "NaN", "Infinity")
        ],
        *[
            pytest.param(
                ("grant", "T", "--limit", limit, *WHY),
                f"--limit: '{limit}' is not allowed; use PHASE.METRIC=NUMBER or "
                "task.METRIC=NUMBER, such as THINK.tokens=9000; "
                "METRIC is tokens, latency_ms, cost_usd",
                id=f"limit {limit}",
            )
            for limit in ("9000", "THINK=9000", "THINK.words=9000", ".tokens=9", "THINK.tokens=x")
        ],
        pytest.param(
            ("grant", "T", "--limit", "THINK.tokens=1.5", *WHY),
            "--limit: 'THINK.tokens=1.5' is not allowed; use a whole number above 0 after the =",
            id="half a token",
        ),
        pytest.param(
            ("grant", "T", "--limit", "task.cost_usd=0", *WHY),
            "--limit: 'task.cost_usd=0' is not allowed; use a number above 0 after the =",
            id="a limit of nothing",
        ),
        pytest.param(
            ("grant", "T", "--limit", "A.tokens=9", "--limit", "A.tokens=8", *WHY),
            "--limit: 'A.tokens=8' is not allowed; use A.tokens only once",
            id="one cell twice",
        ),
        pytest.param(
            ("mode", "strict", *WHY),
            "MODE: 'strict' is not allowed; use observe, partial, enforce",
            id="a mode that is none",
        ),
        pytest.param(("mode", "observe"), "Missing option '--reason'", id="a mode without reason"),
        pytest.param(
            ("reclassify", "T", *WHY),
            "--complexity, --importance: 'neither' is not allowed; use one of them, or both",
            id="a reclassification as before",
        ),
        pytest.param(
            ("reclassify", "T", "--importance", "huge", *WHY),
            "--importance: 'huge' is not allowed; use low, medium, high, critical",
            id="an importance that is none",
        ),
        pytest.param(("explain", "T"), "Missing option '--text'", id="an explanation of silence"),
        pytest.param(
            ("justify", "T", "perhaps"),
            "ANSWER: 'perhaps' is not allowed; use approve, refuse",
            id="an answer that is none",
        ),
        pytest.param(
            ("justify", "T"), "Missing argument 'approve|refuse'", id="a review without an answer"
        ),
        pytest.param(("justify",), "Missing argument 'TASK'", id="a review of nothing"),
        pytest.param(
            ("audit", "--since", "yesterday"),
            "--since: 'yesterday' is not allowed; use how long ago, such as 90m, 24h or 7d; or a time "
            "such as 2026-11-22T21:00:00Z",
            id="an audit since a word",
        ),
        pytest.param(
            ("audit", "--limit", "0"),
            "--limit: '0' is not allowed; use a whole number from 1 to 10000",
            id="an audit of nothing",
        ),
        pytest.param(
            ("audit", "T", "U"),
            "Got unexpected extra argument(s) (U)",
            id="an audit of two tasks",
        ),
        pytest.param(
            ("recover", "T", "--end", "--partition", "1", *WHY),
            "--partition: 1 is not allowed; use it where a record is rebuilt: without --close-phase, "
            "--end and --refold",
            id="a partition where the task says it",
        ),
        pytest.param(
            ("recover", "T", "--end", "--refold", *WHY),
            "--close-phase, --end, --refold: '--end, --refold' is not allowed; "
            "use one of them, or none",
            id="two recoveries",
        ),
        *[
            pytest.param(
                ("dead-letters", "show", number),
                f"N: '{number}' is not allowed; use PARTITION:OFFSET of the refused record, such as "
                "0:42 or executions/0:42, as `stoploss dead-letters` lists it",
                id=f"letter {number}",
            )
            for number in ("42", "0:", ":1", "a:1", "0:1:2", "0:1234567890123456789")
        ],
        *[
            pytest.param(
                ("dead-letters", "--since", since),
                f"--since: '{since}' is not allowed; use how long ago, such as 90m, 24h or 7d; or a "
                "time such as 2026-11-22T21:00:00Z",
                id=f"letters since {since}",
            )
            for since in ("yesterday", "5w", "m", "2026-11-22T21:00:00")
        ],
        pytest.param(
            ("dead-letters", "--json", "show", "0:1"),
            "--json: 'before show' is not allowed; use it after that",
            id="an option of the list before another command",
        ),
        pytest.param(
            ("dead-letters", "show", "0:1", "--original", "--json"),
            "--original: '--json' is not allowed; use one of them",
            id="an original that is JSON and is not",
        ),
        pytest.param(
            ("dead-letters", "replay", "0:1"),
            "Missing option '--reason'",
            id="a replay for nothing",
        ),
        pytest.param(
            ("dead-letters", "replay", "--reason", " "),
            "--reason: ' ' is not allowed; use 1 to 4000 characters",
            id="a replay without a word",
        ),
        pytest.param(
            ("dead-letters", "replay", "0:1", "--since", "1h", *WHY),
            "--refused-for, --since: 'given' is not allowed; use them without N: N says which",
            id="a letter chosen twice",
        ),
        pytest.param(
            ("dead-letters", "replay", "0:1", "0:2", "--file", "x", *WHY),
            "--file: 'x' is not allowed; use it with exactly one N",
            id="one event for two letters",
        ),
        pytest.param(
            ("dead-letters", "replay", "0:1", "--file", "no-such.json", *WHY),
            "--file: 'no-such.json' is not allowed; use a file that can be read "
            "(No such file or directory)",
            id="a corrected event that is not there",
        ),
        pytest.param(
            ("policy", "apply", "no-such.toml"),
            "FILE: 'no-such.toml' is not allowed; use a file that can be read "
            "(No such file or directory)",
            id="a policy that is not there",
        ),
        pytest.param(
            ("policy", "check", "no-such.toml"),
            "FILE: 'no-such.toml' is not allowed; use a file that can be read "
            "(No such file or directory)",
            id="a policy to check that is not there",
        ),
        pytest.param(
            ("replay", "."),
            "FILE: '.' is not allowed; use events as JSON lines, or a log of claude-code, codex, "
            "usage-jsonl (no *.jsonl or *.jsonl.gz in this folder)",
            id="replay of an empty folder",
        ),
        *[
            pytest.param(
                (command, "--dir", "/etc/passwd"),
                "--dir: '/etc/passwd' is not allowed; use a folder (this is a file)",
                id=f"{command} in a file",
            )
            for command in ("tasks", "doctor", "up")
        ],
        *[
            pytest.param(
                (*command, "--dir", "no-such"),
                "no-such: there is no data folder of stoploss; start one with `stoploss up --dir ",
                id=f"{command[0]} where nothing ever ran",
            )
            for command in (
                ("tasks",),
                ("task", "T"),
                ("watch",),
                ("alerts",),
                ("verify",),
                ("doctor",),
                ("dead-letters",),
                ("policy", "show"),
                ("topics", "create"),
                ("grant", "T", "--multiplier", "2", *WHY),
                ("mode", "observe", *WHY),
                ("reclassify", "T", "--complexity", "tiny", *WHY),
                ("explain", "T", "--text", "because"),
                ("justify", "T", "approve"),
                ("audit",),
                ("recover", "T", "--end", *WHY),
            )
        ],
        pytest.param(
            ("recover", "T", *WHY, "--dir", "no-such"),
            "no-such: there is no data folder of stoploss; start one with `stoploss up --dir ",
            id="a rebuild where nothing ever ran",
        ),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_is_allowed(
    arguments: tuple[str, ...],
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STOPLOSS_BOOTSTRAP_SERVERS", raising=False)
    ran = run(capsys, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.error_lines) == 1
    assert ran.err.removeprefix(f"{tmp_path}/").startswith(line)


def test_a_wrong_setting_names_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOPLOSS_BOOTSTRAP_SERVERS", "kafka")
    ran = run(capsys, "tasks")
    assert ran.code == 2
    assert ran.err == "bootstrap_servers: 'kafka' is not allowed; use host:port, host:port …\n"


def test_a_kafka_that_does_not_answer_is_exit_code_3_after_the_timeout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOPLOSS_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    ran = run(capsys, "tasks", "--timeout", "0.1")
    assert (ran.code, ran.out, len(ran.error_lines)) == (3, "", 1)
    assert ran.err.startswith("Kafka at 127.0.0.1:1 does not answer within 0.1 s")
