"""What was asked of the figures, and how each is read from the lines that a measure prints."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

Line = Mapping[str, Any]
Lines = Sequence[Line]

STREAMS = "kafka-streams"
PEERS = frozenset({"faust", "quix-streams"})


class Seen(msgspec.Struct, frozen=True):
    """A figure as it is shown, and whether it is what was asked for."""

    shown: str
    is_met: bool


class Goal(msgspec.Struct, frozen=True):
    """One thing that was asked for. `seen` is None where it was not measured."""

    measure: str
    what: str
    wanted: str
    seen: Callable[[Lines], Seen | None]


def _system(lines: Lines, name: str) -> Line | None:
    """Return what was measured of a system; a peer may run out of time, the ledger may not."""
    for line in lines:
        if line.get("system") == name and (line.get("finished", True) or name in PEERS):
            return line
    return None


def _best_streams(lines: Lines) -> Line | None:
    """Return the fastest variant of Kafka Streams that was measured."""
    found = [line for line in lines if f"{line.get('system')}".startswith(STREAMS)]
    return max(found, key=lambda line: float(line["events_per_s"]), default=None)


def _faster(
    peer: Callable[[Lines], Line | None], least: float, system: str = "ledger"
) -> Callable[[Lines], Seen | None]:
    def seen(lines: Lines) -> Seen | None:
        own, other = _system(lines, system), peer(lines)
        if own is None or other is None or not other["events_per_s"]:
            return None
        ratio = own["events_per_s"] / other["events_per_s"]
        return Seen(f"{ratio:.2f}× of {other['system']}", ratio >= least)

    return seen


def _less(field: str, most: float, system: str = "ledger") -> Callable[[Lines], Seen | None]:
    """Our CPU or memory as a multiple of Kafka Streams'."""

    def seen(lines: Lines) -> Seen | None:
        own, other = _system(lines, system), _best_streams(lines)
        if own is None or other is None:
            return None
        ratio = own[field] / other[field]
        return Seen(f"{own[field]} ÷ {other[field]} = {ratio:.2f}", ratio <= most)

    return seen


def _latencies(lines: Lines) -> dict[int, Line]:
    """Return the ledger's, by rate."""
    return {line["events_per_s"]: line for line in lines if line.get("system") == "ledger"}


def _sent(line: Line) -> str:
    """Say so where the sender did not reach its rate; empty where it did."""
    missed = line["sent_per_s"] < line["events_per_s"] * 0.99
    return f" (sent: {line['sent_per_s']:,})" if missed else ""


def _latency(lines: Lines) -> Seen | None:
    calm = _latencies(lines).get(2_000)
    if calm is None:
        return None
    is_met = not _sent(calm) and calm["p50_ms"] <= 4 and calm["p99_ms"] <= 15
    return Seen(f"{calm['p50_ms']} / {calm['p99_ms']}{_sent(calm)}", is_met)


def _sooner(lines: Lines) -> Seen | None:
    """4 / 15 ms where Kafka Streams had 13 / 58: the same, whatever the machine."""
    calm, peer = _latencies(lines).get(2_000), _system(lines, STREAMS)
    if calm is None or peer is None:
        return None
    p50, p99 = calm["p50_ms"] / peer["p50_ms"], calm["p99_ms"] / peer["p99_ms"]
    return Seen(f"{p50:.2f} / {p99:.2f}", p50 <= 0.31 and p99 <= 0.26)


def _under_load(lines: Lines) -> Seen | None:
    by_rate = _latencies(lines)
    if not {2_000, 50_000} <= by_rate.keys():
        return None
    calm, busy = by_rate[2_000], by_rate[50_000]
    p50, p99 = busy["p50_ms"] / calm["p50_ms"], busy["p99_ms"] / calm["p99_ms"]
    sent = f"{_sent(calm)}{_sent(busy)}"
    return Seen(f"{p50:.1f}× / {p99:.1f}×{sent}", not sent and max(p50, p99) <= 4)


def _crowd(lines: Lines) -> Seen | None:
    by_tasks = {
        line["tasks"]: line["throughput"] for line in lines if line.get("figure") == "crowd"
    }
    if not {1_000, 1_000_000} <= by_tasks.keys():
        return None
    ratio = by_tasks[1_000_000]["events_per_s"] / by_tasks[1_000]["events_per_s"]
    return Seen(f"{ratio:.2f}", ratio >= 0.8)


def _restore(lines: Lines) -> Seen | None:
    by_tasks = {line["tasks"]: line for line in lines if line.get("figure") == "restore"}
    if 1_000_000 not in by_tasks:
        return None
    many = by_tasks[1_000_000]
    base_mb = by_tasks[0]["rss_mb"] if 0 in by_tasks else 0
    kilobytes = (many["peak_mb"] - base_mb) / 1_000
    is_met = many["finished"] and many["seconds"] <= 60 and kilobytes <= 4
    return Seen(f"{many['seconds']} s, {kilobytes:.1f} KB", is_met)


def _gap(lines: Lines) -> Seen | None:
    for line in lines:
        if line.get("figure") == "gaps":
            shown = f"p50 {line['p50_s']}, p99 {line['p99_s']} s, {line['tasks']:,} tasks"
            return Seen(shown, line["p99_s"] <= 10 and line["tasks"] >= 100_000)
    return None


def _added(lines: Lines) -> Line | None:
    return next((line for line in lines if line.get("figure") == "client_stress_added"), None)


def _task_time(lines: Lines) -> Seen | None:
    added = _added(lines)
    if added is None:
        return None
    return Seen(f"{added['task_time_percent']} %", added["task_time_percent"] < 2)


def _transition(lines: Lines) -> Seen | None:
    added = _added(lines)
    if added is None:
        return None
    micros = added["transition_p999_us"]
    return Seen(f"{micros} µs", micros <= 1_000)


def _arrived(lines: Lines) -> Seen | None:
    for line in lines:
        if line.get("figure") == "client_stress_arrived":
            is_met = not line["lost"] and line["counted_by_ledger"] == line["reports"]
            shown = f"{line['reports']:,} reports, {line['lost']} lost, {line['counted_by_ledger']:,} counted"
            return Seen(shown, is_met)
    return None


def _killed(lines: Lines) -> Seen | None:
    kills = [line for line in lines if line.get("figure") == "client_stress_killed"]
    if not kills:
        return None
    oldest_s = max(line["lost_age_max_s"] for line in kills)
    lost = sum(line["lost_too_old"] for line in kills)
    return Seen(f"{lost}; the oldest that was lost: {oldest_s} s", lost == 0)


def _quix(lines: Lines) -> Line | None:
    return _system(lines, "quix-streams")


def _faust(lines: Lines) -> Line | None:
    return _system(lines, "faust")


GOALS = (
    Goal("throughput", "throughput, of Kafka Streams'", "≥ 1.2×", _faster(_best_streams, 1.2)),
    Goal(
        "throughput",
        "the same, the ledger compiled",
        "≥ 1.2×",
        _faster(_best_streams, 1.2, "ledger-compiled"),
    ),
    Goal("throughput", "throughput, of quix-streams' exactly-once", "≥ 10×", _faster(_quix, 10)),
    Goal("throughput", "throughput, of faust's", "≥ 90×", _faster(_faust, 90)),
    Goal(
        "throughput",
        "CPU s per million events, of Kafka Streams'",
        "≤ 1×",
        _less("cpu_s_per_million", 1.0),
    ),
    Goal(
        "throughput",
        "the same, the ledger compiled",
        "≤ 1×",
        _less("cpu_s_per_million", 1.0, "ledger-compiled"),
    ),
    Goal("throughput", "peak memory in MB, of Kafka Streams'", "≤ half", _less("peak_mb", 0.5)),
    Goal("latency", "event → decision at 2,000/s, p50 / p99 ms", "≤ 4 / ≤ 15", _latency),
    Goal("latency", "the same, of Kafka Streams' that commits every 10 ms", "≤ 0.31 / ≤ 0.26", _sooner),
    Goal("latency", "the same at 50,000/s, of that at 2,000/s", "≤ 4×", _under_load),
    Goal("crowd", "throughput with 1,000,000 open tasks ÷ with 1,000", "≥ 0.8", _crowd),
    Goal("restore", "restart with 1,000,000 open tasks, and memory of each", "≤ 60 s, ≤ 4 KB", _restore),
    Goal("gap", "nobody decides after kill -9, 100,000 open tasks", "p99 ≤ 10 s", _gap),
    Goal("client_stress", "the client's share of a task's time", "< 2 %", _task_time),
    Goal("client_stress", "added to a transition at p99.9, the broker killed", "≤ 1 ms", _transition),
    Goal("client_stress", "after the broker's death", "nothing lost, nothing twice", _arrived),
    Goal("client_stress", "enforcer killed: lost, and older than a second", "0", _killed),
)  # fmt: skip
