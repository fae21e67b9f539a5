"""What was asked of the figures, and how each is read from the lines that a measure prints.

Where a goal has two stages, each is a row of its own. Figures of the prototypes were ratios on one
machine, but for seconds of CPU, which depend on the machine: those are judged as they were asked for,
and as a multiple of what Kafka Streams takes in the same run.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from bench.runs import Line, Lines, flaws

STREAMS = "kafka-streams"
STRESS_S = 600

Runs = Sequence[Line | None]


class Seen(msgspec.Struct, frozen=True):
    """A figure as it is shown, and whether it is what was asked for."""

    shown: str
    is_met: bool


class Goal(msgspec.Struct, frozen=True):
    """One thing that was asked for.

    `runs` finds what it is read from: None for each run that was not measured. `judge` gets those
    runs one by one, and need not ask whether they have shown anything: `seen` does.
    """

    measure: str
    what: str
    wanted: str
    runs: Callable[[Lines], Runs]
    judge: Callable[..., Seen]

    def seen(self, lines: Lines) -> Seen | None:
        """Return what was seen, None where it was not measured; no flawed run meets a goal."""
        runs = self.runs(lines)
        measured = [run for run in runs if run is not None]
        if not measured or len(measured) < len(runs):
            return None
        found = self.judge(*measured)
        wrong = dict.fromkeys(flaw for run in measured for flaw in flaws(run))
        if not wrong:
            return found
        return Seen(f"{found.shown} ({'; '.join(wrong)})", is_met=False)


def _first(lines: Lines, **wanted: object) -> Line | None:
    """Return the first line with these values."""
    for line in lines:
        if all(line.get(name) == value for name, value in wanted.items()):
            return line
    return None


def _both(*found: Callable[[Lines], Runs]) -> Callable[[Lines], Runs]:
    return lambda lines: [run for runs in found for run in runs(lines)]


OURS = ("ledger", "ledger-librdkafka")
COMPILED = ("ledger-compiled", "ledger-compiled-librdkafka")
FASTEST, FRUGAL, SMALLEST = "events_per_s", "cpu_s_per_million", "peak_mb"


def _rates(found: Iterable[Line]) -> Sequence[Line]:
    """Return what says how fast a system is; a measure may keep it a level deeper."""
    return [line.get("throughput", line) for line in found]


def _best(found: Iterable[Line], field: str) -> Line | None:
    """Return the fastest, or whoever takes least."""
    sign = -1 if field == FASTEST else 1
    return min(found, key=lambda line: sign * float(line[field]), default=None)


def _named(lines: Lines, names: Sequence[str]) -> Line | None:
    """Return the fastest of those systems."""
    return _best((line for line in _rates(lines) if line.get("system") in names), FASTEST)


def _streams(lines: Lines, field: str) -> Line | None:
    """Return the best of all settings of Kafka Streams that were measured."""
    return _best(
        (line for line in _rates(lines) if f"{line.get('system')}".startswith(STREAMS)), field
    )


def _beside(*ours: str, peer: str) -> Callable[[Lines], Runs]:
    return lambda lines: [_named(lines, ours), _named(lines, (peer,))]


def _beside_streams(*ours: str, field: str = FASTEST) -> Callable[[Lines], Runs]:
    """The fastest of ours, and what Kafka Streams has best of a field."""
    return lambda lines: [_named(lines, ours), _streams(lines, field)]


def _frugal(*ours: str) -> Callable[[Lines], Runs]:
    """Whichever of ours takes least CPU."""
    return lambda lines: [
        _best((line for line in _rates(lines) if line.get("system") in ours), FRUGAL)
    ]


def _frugal_beside_streams(*ours: str) -> Callable[[Lines], Runs]:
    return _both(_frugal(*ours), lambda lines: [_streams(lines, FRUGAL)])


def _two_workers(*ours: str) -> Callable[[Lines], Runs]:
    """The same, of all that was measured on four partitions, ours with two processes."""

    def runs(lines: Lines) -> Runs:
        four = [line for line in lines if _rates([line])[0].get("partitions") == 4]
        both = [line for line in four if line.get("workers") == 2]
        return [_named(both, ours), _streams(four, FASTEST)]

    return runs


def _faster(least: float) -> Callable[[Line, Line], Seen]:
    def judge(own: Line, other: Line) -> Seen:
        ratio = own["events_per_s"] / max(1, other["events_per_s"])
        return Seen(f"{own['system']}: {ratio:.2f}× of {other['system']}", ratio >= least)

    return judge


def _less(field: str, most: float) -> Callable[[Line, Line], Seen]:
    """Our CPU or memory as a multiple of the other's."""

    def judge(own: Line, other: Line) -> Seen:
        ratio = own[field] / other[field]
        shown = f"{own['system']}: {own[field]} ÷ {other[field]} = {ratio:.2f}"
        return Seen(shown, ratio <= most)

    return judge


def _cpu(most_s: float) -> Callable[[Line], Seen]:
    def judge(own: Line) -> Seen:
        return Seen(f"{own['system']}: {own[FRUGAL]} s", own[FRUGAL] <= most_s)

    return judge


CALM, BUSY = 2_000, 50_000


def _at(rate: int, system: str = "ledger") -> Callable[[Lines], Runs]:
    return lambda lines: [_first(lines, figure="latency", system=system, events_per_s=rate)]


def _latency(calm: Line) -> Seen:
    is_met = calm["p50_ms"] <= 4 and calm["p99_ms"] <= 15
    return Seen(f"{calm['p50_ms']} / {calm['p99_ms']}", is_met)


def _sooner(calm: Line, peer: Line) -> Seen:
    """4 / 15 ms where Kafka Streams had 13 / 58: the same, whatever the machine."""
    p50, p99 = calm["p50_ms"] / peer["p50_ms"], calm["p99_ms"] / peer["p99_ms"]
    return Seen(f"{p50:.2f} / {p99:.2f}", p50 <= 0.31 and p99 <= 0.26)


def _under_load(calm: Line, busy: Line) -> Seen:
    p50, p99 = busy["p50_ms"] / calm["p50_ms"], busy["p99_ms"] / calm["p99_ms"]
    return Seen(f"{p50:.1f}× / {p99:.1f}×", max(p50, p99) <= 4)


def _with_tasks(figure: str, *tasks: int) -> Callable[[Lines], Runs]:
    return lambda lines: [_first(lines, figure=figure, tasks=count) for count in tasks]


def _crowd(few: Line, many: Line) -> Seen:
    ratio = many["throughput"]["events_per_s"] / few["throughput"]["events_per_s"]
    return Seen(f"{ratio:.2f}", ratio >= 0.8)


def _restore(none: Line, many: Line) -> Seen:
    kilobytes = (many["peak_mb"] - none["rss_mb"]) / 1_000
    is_met = many["seconds"] <= 60 and kilobytes <= 4
    return Seen(f"{many['seconds']} s, {kilobytes:.1f} KB", is_met)


def _gap(gaps: Line) -> Seen:
    """Of so few kills that none lies beyond the p99, the longest gap is called what it is."""
    is_p99 = gaps["kills"] > 100 and gaps["p99_s"] is not None
    most_s = gaps["p99_s"] if is_p99 else gaps["max_s"]
    name = "p99" if is_p99 else f"the longest of {gaps['kills']} kills"
    shown = f"p50 {gaps['p50_s']}, {name} {most_s} s, {gaps['tasks']:,} tasks"
    return Seen(shown, most_s <= 10 and gaps["tasks"] >= 100_000)


def _worked(figure: str) -> Callable[[Lines], Runs]:
    """Return both runs of the enforcer, and what came of them."""
    return lambda lines: [
        _first(lines, figure=figure),
        *_both_kinds(lines),
    ]


def _both_kinds(lines: Lines) -> Runs:
    """Return the run without the client, and that with it."""
    return [_first(lines, figure="client_stress", client=client) for client in (False, True)]


def _task_time(added: Line, *_worked: Line) -> Seen:
    return Seen(f"{added['task_time_percent']} %", added["task_time_percent"] < 2)


def _flat(without: Line, with_client: Line) -> Seen:
    """What the enforcer notes for itself grows in both runs, and is taken off."""
    grown, own = (line["rss_mb_end"] - line["rss_mb_quarter"] for line in (with_client, without))
    percent = (grown - own) / with_client["rss_mb_quarter"] * 100
    shown = (
        f"{with_client['rss_mb_quarter']} to {with_client['rss_mb_end']} MB,"
        f" without it {without['rss_mb_quarter']} to {without['rss_mb_end']}: {percent:+.1f} %"
    )
    is_long = min(line.get("seconds", 0) for line in (without, with_client)) >= STRESS_S
    return Seen(shown if is_long else f"{shown}, less than ten minutes", is_long and percent <= 5)


def _transition(added: Line, *_worked: Line) -> Seen:
    micros = added["transition_p999_us"]
    return Seen(f"{micros} µs", micros <= 1_000)


def _arrived(came: Line, *_worked: Line) -> Seen:
    is_met = not came["lost"] and came["counted_by_ledger"] == came["reports"]
    shown = (
        f"{came['reports']:,} reports, {came['lost']} lost, {came['counted_by_ledger']:,} counted"
    )
    return Seen(shown, is_met)


def _kills(lines: Lines) -> Runs:
    """Return that with the broker alive, and that with it dead."""
    return [
        _first(lines, figure="client_stress_killed", broker_alive=is_alive)
        for is_alive in (True, False)
    ]


def _killed(*kills: Line) -> Seen:
    oldest_s = max(line["lost_age_max_s"] for line in kills)
    lost = sum(line["lost_too_old"] for line in kills)
    return Seen(f"{lost}; the oldest that was lost: {oldest_s} s", lost == 0)


def _one(figure: str, **wanted: object) -> Callable[[Lines], Runs]:
    return lambda lines: [_first(lines, figure=figure, **wanted)]


def _view_beside_ledger(seen: Line) -> Seen:
    """Every look at it counts: what is shown must never be older."""
    slower = seen["events_per_s"] / max(1, seen["events_per_s_without_a_view"])
    shown = f"at most {seen['age_max_ms']:,} ms, {seen['events_per_s']:,} events/s, {slower:.2f}× of those without a view"
    return Seen(shown, seen["age_max_ms"] < 2_000)


def _p99_below(most_ms: float) -> Callable[[Line], Seen]:
    def judge(seen: Line) -> Seen:
        return Seen(f"p50 {seen['p50_ms']}, p99 {seen['p99_ms']} ms", seen["p99_ms"] < most_ms)

    return judge


def _rebuilt(seen: Line) -> Seen:
    shown = f"{seen['seconds']} s, {seen['tasks']:,} tasks"
    return Seen(shown, seen["seconds"] < 20 and seen["tasks"] >= 100_000)


def _goals(
    measure: str, *goals: tuple[str, str, Callable[[Lines], Runs], Callable[..., Seen]]
) -> Iterable[Goal]:
    return (Goal(measure, *goal) for goal in goals)


ONE = "throughput, one process {} ÷ one tuned thread of Kafka Streams"
TWO = "throughput, `--workers 2`{} ÷ the best of all settings of Kafka Streams"

GOALS = (
    *_goals(
        "throughput",
        (ONE.format("on aiokafka"), "first ≥ 1×", _beside_streams("ledger"), _faster(1.0)),
        (ONE.format("on aiokafka, compiled"), "first ≥ 1×", _beside_streams("ledger-compiled"), _faster(1.0)),
        (ONE.format("with the best driver"), "then ≥ 1.5×", _beside_streams(*OURS), _faster(1.5)),
        (ONE.format("with the best driver, compiled"), "then ≥ 1.5×", _beside_streams(*COMPILED), _faster(1.5)),
    ),
    *_goals(
        "scaling",
        *(
            (TWO.format(compiled), f"{stage} ≥ {least}×", _two_workers(*ours), _faster(least))
            for stage, least in (("first", 1.2), ("then", 1.8))
            for compiled, ours in (("", OURS), (", compiled", COMPILED))
        ),
    ),
    *_goals(
        "throughput",
        *(
            row
            for stage, most_s, most in (("first", 2.4, 1.0), ("then", 1.5, 0.625))
            for compiled, ours in (("", OURS), (", compiled", COMPILED))
            for row in (
                (f"CPU s per million events{compiled}", f"{stage} ≤ {most_s}", _frugal(*ours), _cpu(most_s)),
                (f"CPU{compiled} ÷ the least of Kafka Streams'", f"{stage} ≤ {most:g}×", _frugal_beside_streams(*ours), _less(FRUGAL, most)),
            )
        ),
        ("peak memory in MB, of Kafka Streams'", "≤ half", _beside_streams("ledger", field=SMALLEST), _less(SMALLEST, 0.5)),
        ("throughput, of quix-streams' exactly-once", "≥ 10×", _beside("ledger", peer="quix-streams"), _faster(10)),
        ("throughput, of faust's", "≥ 90×", _beside("ledger", peer="faust"), _faster(90)),
    ),
    *_goals(
        "latency",
        ("event → decision at 2,000/s, p50 / p99 ms", "≤ 4 / ≤ 15", _at(CALM), _latency),
        (
            "the same, of Kafka Streams' that commits every 10 ms",
            "≤ 0.31 / ≤ 0.26",
            _both(_at(CALM), _at(CALM, STREAMS)),
            _sooner,
        ),
        ("the same at 50,000/s, of that at 2,000/s", "≤ 4×", _both(_at(CALM), _at(BUSY)), _under_load),
    ),
    Goal("crowd", "throughput with 1,000,000 open tasks ÷ with 1,000", "≥ 0.8", _with_tasks("crowd", 1_000, 1_000_000), _crowd),
    Goal("restore", "restart with 1,000,000 open tasks, and memory of each", "≤ 60 s, ≤ 4 KB", _with_tasks("restore", 0, 1_000_000), _restore),
    Goal("gap", "nobody decides after kill -9, 100,000 open tasks", "p99 ≤ 10 s", _one("gaps"), _gap),
    *_goals(
        "client_stress",
        ("the client's share of a task's time", "< 2 %", _worked("client_stress_added"), _task_time),
        ("the client's memory from a quarter of ten minutes to their end", "flat: ≤ 5 %", _both_kinds, _flat),
        ("added to a transition at p99.9, the broker killed", "≤ 1 ms", _worked("client_stress_added"), _transition),
        ("after the broker's death", "nothing lost, nothing twice", _worked("client_stress_arrived"), _arrived),
        ("enforcer killed: lost, and older than a second", "0", _kills, _killed),
    ),
    *_goals(
        "view",
        ("how old the view is beside a ledger at full load", "< 2 s", _one("view_load"), _view_beside_ledger),
        ("decision → visible in Redis at 2,000/s", "p99 < 100 ms", _one("view_shown", events_per_s=CALM), _p99_below(100)),
        ("the view built anew, 100,000 tasks", "< 20 s", _one("view_rebuild"), _rebuilt),
    ),
    Goal("alerts", "breach → alert at 2,000/s", "p99 < 1 s", _one("alerts", events_per_s=CALM), _p99_below(1_000)),
    *_goals(
        "report_time",
        ("a report of a usual size", "p99 < 50 ms", _one("report_time", size="usual"), _p99_below(50)),
        ("the largest report", "p99 < 50 ms", _one("report_time", size="largest"), _p99_below(50)),
    ),
)  # fmt: skip
