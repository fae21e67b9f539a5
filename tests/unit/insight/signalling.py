"""Signals told as text: one a line, and after the arrow all that it causes; without one, nothing.

    begin ×60                            # sixty tasks began
    block ×7                             → stop_loss_rate all firing 1
    tick  +24h                           → stop_loss_rate all resolved 2

`+90s` moves the clock first, by a tick (also ms, m, h, d); `own=-10m` is the signal's own time from it.
Verbs: `begin`, `late` (a start that completes one), `block`, `calls N unknown=N estimated=N`,
`class ID TIER as_of=N`, `answer ID false|right`, `heard SOURCE queue=N ms=N×N failed=N`, `tick`;
`is critical was=low ago=2h` (of a task that began so long ago), `awaits TASK why=TEXT`, `settled TASK`,
`over TASK`, `reads WHO`. `partition=N` is that of the record which the signal follows from.
Of `×N` equal signals, what any of them causes is expected.
"""

import re
import shlex
from collections.abc import Iterable
from typing import Any

from schemas.alerts import Alert, Origin
from schemas.envelope import Envelope
from schemas.fields import Complexity, Importance
from schemas.quantiles import with_value
from schemas.sketches import Histogram
from streams.budget.alert_rules import AlertRules
from streams.insight.look import OpenBreaker, Outcome
from streams.insight.monitors import fold_signal
from streams.insight.signals import (
    BlockAnswered,
    BlockClassed,
    CallsMade,
    ReportRead,
    ReviewAwaited,
    ReviewSettled,
    RulesSet,
    Signal,
    SourceHeard,
    TaskBegan,
    TaskBlocked,
    TaskClassed,
    Tick,
)
from tests.unit.budget.story import duration_ms
from tests.unit.budget.world import START_MS
from tests.unit.insight.watching import edge_text

# The topic that each verb's signals follow from.
TOPICS = {
    "begin": "lifecycle",
    "late": "lifecycle",
    "block": "decisions",
    "class": "decisions",
    "calls": "executions",
    "answer": "feedback",
    "heard": "health",
    "is": "lifecycle",
    "awaits": "lifecycle",
    "settled": "lifecycle",
    "over": "lifecycle",
    "reads": "audit",
    "tick": "signals",
}


class Monitors:
    """The owner of all windows."""

    def __init__(self, rules: AlertRules | None = None) -> None:
        self.windows: dict[str, bytes] = {}
        self.outcomes: list[Outcome] = []
        self.place = 0
        if rules is not None:
            self.take([RulesSet(at_ms=START_MS, origin=Origin("audit", 0, 0), rules=rules)])

    def take(self, signals: Iterable[Signal]) -> list[Outcome]:
        found: list[Outcome] = []
        for signal in signals:
            place = Origin("signals", 0, self.place)
            found += fold_signal(self.windows, signal, place)
            self.place += 1
        self.outcomes += found
        return found

    @property
    def messages(self) -> list[str]:
        return [one.data.message for one in self.outcomes if isinstance(one, Envelope)]

    @property
    def edges(self) -> list[str]:
        return [outcome_text(one) for one in self.outcomes]

    @property
    def standing(self) -> dict[str, str]:
        """How each alert stands in the end."""
        return {
            one.subject: one.data.state.value
            for one in self.outcomes
            if isinstance(one, Envelope) and isinstance(one.data, Alert)
        }


class Teller:
    """Makes signals of lines; the next offset of each topic is kept."""

    def __init__(self) -> None:
        self.clock_ms = START_MS
        self._offsets: dict[tuple[str, int], int] = {}

    def signals(self, line: str) -> list[Signal]:
        verb, *words = shlex.split(line)
        times, named, plain = 1, {}, []
        own_ms, moved = 0, False
        for word in words:
            if re.fullmatch(r"\+\d+[a-z]+", word):
                self.clock_ms += duration_ms(word)
                moved = verb != "tick"
            elif re.fullmatch(r"×\d+", word):
                times = int(word[1:])
            elif word.startswith("own="):
                own_ms = duration_ms(word.removeprefix("own="))
            elif "=" in word:
                name, _, value = word.partition("=")
                named[name] = value
            else:
                plain.append(word)
        at_ms = self.clock_ms + own_ms
        ticks: list[Signal] = [Tick(at_ms=self.clock_ms)] if moved else []
        partition = int(named.get("partition", 0))
        return ticks + [
            made(verb, plain, named, at_ms, self._origin(verb, partition)) for _ in range(times)
        ]

    def told(self, text: str) -> list[Signal]:
        return [one for line in text.splitlines() if line.strip() for one in self.signals(line)]

    def _origin(self, verb: str, partition: int) -> Origin:
        topic = TOPICS[verb]
        offset = self._offsets.get((topic, partition), 0)
        self._offsets[topic, partition] = offset + 1
        return Origin(topic, partition, offset)


def made(verb: str, words: list[str], named: dict[str, str], at_ms: int, origin: Origin) -> Signal:
    numbers = {name: int(value) for name, value in named.items() if value.lstrip("-").isdigit()}
    base: dict[str, Any] = {"at_ms": at_ms, "origin": origin}
    match verb:
        case "begin" | "late":
            return TaskBegan(
                **base,
                importance=Importance.MEDIUM,
                budgeted_importance=Importance.MEDIUM,
                complexity=Complexity.MEDIUM,
                is_late=verb == "late",
            )
        case "block":
            return TaskBlocked(**base, enforced=False)
        case "calls":
            unknown, estimated = numbers.get("unknown", 0), numbers.get("estimated", 0)
            return CallsMade(**base, calls=int(words[0]), unknown=unknown, estimated=estimated)
        case "class":
            decision_id, tier = words
            return BlockClassed(
                **base, decision_id=decision_id, tier=tier, as_of=numbers.get("as_of", 0)
            )
        case "answer":
            decision_id, answer = words
            return BlockAnswered(**base, decision_id=decision_id, false_positive=answer == "false")
        case "heard":
            return SourceHeard(
                **base,
                source=words[0],
                queue_depth=numbers.get("queue"),
                transition_ms=histogram(named["ms"]) if "ms" in named else None,
                batch_failures=numbers.get("failed"),
            )
        case "is":
            return TaskClassed(
                **base,
                began_ms=at_ms - duration_ms(named.get("ago", "0ms")),
                importance=Importance(words[0]),
                previous=Importance(named["was"]) if "was" in named else None,
            )
        case "awaits":
            why = named.get("why", "it loses data")
            return ReviewAwaited(**base, task_id=words[0], by=named.get("by", "ann"), why=why)
        case "settled" | "over":
            how = "has ended" if verb == "over" else "is critical: approved by bob"
            return ReviewSettled(**base, task_id=words[0], how=how, is_over=verb == "over")
        case "reads":
            return ReportRead(**base, reader=words[0])
        case _:
            return Tick(at_ms=at_ms)


def histogram(text: str) -> Histogram:
    """`300×60` as a histogram: sixty of 300 ms."""
    value, _, times = text.partition("×")
    return with_value(Histogram(), float(value), int(times or 1))


def monitored(text: str, rules: AlertRules | None = None) -> Monitors:
    """Tell signals, and check what each line causes."""
    monitors, teller = Monitors(rules), Teller()
    for line in text.splitlines():
        told, _, _ = line.partition("#")
        signals, _, expected = told.partition("→")
        if signals.strip():
            caused = [outcome_text(one) for one in monitors.take(teller.signals(signals))]
            assert caused == [each.strip() for each in expected.split(";") if each.strip()], line
    return monitors


def outcome_text(outcome: Outcome) -> str:
    if isinstance(outcome, OpenBreaker):
        return f"{outcome.mode.value} because of {outcome.source}"
    return edge_text(outcome.data)
