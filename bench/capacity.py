"""What 10, 1,000 and 100,000 agents at once need, computed from what was measured.

    python -m bench.capacity [--take OUTPUT …]

Reads `bench/figures.json` and writes `docs/capacity.md`. With `--take`, the figures are first taken
anew from saved outputs of `bench`, `bench.scaling --partitions 1`, `bench.restore`, `bench.view` and
`bench.alerts`. What no output has said yet is not measured, and nothing is computed from it.
"""

import argparse
import json
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import msgspec

from bench.runs import flaws
from schemas.topics import PARTITIONS_PRODUCTION

FIGURES = Path(__file__).with_name("figures.json")
PAGE = Path(__file__).parent.parent / "docs" / "capacity.md"
AGENTS = (10, 1_000, 100_000)

# An agent: what is assumed, not measured.
EVENTS_OF_AN_AGENT_PER_S = 0.12  # a call of a model each ten seconds, and its phases
TASK_S = 1_800.0
PEAK = 3.0  # the busiest minute, as a multiple of the mean
RETENTION_S = 24 * 3_600.0  # an ended task's, in the built-in policy

# What we ask for.
USED_AT_PEAK_MAX = 0.5  # of what was measured: room for catching up, and for one process less
RESTORED_WITHIN_S = 60.0
PROCESS_MB_MAX = 16_000
PROCESSES_MIN = 2
BROKERS_MIN = 3
REPLICATION = 3
EVENTS_KEPT_S = 30 * 24 * 3_600.0


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured, of one ledger process and one broker.

    `task_bytes` and `process_mb` are memory; `task_record_bytes` is a task's state on the broker
    when it is written alone, as it is where agents are far apart.

    Of the view, of `stoploss agents alerts` and of Redis: None is not measured. CPU is that of a million
    events of the ledger; `redis_task_bytes` with all that Redis takes, spread over its tasks.
    """

    events_per_s: int
    partition_events_per_s: int
    restored_tasks_per_s: int
    process_mb: int
    task_bytes: int
    event_bytes: int
    task_record_bytes: int
    view_mb: int | None = None
    view_cpu_s_per_million: float | None = None
    alerts_mb: int | None = None
    alerts_cpu_s_per_million: float | None = None
    redis_task_bytes: int | None = None


class Need(msgspec.Struct, frozen=True):
    """What so many agents need. Memory is that of all ledger processes together, in MB.

    `view_` and `alerts_` are of one process each; cores are those that it keeps busy at the peak. None:
    what it follows from is not measured.
    """

    agents: int
    events_per_s: float
    events_per_s_peak: float
    tasks_in_memory: int
    partitions: int
    processes: int
    brokers: int
    memory_mb: int
    process_mb: int
    restore_s: float
    written_mb_per_s: float
    events_on_disk_gb: int
    view_mb: int | None
    view_cores: float | None
    alerts_mb: int | None
    alerts_cores: float | None
    redis_mb: int | None


def need(agents: int, measured: Figures) -> Need:
    """Return what `agents` at once need, one process being allowed to be missing."""
    mean = agents * EVENTS_OF_AN_AGENT_PER_S
    peak = mean * PEAK
    tasks = ceil(agents * (1 + RETENTION_S / TASK_S))
    tasks_mb = tasks * measured.task_bytes / 1e6
    processes = max(
        PROCESSES_MIN,
        ceil(peak / (measured.events_per_s * USED_AT_PEAK_MAX)),
        # Whoever is left takes over what one of them had.
        1 + ceil(tasks_mb / (PROCESS_MB_MAX - measured.process_mb)),
        ceil(tasks / (measured.restored_tasks_per_s * RESTORED_WITHIN_S)),
    )
    least = max(
        PARTITIONS_PRODUCTION, ceil(peak / (measured.partition_events_per_s * USED_AT_PEAK_MAX))
    )
    partitions = ceil(least / processes) * processes
    written = mean * (measured.event_bytes + measured.task_record_bytes)
    # The broker of the measurement took that much, beside a ledger on the same two cores.
    broker = measured.events_per_s * measured.event_bytes * USED_AT_PEAK_MAX
    return Need(
        agents=agents,
        events_per_s=round(mean, 1),
        events_per_s_peak=round(peak, 1),
        tasks_in_memory=tasks,
        partitions=partitions,
        processes=processes,
        brokers=max(BROKERS_MIN, ceil(written * PEAK * REPLICATION / broker)),
        memory_mb=ceil(processes * measured.process_mb + tasks_mb),
        process_mb=ceil(measured.process_mb + tasks_mb / max(1, processes - 1)),
        restore_s=round(tasks / processes / measured.restored_tasks_per_s, 1),
        written_mb_per_s=round(written / 1e6, 3),
        events_on_disk_gb=ceil(mean * EVENTS_KEPT_S * measured.event_bytes * REPLICATION / 1e9),
        view_mb=measured.view_mb,
        view_cores=_cores(peak, measured.view_cpu_s_per_million),
        alerts_mb=measured.alerts_mb,
        alerts_cores=_cores(peak, measured.alerts_cpu_s_per_million),
        redis_mb=(
            None
            if measured.redis_task_bytes is None
            else ceil(tasks * measured.redis_task_bytes / 1e6)
        ),
    )


def _cores(events_per_s: float, cpu_s_per_million: float | None) -> float | None:
    return None if cpu_s_per_million is None else round(events_per_s * cpu_s_per_million / 1e6, 3)


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:,}"


def page(measured: Figures) -> str:
    """Return `docs/capacity.md`."""
    needs = [need(agents, measured) for agents in AGENTS]

    def row(what: str, name: str) -> str:
        return f"| {what} | {' | '.join(_shown(getattr(each, name)) for each in needs)} |\n"

    head = f"| agents at once | {' | '.join(f'{each.agents:,}' for each in needs)} |\n"
    rows = "".join(row(what, name) for what, name in ROWS)
    return TEXT.format(
        table=f"{head}|---{'|---' * len(needs)}|\n{rows}",
        every_s=10,
        events=EVENTS_OF_AN_AGENT_PER_S,
        task_min=TASK_S / 60,
        peak=PEAK,
        retention_h=RETENTION_S / 3_600,
        used=USED_AT_PEAK_MAX * 100,
        restored_s=RESTORED_WITHIN_S,
        process_gb=PROCESS_MB_MAX / 1_000,
        replication=REPLICATION,
        kept_days=EVENTS_KEPT_S / 86_400,
        **{name: _shown(value) for name, value in msgspec.to_builtins(measured).items()},
    )


ROWS = (
    ("events/s", "events_per_s"),
    ("events/s at the peak", "events_per_s_peak"),
    ("tasks in memory", "tasks_in_memory"),
    ("**partitions**", "partitions"),
    ("**ledger processes**", "processes"),
    ("**brokers**", "brokers"),
    ("**memory of all ledgers, MB**", "memory_mb"),
    ("memory of one, another one gone, MB", "process_mb"),
    ("restart of one, s", "restore_s"),
    ("written, MB/s, before replication", "written_mb_per_s"),
    ("`events` on disk, GB, replicated", "events_on_disk_gb"),
    ("memory of the view, MB", "view_mb"),
    ("cores of the view at the peak", "view_cores"),
    ("memory of `agents alerts`, MB", "alerts_mb"),
    ("cores of `agents alerts` at the peak", "alerts_cores"),
    ("**memory of Redis, MB**", "redis_mb"),
)

TEXT = """\
# Capacity

Written by `python -m bench.capacity` from `bench/figures.json`; change the figures there, not here.

{table}
## What is assumed of an agent
It calls a model each {every_s} s: {events:g} events/s with its phases. A task takes {task_min:g} min. The
busiest minute has {peak:g} times the mean. An ended task stays in memory for {retention_h:g} h, the
retention of the built-in policy: that, not the open tasks, is most of the memory. Where agents
take longer tasks, or the policy keeps them for less, memory and restart fall in proportion.

## What is asked for
At the peak, at most {used:g} % of what was measured is used. A restart takes at most {restored_s:g} s. One
process may be missing: there are at least two, and each has room for what another had, in
{process_gb:g} GB. Partitions are a multiple of the processes, and never grow later: begin with what
the largest number you expect needs. Replication is {replication}, and `events` is kept for {kept_days:g} days.

## What was measured
| | |
|---|---|
| a ledger process, 4 partitions | {events_per_s} events/s |
| one with one partition | {partition_events_per_s} events/s |
| a restart | {restored_tasks_per_s} tasks/s |
| a process without tasks | {process_mb} MB |
| a task with four phases, in memory | {task_bytes} bytes |
| an event | {event_bytes} bytes |
| a task's state, written alone | {task_record_bytes} bytes |
| a view with 100,000 tasks, MB | {view_mb} |
| its CPU for a million events of the ledger, s | {view_cpu_s_per_million} |
| `agents alerts` with what starts it, MB | {alerts_mb} |
| its CPU for a million events of the ledger, s | {alerts_cpu_s_per_million} |
| a task in Redis, bytes: all that Redis takes, spread over 100,000 | {redis_task_bytes} |
| `agents governance`, `baselines`, `reports`, `delivery` | not measured |

What is not measured is said to be so until `--take` has been given an output of `python -m bench.view` or
`python -m bench.alerts`; of the other agents there is no measure. The tasks of that Redis have one phase.
The CPU of a view is that beside a ledger at full load, the CPU of the agent that at a steady rate.

The broker was measured only together with a ledger, on two cores: what it took then is taken as
all that it can. So brokers are counted too high rather than too low, until it is measured alone.
[bench/README.md](../bench/README.md) says how each figure is repeated.
"""


def taken(outputs: list[Path], before: Figures) -> Figures:
    """Return the figures with what the outputs say newly; the last line counts."""
    found = msgspec.to_builtins(before)
    base_mb: int | None = None
    for line in _lines(outputs):
        if flaws(line):
            continue  # the time was over before it had done its work
        match line:
            case {"figure": "throughput", "system": "ledger", "events_per_s": rate}:
                found["events_per_s"] = rate
            case {
                "figure": "scaling",
                "workers": 1,
                "throughput": {"system": "ledger", "partitions": 1, **one},
            }:
                found["partition_events_per_s"] = one["events_per_s"]
            case {"figure": "restore", "tasks": 0, "rss_mb": rss_mb}:
                base_mb = found["process_mb"] = rss_mb
            case {"figure": "restore", "tasks": tasks, "longest_s": longest_s, "peak_mb": peak_mb}:
                found["restored_tasks_per_s"] = round(tasks / longest_s)
                if base_mb is not None:
                    found["task_bytes"] = round((peak_mb - base_mb) * 1e6 / tasks)
            case {"figure": "view_load", "cpu_s_per_million": cpu_s}:
                found["view_cpu_s_per_million"] = cpu_s
            case {"figure": "view_rebuild", "tasks": tasks, "redis_mb": redis_mb, "peak_mb": mb}:
                found["view_mb"] = round(mb)
                found["redis_task_bytes"] = round(redis_mb * 1e6 / tasks)
            case {"figure": "alerts", "events": events, "cpu_s": cpu_s, "peak_mb": mb}:
                found["alerts_mb"] = mb
                found["alerts_cpu_s_per_million"] = round(cpu_s / events * 1e6, 2)
            case _:
                pass
    return msgspec.convert(found, Figures)


def _lines(outputs: list[Path]) -> Iterator[dict[str, Any]]:
    for output in outputs:
        for line in output.read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--take", type=Path, nargs="+", default=[], metavar="OUTPUT")
    asked = parser.parse_args()
    measured = msgspec.json.decode(FIGURES.read_bytes(), type=Figures)
    if asked.take:
        measured = taken(asked.take, measured)
        FIGURES.write_text(json.dumps(msgspec.to_builtins(measured), indent=2) + "\n")
    PAGE.write_text(page(measured))


if __name__ == "__main__":
    main()
