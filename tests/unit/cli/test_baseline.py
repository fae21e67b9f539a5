"""`baseline` says of files what is usual in them, and draws it."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.command_line import run
from tests.unit.cli.usage_logs import write_sessions

AMOUNTS = [*range(1_000, 2_000, 25), 9_000]  # 40 of 1,000 to 1,975, and one far beyond


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_sessions(tmp_path / "usage.jsonl", AMOUNTS)


def test_a_table_of_what_is_usual_and_what_ran_away(
    capsys: pytest.CaptureFixture[str], log: Path
) -> None:
    ran = run(capsys, "baseline", str(log))
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()]
    assert rows[1][:4] == ["THINK", "med/med", "tokens", "41"]
    assert "1 of 41 tasks ran away (above 2 × p75 of their type): 2.4 %, 0.4 to 12.6 % at 95 %" in (
        ran.out
    )
    assert ["robot/s40", "robot", "9,000"] in [row[:3] for row in rows]


def test_json_has_the_sketches_and_what_is_known(
    capsys: pytest.CaptureFixture[str], log: Path
) -> None:
    ran = run(capsys, "baseline", str(log), "--json")
    answer = json.loads(ran.out)
    (one,) = answer["classes"]
    tokens = one["baseline"]["metrics"]["tokens"]
    assert (answer["tasks"], answer["open_tasks"], one["executions"]) == (41, 0, 41)
    assert tokens["p75"] == pytest.approx(1_750, rel=0.01)
    assert sum(tokens["sketch"]["buckets"].values()) == 41
    assert one["unknown_share"]["tokens"] == 0
    assert answer["runaways"]["named"][0]["phase"] == "THINK"


def test_few_tasks_are_not_judged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ran = run(capsys, "baseline", str(write_sessions(tmp_path / "few.jsonl", [5, 5, 500])))
    assert "too few" in ran.out
    assert "dim: fewer than 20 runs, a guess" in ran.out
    assert "0 of 0 tasks ran away" in ran.out


def test_unknown_usage_and_open_tasks_are_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = write_sessions(tmp_path / "log.jsonl", [100, 100])
    unknown = '{"source":"robot:x","session":"u","input_tokens":null,"output_tokens":null}\n'
    file.write_text(file.read_text() + unknown)
    answer = json.loads(run(capsys, "baseline", str(file), "--json").out)
    (one,) = answer["classes"]
    assert one["unknown_share"]["tokens"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_distributions_are_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, log: Path, suffix: str, begins: bytes
) -> None:
    plot = tmp_path / f"plot.{suffix}"
    ran = run(capsys, "baseline", str(log), "--plot", str(plot))
    assert ran.code == 0
    assert plot.read_bytes().startswith(begins)
    assert ran.out.endswith(f"{plot}: drawn\n")


def test_a_history_without_anything_can_be_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    empty, plot = tmp_path / "empty.jsonl", tmp_path / "plot.png"
    empty.write_text("")
    assert run(capsys, "baseline", str(empty), "--plot", str(plot)).code == 0
    assert plot.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            [], "FILE: '' is not allowed; use at least one file, or --from live", id="none"
        ),
        pytest.param(
            ["x.jsonl", "--from", "live"],
            "--from: 'live' is not allowed; use either files or --from live",
            id="both",
        ),
        pytest.param(
            ["--from", "view"], "--from: 'view' is not allowed; use live", id="no such place"
        ),
        pytest.param(
            ["x.jsonl", "--plot", "x.pdf"],
            "--plot: 'x.pdf' is not allowed; use a name that ends in .png or .svg",
            id="a kind of picture that is not drawn",
        ),
        pytest.param(
            ["x.jsonl", "--plot", "no/such/x.png"],
            "--plot: 'no/such/x.png' is not allowed; use a file in a folder that is there",
            id="no such folder",
        ),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    ran = run(capsys, "baseline", *arguments)
    assert (ran.code, ran.out, ran.error_lines) == (2, "", [said])


def test_a_wrong_source_is_refused(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    ran = run(capsys, "baseline", str(log), "--source", "nothing")
    assert ran.code == 2
    assert ran.error_lines[0].startswith("--source: 'nothing' is not allowed; use one of events, ")


def test_without_matplotlib_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:  # noqa: ANN401 - Python's own
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    ran = run(capsys, "baseline", str(log), "--plot", str(log.with_suffix(".png")))
    assert ran.code == 1
    assert ran.error_lines == ["--plot needs matplotlib: pip install 'stoploss[analysis]'"]
