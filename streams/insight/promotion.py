"""Whether a mode may be entered that holds more: each condition with its value and what is wanted.

Enforcement is earned step by step: observe, partial, enforce. Source: budget model, "Calibration and
promotion"; the user's document, scenarios 1 to 3.
"""

from collections.abc import Sequence

from msgspec import Struct

from schemas.fields import Mode
from schemas.topics import DAY_MS
from streams.insight.gate import TASKS_MIN, WRONG_SHARE_MAX, Gate
from streams.insight.intervals import Interval
from streams.insight.numbers import counted, duration, tenths

OBSERVED_MIN_MS = 14 * DAY_MS
RUNAWAY_SHARE_MIN = 0.10
# Below this few tasks run away: to be told of them is enough.
ALERTS_ALONE_BELOW = 0.05
STEPS = (Mode.OBSERVE, Mode.PARTIAL, Mode.ENFORCE)
NAMED_MAX = 5


class Runaways(Struct, frozen=True):
    """How many of the tasks that could be judged ran away."""

    tasks: int
    runaways: int
    share: float
    interval: Interval


class Situation(Struct, frozen=True, kw_only=True):
    """What a promotion depends on.

    `modes` are those of the partitions, `silent` the partitions of which no ledger is heard; `critical`
    names the critical alerts that fire.
    """

    modes: tuple[Mode, ...]
    gate: Gate
    observed_ms: int
    runaways: Runaways
    critical: tuple[str, ...]
    silent: tuple[int, ...]


class Condition(Struct, frozen=True):
    """One condition: what is, what is wanted, and whether it holds."""

    name: str
    value: str
    wanted: str
    holds: bool


class Promotion(Struct, frozen=True, kw_only=True):
    """Whether the step to a mode may be made; `advice` is what else the numbers say."""

    to: Mode
    holds: bool
    conditions: list[Condition]
    advice: str | None = None

    @property
    def failing(self) -> list[Condition]:
        """The conditions that do not hold."""
        return [each for each in self.conditions if not each.holds]


def next_mode(modes: Sequence[Mode]) -> Mode:
    """Return the mode after the one that holds; after the last, and of none, it is the last one's own."""
    held = [STEPS.index(mode) for mode in modes]
    return STEPS[min(min(held, default=0) + 1, len(STEPS) - 1)]


def promotion(situation: Situation, to: Mode) -> Promotion:
    """Return whether the step may be made, with every condition.

    Args:
        situation: what is known.
        to: partial or enforce.
    """
    assert to is not Mode.OBSERVE, "nobody has to earn it"
    conditions = [_mode(situation.modes, to), _tasks(situation.gate)]
    conditions.append(_share(situation.gate))
    if to is Mode.ENFORCE:
        conditions.append(_upper_end(situation.gate))
    conditions += [
        _observed(situation.observed_ms),
        _runaways(situation.runaways),
        _alerts(situation.critical),
        _feed(situation.silent),
    ]
    return Promotion(
        to=to,
        holds=all(each.holds for each in conditions),
        conditions=conditions,
        advice=_advice(situation.runaways),
    )


def _mode(modes: Sequence[Mode], to: Mode) -> Condition:
    before = STEPS[STEPS.index(to) - 1]
    found = sorted(set(modes), key=STEPS.index)
    value = ", ".join(mode.value for mode in found) or "none yet"
    return Condition("mode", value, before.value, found == [before])


def _tasks(gate: Gate) -> Condition:
    tasks = gate.total.tasks
    return Condition(
        "tasks judged", f"{tasks:,} under this policy", f"at least {TASKS_MIN}", tasks >= TASKS_MIN
    )


def _share(gate: Gate) -> Condition:
    total = gate.total
    value = f"{tenths(total.wrong_share)} ({total.wrong:,} of {total.tasks:,})"
    # Of no tasks nothing was wrong, and nothing is shown by it.
    holds = total.tasks > 0 and total.wrong_share < WRONG_SHARE_MAX
    return Condition("wrongly blocked", value, f"below {tenths(WRONG_SHARE_MAX)}", holds)


def _upper_end(gate: Gate) -> Condition:
    upper = gate.total.interval.upper
    return Condition(
        "wrongly blocked, upper end",
        f"{tenths(upper)} (95 %)",
        f"below {tenths(WRONG_SHARE_MAX)}",
        gate.enforce.holds,
    )


def _observed(observed_ms: int) -> Condition:
    return Condition(
        "observed",
        duration(observed_ms),
        f"at least {OBSERVED_MIN_MS // DAY_MS} days",
        observed_ms >= OBSERVED_MIN_MS,
    )


def _runaways(found: Runaways) -> Condition:
    return Condition(
        "runaway tasks",
        f"{tenths(found.share)} ({found.runaways:,} of {found.tasks:,})",
        f"above {tenths(RUNAWAY_SHARE_MIN)}",
        found.share > RUNAWAY_SHARE_MIN,
    )


def _alerts(critical: Sequence[str]) -> Condition:
    named = ", ".join(critical[:NAMED_MAX])
    more = f" and {len(critical) - NAMED_MAX} more" if len(critical) > NAMED_MAX else ""
    return Condition("critical alerts", f"{named}{more}" or "none", "none", not critical)


def _feed(silent: Sequence[int]) -> Condition:
    numbers = ", ".join(str(each) for each in silent)
    where = f"no ledger of {'partition' if len(silent) == 1 else 'partitions'} {numbers}"
    value = where if silent else "every ledger is heard of"
    return Condition("feed", value, "every ledger is heard of", not silent)


def _advice(found: Runaways) -> str | None:
    if not found.tasks or found.share >= ALERTS_ALONE_BELOW:
        return None
    return (
        f"{found.runaways:,} of {counted(found.tasks, 'task')} ran away, fewer than "
        f"{tenths(ALERTS_ALONE_BELOW)}: alerts alone are enough, there is little that a block could "
        "save"
    )
