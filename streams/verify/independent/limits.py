"""The arithmetic of a policy: exact, in integers, rounded up once.

Amounts are milli-tokens, milliseconds and nano-dollars; limits are whole tokens, milliseconds and
nano-dollars. Shares are ten-thousandths, since a policy's numbers have at most 4 places.
"""

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from streams.verify.independent.wire import METRICS, Data, nano

LEVELS = ("continue", "notice", "warn", "review", "block")
BLOCK = 4
SCALE = {"tokens": 1000, "latency_ms": 1, "cost_usd": 1}  # of an amount to its limit
PARTS = 10_000
DEFAULT = "default"
# The contract is silent: as high as a limit can be, in tokens, milliseconds, nano-dollars.
LIMIT_MAX = {"tokens": 10**15, "latency_ms": 10**18, "cost_usd": 10**18}
CACHED_MAX = 10_000  # limits of a policy: kinds of work and factors come from outside
TASK = None  # the phase of a task's cell

CellKey = tuple[str | None, str]  # phase, metric
Limits = dict[CellKey, int]


def _fraction(value: Decimal | int) -> Fraction:
    return Fraction(value)


class Policy:
    """A policy document of the wire, as numbers."""

    def __init__(self, document: Data, policy_hash: str) -> None:
        self.version, self.hash = str(document.get("version", "")), policy_hash
        self.phases: Mapping[str, Any] = document["phases"]
        self.listed = [name for name in self.phases if name != DEFAULT]
        self.has_default = DEFAULT in self.phases
        self.closing = frozenset(document["closing_phases"])
        metered = document["metered"]
        self.weights = tuple(
            int(Decimal(metered[name]) * 1000)
            for name in ("input", "cache_read", "cache_write", "output")
        )
        self.multipliers = document["multipliers"]
        self.ladders = {
            (scope, metric): _ladder(document["ladders"][scope][metric])
            for scope in ("phase", "task")
            for metric in METRICS
        }
        clock = document["clock"]
        self.historical_after_ms = int(clock["historical_after_ms"])
        self.execution_max_ms = int(clock["execution_max_ms"])
        self.stuck_after_ms = int(clock["stuck_after_ms"])
        self.abandoned_after_ms = int(clock["abandoned_after_ms"])
        self.retention_ms = int(clock["retention_ms"])
        self.recent_count = int(document["dedupe"]["recent"])
        explanations = document["explanations"]
        self.missing_share = _fraction(explanations["missing_share"])
        self.backtracking_share = _fraction(explanations["backtracking_share"])
        self.inefficient_output_share = _fraction(explanations["inefficient_output_share"])
        self.research_files_read = int(explanations["research_files_read"])
        self.iteration_model_calls = int(explanations["iteration_model_calls"])
        self.requires_review = bool(document["governance"]["critical_requires_review"])
        self._first = {
            name: min((share for _, share in ladder), default=0)
            for name, ladder in self.ladders.items()
        }
        self._cache: dict[Any, int | None] = {}

    def allows(self, phase: str) -> bool:
        """Tell whether events may name this phase."""
        return phase in self.listed or (self.has_default and phase != "task")

    def first_share(self, key: CellKey) -> int:
        """Return the lowest share of a cell's ladder, in ten-thousandths; 0 where it has none."""
        return self._first["task" if key[0] is None else "phase", key[1]]

    def phase_limit(
        self, phase: str, metric: str, factors: tuple[str, str, str | None, Decimal | int]
    ) -> int | None:
        """Return base × complexity × importance × weight × task type × multiplier, rounded up.

        None where the policy gives this phase no base: of cost.
        """
        key = phase, metric, factors
        if key not in self._cache:
            if len(self._cache) >= CACHED_MAX:
                self._cache.clear()
            self._cache[key] = self._phase_limit(phase, metric, factors)
        return self._cache[key]

    def _phase_limit(
        self, phase: str, metric: str, factors: tuple[str, str, str | None, Decimal | int]
    ) -> int | None:
        numbers = self.phases[phase if phase in self.listed else DEFAULT]
        base = numbers.get(metric)
        if base is None:
            return None
        complexity, importance, task_type, multiplier = factors
        of_type = self.multipliers["task_type"].get(task_type, 1)
        product = Fraction(nano(base)) if metric == "cost_usd" else _fraction(base)
        for factor in (
            self.multipliers["complexity"][complexity],
            self.multipliers["importance"][importance],
            numbers["weight"],
            of_type,
            multiplier,
        ):
            product *= _fraction(factor)
        return min(math.ceil(product), LIMIT_MAX[metric])

    def metered(self, usage: Mapping[str, int]) -> int:
        """Return the metered tokens of a report, in milli-tokens."""
        read, write = usage.get("cache_read_tokens", 0), usage.get("cache_write_tokens", 0)
        plain = usage.get("input_tokens", 0) - read - write
        fresh, cached, written, out = self.weights
        return plain * fresh + read * cached + write * written + usage.get("output_tokens", 0) * out


def _ladder(shares: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return level and share, in ten-thousandths, of the levels that a cell goes to."""
    return [
        (level, int(Decimal(shares[name]) * PARTS))
        for level, name in enumerate(LEVELS)
        if level and shares.get(name) not in (None, "never")  # the policy file's word for null
    ]


def multiplied(limits: Limits, factor: Decimal | int) -> Limits:
    """Return limits after a grant by a factor."""
    return {
        key: min(math.ceil(_fraction(factor) * limit), LIMIT_MAX[key[1]])
        for key, limit in limits.items()
    }


def task_sum(limits: Limits, planned: Iterable[str], metric: str) -> int | None:
    """Return the sum over the planned phases; None where one of them has no limit."""
    found = [limits.get((phase, metric)) for phase in planned]
    known = [one for one in found if one is not None]
    return min(sum(known), LIMIT_MAX[metric]) if known and len(known) == len(found) else None


def as_number(amount: int, metric: str, *, is_limit: bool = False) -> Decimal:
    """Return an amount or a limit in the metric's unit, exactly."""
    if metric == "cost_usd":
        return Decimal(amount).scaleb(-9)
    if metric == "tokens" and not is_limit:
        return Decimal(amount).scaleb(-3)
    return Decimal(amount)


def counters_as_numbers(counters: dict[str, int]) -> dict[str, Decimal]:
    """Return counters that are not 0, in their units."""
    return {
        name: Decimal(count).scaleb(-9) if name == "cost_usd" else Decimal(count)
        for name, count in counters.items()
        if count
    }


# The policy that holds until one is set: the tables of the budget model.
_BASES = {
    "STRATEGIZE": (3000, 60000, "1.5"),
    "SPEC": (1500, 40000, "1.0"),
    "PLAN": (2000, 50000, "1.2"),
    "THINK": (4000, 90000, "1.5"),
    "IMPLEMENT": (3500, 120000, "1.0"),
    "VERIFY": (2500, 60000, "0.8"),
    "REVIEW": (2000, 50000, "1.0"),
    "PR": (1500, 30000, "0.6"),
    "MONITOR": (1000, 20000, "0.6"),
}


def built_in() -> Policy:
    """Return the policy of a partition that has none yet."""
    of_task = {"notice": "0.9", "warn": "1.2", "review": "1.5", "block": "2.0"}
    of_phase = {"notice": "0.9", "warn": "1.5", "review": "2.0", "block": None}
    return Policy(
        {
            "version": "",
            "phases": {
                name: {"tokens": tokens, "latency_ms": latency, "weight": Decimal(weight)}
                for name, (tokens, latency, weight) in _BASES.items()
            },
            "closing_phases": ["PR", "MONITOR"],
            "metered": {"input": 1, "cache_read": Decimal("0.1"), "cache_write": 1, "output": 1},
            "multipliers": {
                "complexity": {
                    "tiny": Decimal("0.5"),
                    "small": Decimal("0.8"),
                    "medium": 1,
                    "large": Decimal("1.5"),
                },
                "importance": {
                    "low": Decimal("0.7"),
                    "medium": 1,
                    "high": Decimal("1.5"),
                    "critical": 2,
                },
                "task_type": {},
            },
            "ladders": {
                "phase": dict.fromkeys(METRICS, of_phase),
                "task": {
                    "tokens": of_task,
                    "latency_ms": of_task | {"block": None},
                    "cost_usd": of_task,
                },
            },
            "clock": {
                "historical_after_ms": 5 * 60_000,
                "execution_max_ms": 24 * 3_600_000,
                "stuck_after_ms": 4 * 3_600_000,
                "abandoned_after_ms": 7 * 24 * 3_600_000,
                "retention_ms": 24 * 3_600_000,
            },
            "dedupe": {"recent": 256},
            "explanations": {
                "missing_share": Decimal("0.5"),
                "backtracking_share": Decimal("0.5"),
                "inefficient_output_share": Decimal("0.02"),
                "research_files_read": 20,
                "iteration_model_calls": 10,
            },
            "governance": {"critical_requires_review": False},
        },
        "",
    )
