"""`python -m tests.faults.report`: writes docs/reliability.md from the runs in docs/reliability/.

With --check it writes nothing, and exits with 1 where the file is not what it would write.
"""

import argparse
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from streams.kafka import failpoints
from tests.faults.claims import CLAIMS
from tests.faults.faults import KINDS
from tests.faults.result import Gaps, Result
from tests.fuzz.run import Run

DOCS = Path(__file__).parents[2] / "docs"
RUNS, PAGE = DOCS / "reliability", DOCS / "reliability.md"
WIDTH = 105
BAD_INPUT = "bad-input"  # a folder of the runs, for those of `tests.fuzz`

INTRODUCTION = """\
# Reliability: what was broken on purpose, and what came of it

Written by `python -m tests.faults.report` from the runs in [reliability/](reliability/); changes made
here are lost. A run is `python -m tests.faults --seed N --minutes M --json FILE`: a real broker, real
`stoploss ledger` processes, a load of families of tasks (with events that come twice, late, in another
order, in binary mode, without a sequence, and that are no events), and one fault after the other.

A fault is counted only where it was seen to have happened: a process that died by its own failpoint
and said so, a ledger that was stopped until another had restored what it owned, a broker with another
process id, connections that were there when they were cut. At the end everything is consumed, then
`stoploss verify` folds all events again and compares every record that was written, and, apart from
it, every model call that was sent once has to be counted once.

Where enforcers are killed, each speaks through the client with a spool, and the next one sends what
is left of it: what was on disk has to arrive, what arrived to be counted once, however often it stands
there, and what was lost with a memory is the end of what that one said.
"""

ONLOOKERS = """\
What a fault of those has to be found out by the view counts as happened only where the view said that it
had found out. At the end `tests/faults/told.py` holds what agents have written against what their stages
make of the same topics in one go, with no faust and no restart, and `tests/faults/shown.py` every key of
the view against one that reads the topics into an empty Redis. Which keys somebody has deleted or
overwritten there nothing can find out ([redis.md](redis.md#what-is-found-out)): where that was done,
`stoploss view --rebuild` is run before the view is judged.
"""

# What is done to them, as the introduction says it of runs in which it happened.
TO_AGENTS = {"kill agent": "at any moment", "kill agents": "all at once"}
TO_VIEW = {"kill view": "killed"}
TO_REDIS = {
    "redis kill": "killed",
    "redis flush": "emptied",
    "redis positions back": "set back in how far it is",
    "redis turn back": "set back in who wrote last",
    "redis meta overwritten": "overwritten where it says whose the keys are",
    "redis keys deleted": "bereft of keys",
    "redis keys overwritten": "given other values",
}

TOLD = """\
Of each topic, and of what agents tell themselves, how many ids stand there; and how many records more,
each of which says once more what was said under its id. Every audit entry and every baseline is the
same, byte for byte but for the order of JSON, as undisturbed; so are the edges of every alert in their
order, and the last report of every task. Left out is what depends on which topic was read first, also
where nothing happens: which record an edge names as its cause, what similar tasks had used when a report
was written and the sentences that say so, the number of a report's revision, and when an alert about a
source of `health` began.
"""

VIEWED = """\
So many keys hold what those of a view made anew hold; all but `meta` and `progress`, which say when the
view looked. Damaged: so many held something else, because of what nothing finds out, until the rebuild
on command.
"""

WAITED = """\
The longest that an event waited in a partition, from its append to the commit of its decision as a
reader sees it, after each fault; most of it is the time-out after which the group gives the partitions
of a process that is gone to another.
"""


TRIED = """\
Beside these runs, each time the tests run; `python -m tests.simulation --minutes 30` tries
thousands of short histories more.
"""


BROKEN = """\
`python -m tests.fuzz --cases N --seed N --json FILE` breaks real events, policies and logs, a byte or a
value at a time. Nothing may be raised, what is refused changes nothing and is kept with its bytes, and
the state in the end is one that can be restored.
"""


def load_runs(folder: Path = RUNS) -> dict[str, Result]:
    """Return the runs that are kept, by their names.

    Raises:
        msgspec.ValidationError: a file is no result.
    """
    return {
        path.stem: msgspec.json.decode(path.read_bytes(), type=Result)
        for path in sorted(folder.glob("*.json"))
    }


def load_bad_input(folder: Path = RUNS / BAD_INPUT) -> list[Run]:
    """Return the runs of `tests.fuzz` that are kept.

    Raises:
        msgspec.ValidationError: a file is no such run.
    """
    return [
        msgspec.json.decode(path.read_bytes(), type=Run) for path in sorted(folder.glob("*.json"))
    ]


def render(runs: Mapping[str, Result], bad_input: Sequence[Run] = ()) -> str:
    """Return the page."""
    parts = [
        INTRODUCTION,
        *_onlookers(runs),
        *_never(runs.values()),
        "## Runs\n",
        _runs(runs),
        "\n## Faults that happened, in all runs\n",
        _faults(runs.values()),
        *_enforced(runs),
        *_told(runs),
        *_viewed(runs),
        "\n## How long a decision was late\n",
        WAITED,
        _gaps(runs),
        *_bad_input(bad_input),
        "\n## What is named in a kill\n",
        _points(),
        "\n## What is tried where\n",
        TRIED,
        _claims(),
    ]
    if differing := {name: run for name, run in runs.items() if not run.clean}:
        parts += ["\n## Differences\n", _differences(differing)]
    return "\n".join(parts)


def _onlookers(runs: Mapping[str, Result]) -> Sequence[str]:
    """Return what was done to agents, the view and its Redis, in which runs."""
    having = {name: run for name, run in runs.items() if run.told is not None}
    if not having:
        return []
    happened = {name for run in having.values() for name in run.faults}
    points = [point for point in failpoints.AGENT_POINTS if f"kill {point}" in happened]
    to_agents = [words for name, words in TO_AGENTS.items() if name in happened]
    if points:
        to_agents.append(
            f"at {len(points)} of {len(failpoints.AGENT_POINTS)} named places of a batch"
        )
    said = [f"Agents and the view run beside the ledgers in {_and(having)}."]
    if to_agents:
        said.append(f"There agents are killed {_and(to_agents)}.")
    for whom, done in (("The view is", TO_VIEW), ("The Redis of the view is", TO_REDIS)):
        if to_it := [words for name, words in done.items() if name in happened]:
            said.append(f"{whom} {_and(to_it)}.")
    return [f"{_filled(' '.join(said))}\n{ONLOOKERS}"]


def _never(runs: Iterable[Result]) -> Sequence[str]:
    """Return what a run can do, and none that is kept has done."""
    happened = {name for run in runs for name in run.faults}
    missing = [f"`{name}`" for name in KINDS if name not in happened]
    if not missing:
        return []
    said = f"In none of these runs has happened: {', '.join(missing)}."
    short = "The short runs among the tests have every kind (`tests/faults/test_faults_short.py`)."
    return [f"{_filled(f'{said} {short}')}\n"]


def _and(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _runs(runs: Mapping[str, Result]) -> str:
    rows = [
        [
            name,
            run.commit,
            run.seed,
            f"{run.minutes:.0f}",
            run.cores,
            f"{run.session_ms / 1000:g}",
            _number(run.events.records + run.events.emitted),
            _number(run.events.distinct),
            _number(run.events.twice),
            sum(run.faults.values()),
            ", ".join(f"{what}: {said}" for what, said in run.verify.items()),
            len(run.differences),
        ]
        for name, run in runs.items()
    ]
    heads = ("run", "commit", "seed", "min", "cores", "session s", "records", "distinct events")
    return _table([*heads, "sent twice", "faults", "judges", "differences"], rows)


def _faults(runs: Iterable[Result]) -> str:
    happened: Counter[str] = Counter()
    attempted: Counter[str] = Counter()
    fenced = 0
    for run in runs:
        happened.update(run.faults)
        attempted.update(run.attempted)
        fenced += run.zombies_fenced
    rows: list[Sequence[object]] = [
        [name, happened[name], attempted[name]] for name in sorted(attempted)
    ]
    kills = sum(count for name, count in happened.items() if name.startswith("kill"))
    rows.append(["**all kills of processes of ours**", kills, ""])
    rows.append(["told by Kafka that another owns the partition", fenced, ""])
    return _table(["fault", "happened", "attempted"], rows)


def _enforced(runs: Mapping[str, Result]) -> Sequence[str]:
    rows = [
        [name, *map(_number, (one.said, one.arrived, one.on_disk, one.repeated))]
        for name, run in runs.items()
        if (one := run.enforced) is not None
    ]
    if not rows:
        return []
    heads = ["run", "said", "arrived and counted once", "found on the disk of a dead one"]
    return ["\n## Enforcers that were killed\n", _table([*heads, "arrived again"], rows)]


def _told(runs: Mapping[str, Result]) -> Sequence[str]:
    rows = [
        [name, topic, _number(distinct), _number(told.repeated[topic])]
        for name, run in runs.items()
        if (told := run.told) is not None
        for topic, distinct in told.distinct.items()
    ]
    if not rows:
        return []
    table = _table(["run", "topic", "ids", "records that came again"], rows)
    return ["\n## What agents wrote that were killed\n", TOLD, table]


def _viewed(runs: Mapping[str, Result]) -> Sequence[str]:
    rows = [
        [name, *map(_number, (one.keys, one.rebuilds, one.damaged))]
        for name, run in runs.items()
        if (one := run.viewed) is not None
    ]
    if not rows:
        return []
    table = _table(["run", "keys", "rebuilds", "damaged before the last"], rows)
    return ["\n## What the view shows in the end\n", VIEWED, table]


def _bad_input(runs: Sequence[Run]) -> Sequence[str]:
    if not runs:
        return []
    totals = [
        [run.seed, run.commit, _number(run.cases), f"{run.seconds:.0f}", run.failed] for run in runs
    ]
    became: Counter[str] = Counter()
    for run in runs:
        became.update(run.by_reason)
    return [
        "\n## Bad input\n",
        BROKEN,
        _table(["seed", "commit", "cases", "seconds", "raised something"], totals),
        _table(
            ["what became of them", ""], [[what, _number(n)] for what, n in became.most_common()]
        ),
    ]


def _gaps(runs: Mapping[str, Result]) -> str:
    rows = []
    for name, run in runs.items():
        rows.append([name, "all", *_seconds(run.gaps_ms)])
        rows += [["", fault, *_seconds(gaps)] for fault, gaps in run.gaps_ms_by_fault.items()]
    return _table(["run", "after", "faults", "p50 s", "p99 s", "max s"], rows)


def _seconds(gaps: Gaps) -> list[str]:
    return [str(gaps.count), *(f"{each / 1000:.1f}" for each in (gaps.p50, gaps.p99, gaps.max))]


def _points() -> str:
    return "\n".join(f"- `{point}`" for point in failpoints.POINTS) + (
        "\n\nEach is a place in the commit of a ledger or an operator, or in a batch of an agent; what it means stands in "
        "[failpoints.py](../streams/kafka/failpoints.py).\n"
    )


def _claims() -> str:
    rows = []
    for claim, places in CLAIMS:
        files = dict.fromkeys(place.partition("::")[0] for place in places)
        rows.append([claim, ", ".join(f"`{file}`" for file in files)])
    return _table(["what happens", "in `tests/`"], rows)


def _differences(runs: Mapping[str, Result]) -> str:
    return "\n".join(f"- {name}: {what}" for name, run in runs.items() for what in run.differences)


def _number(count: int) -> str:
    return f"{count:,}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None, docs: Path = DOCS) -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="is the page current")
    asked = parser.parse_args(arguments)
    page = docs / PAGE.name
    kept = docs / RUNS.name
    rendered = render(load_runs(kept), load_bad_input(kept / BAD_INPUT))
    if not asked.check:
        page.write_text(rendered)
        return 0
    if page.exists() and page.read_text() == rendered:
        return 0
    print(f"{page.name} is not current: python -m tests.faults.report", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
