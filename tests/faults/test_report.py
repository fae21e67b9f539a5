"""The page about reliability says what the runs say."""

from pathlib import Path

import msgspec
import pytest

from tests.faults.claims import CLAIMS
from tests.faults.faults import KINDS
from tests.faults.report import load_runs, main, render
from tests.faults.result import Enforced, Events, Gaps, Result, Told, Viewed, gaps
from tests.fuzz.run import Run

TESTS = Path(__file__).parents[1]
EVENTS = Events(
    records=1_000_000,
    distinct=990_000,
    twice=10_000,
    overtaken=1,
    held_back=1,
    binary=1,
    bad=1,
    tasks=1,
    emitted=500,
    emitter_dropped=0,
    sent_again_after_failures=1,
)
RUN = Result(
    commit="0123456789ab",
    seed=7,
    minutes=60.2,
    cores=2,
    session_ms=3_000,
    faults={"kill": 3, "kill before_commit": 2, "zombie": 1},
    attempted={"kill": 3, "kill before_commit": 2, "zombie": 4},
    zombies_fenced=2,
    events=EVENTS,
    enforced=Enforced(said=9_000, arrived=8_990, repeated=70, on_disk=500),
    told=Told(distinct={"alerts": 4_000}, repeated={"alerts": 12}),
    viewed=Viewed(keys=7_000, rebuilds=5, damaged=9),
    model_calls=2_000_000,
    gaps_ms=Gaps(6, 1_000, 4_040, 4_100),
    gaps_ms_by_fault={"zombie": Gaps(1, 4_100, 4_100, 4_100)},
    verify={"verify": "exit 0"},
    differences=[],
)


@pytest.mark.parametrize(
    ("longest_ms", "summed_up"),
    [
        pytest.param([], Gaps(0, 0, 0, 0), id="none"),
        pytest.param([7], Gaps(1, 7, 7, 7), id="one"),
        pytest.param([3, 1, 2], Gaps(3, 2, 3, 3), id="in no order"),
        pytest.param(range(1, 202), Gaps(201, 101, 199, 201), id="many"),
    ],
)
def test_gaps_are_values_that_occurred(longest_ms: list[int], summed_up: Gaps) -> None:
    assert gaps(list(longest_ms)) == summed_up


@pytest.mark.parametrize(
    "row",
    [
        "| hour | 0123456789ab | 7 | 60 | 2 | 3 | 1,000,500 | 990,000 | 10,000 | 6 |",
        "| zombie | 1 | 4 |",
        "| **all kills of processes of ours** | 5 |",
        "| told by Kafka that another owns the partition | 2 |",
        "| hour | 9,000 | 8,990 | 500 | 70 |",
        "| hour | alerts | 4,000 | 12 |",
        "| hour | 7,000 | 5 | 9 |",
        "| hour | all | 6 | 1.0 | 4.0 | 4.1 |",
        "|  | zombie | 1 | 4.1 | 4.1 | 4.1 |",
    ],
)
def test_a_run_stands_in_every_table(row: str) -> None:
    assert row in render({"hour": RUN})


def test_a_run_that_had_no_enforcers_agents_or_view_says_nothing_of_them() -> None:
    older = msgspec.structs.replace(RUN, enforced=None, told=None, viewed=None)
    page = render({"hour": older})
    assert "## Enforcers" not in page
    assert "## What agents wrote" not in page
    assert "## What the view shows" not in page
    assert "Agents and the view run beside" not in page


def test_the_introduction_says_of_agents_view_and_redis_what_has_happened_and_no_more() -> None:
    faults = {
        "kill agent": 1,
        "kill agent_after_fold": 2,
        "kill agent_in_table": 1,
        "redis kill": 1,
        "redis keys deleted": 3,
    }
    some = msgspec.structs.replace(RUN, faults=faults)
    page = unfolded(render({"hour": some, "older": msgspec.structs.replace(RUN, told=None)}))
    assert (
        "Agents and the view run beside the ledgers in hour. There agents are killed at any moment and at 2 "
        "of 9 named places of a batch. The Redis of the view is killed and bereft of keys. What a fault"
    ) in page
    assert "In none of these runs has happened: `kill after_init_transactions`, " in page
    assert "`kill view`, `redis flush`, `redis positions back`, " in page
    everything = msgspec.structs.replace(RUN, faults=dict.fromkeys(KINDS, 1))
    page = unfolded(render({"hour": everything, "two": everything}))
    assert (
        "ledgers in hour and two. There agents are killed at any moment, all at once and at 9"
        in page
    )
    assert "The view is killed. The Redis of the view is killed, emptied, set back" in page
    assert "In none of these runs" not in page


def unfolded(page: str) -> str:
    return " ".join(page.split())


@pytest.mark.parametrize("place", sorted({place for _, places in CLAIMS for place in places}))
def test_what_is_said_to_be_tried_is_tried(place: str) -> None:
    file, _, test = place.partition("::")
    assert f"def {test or 'test_'}" in (TESTS / file).read_text()


def test_differences_are_named_and_nothing_is_said_of_none() -> None:
    assert "## Differences" not in render({"hour": RUN})
    differing = msgspec.structs.replace(RUN, differences=["one is missing"])
    assert "- hour: one is missing" in render({"hour": differing})


def test_a_page_that_is_not_current_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reliability").mkdir()
    (tmp_path / "reliability" / "hour.json").write_bytes(msgspec.json.encode(RUN))
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == (
        "reliability.md is not current: python -m tests.faults.report\n"
    )
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0


def test_the_page_that_is_kept_is_current_and_its_runs_are_clean() -> None:
    runs = load_runs()
    assert runs
    assert all(run.clean for run in runs.values())
    assert main(["--check"]) == 0


def test_the_page_says_how_much_bad_input_was_tried_and_what_was_raised() -> None:
    run = Run("abc", 7, 60.0, 1_000, {"refused: not_json": 900, "folded": 100}, 2, [])

    page = render({}, [run, run])

    assert "| 7 | abc | 1,000 | 60 | 2 |" in page
    assert "| refused: not_json | 1,800 |" in page
