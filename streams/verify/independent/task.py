"""What one task has used, its limits, and the levels that its cells stand at."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from streams.verify.independent.limits import (
    BLOCK,
    LEVELS,
    PARTS,
    SCALE,
    CellKey,
    Limits,
    Policy,
    multiplied,
    task_sum,
)
from streams.verify.independent.wire import METRICS

CLASS_FLAGS = {
    "critical_unjustified",
    "critical_refused",
    "critical_unreviewed",
    "override_below_limit",
}
# What becomes due, in the order in which it is decided where moment and phase are the same; levels
# come before all else of a moment.
LEVEL_DUE, STUCK_DUE, END_DUE, FORGET_DUE = range(4)
Due = tuple[int, str, int, tuple[CellKey, ...]]  # when, of which phase, what, and of which cells


@dataclass(slots=True)
class Run:
    """One execution of a phase: one attempt."""

    attempt: int
    outcome: str | None = None
    revision: int = 0
    opened_ms: int | None = None  # append time of its phase.started
    started_ms: int | None = None  # and its own time
    source: str | None = None
    is_historical: bool = False
    closed_ms: int | None = None  # by the partition's clock
    measured_ms: int | None = None
    is_confirmed: bool = False  # `measured_ms` is a possible one
    ended_ms: int | None = None  # the own time of what has ended it
    is_skewed: bool = False  # its end said that it took an impossible time
    has_skewed_usage: bool = False
    usage_ms: int = 0
    metered: int = 0
    counters: dict[str, int] = field(default_factory=dict)

    def estimates(self) -> bool:
        """Tell whether its latency grows with the clock."""
        return self.opened_ms is not None and self.closed_ms is None and not self.is_historical

    def latency_ms(self, at_ms: int, max_ms: int) -> int:
        """Return its latency; one that is impossible counts as none."""
        if self.measured_ms is not None:
            return self.measured_ms
        if self.opened_ms is None:
            return self.usage_ms
        if self.is_historical:
            return 0
        latency_ms = (at_ms if self.closed_ms is None else self.closed_ms) - self.opened_ms
        return latency_ms if latency_ms <= max_ms else 0


@dataclass(slots=True)
class Block:
    """When a cell came to block, by input and clock, and what had been used then."""

    at: tuple[int, int]
    used: int


@dataclass(slots=True)
class Cell:
    """A limit, and the level that it stands at; `firm`: what a measured latency has confirmed."""

    limit: int
    first: int  # the amount, times `PARTS`, that reaches its first level
    used: int = 0  # of tokens and cost; latency is the sum over the runs
    level: int = 0
    firm: int = 0


@dataclass(slots=True, eq=False)
class Task:
    """A task, from its first event to its retention."""

    id: str
    policy: Policy
    last_ms: int
    is_known: bool = False  # its task.started was seen
    parent: str | None = None
    complexity: str = "medium"
    importance: str = "medium"
    justification: str | None = None
    approved: bool | None = None
    planned: list[str] | None = None
    multiplier: Decimal | int = 1
    owner: str | None = None
    team: str | None = None
    task_type: str | None = None
    overrides: dict[str, dict[str, int]] = field(default_factory=dict)
    replaced: Limits = field(default_factory=dict)  # the limits that overrides stand in for
    grants: list[Decimal | dict[str, dict[str, int]]] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    outcome: str | None = None
    ended_ms: int | None = None
    limits_version: int = 1
    spent_tokens: int = 0  # with what its descendants have spent, also where no cell counts it
    spent_cost: int = 0
    cells: dict[CellKey, Cell] = field(default_factory=dict)
    phases: dict[str, dict[int, Run]] = field(default_factory=dict)
    open_phase: str | None = None
    open_run: Run | None = None
    flags: set[str] = field(default_factory=set)
    blocks: dict[CellKey, Block] = field(default_factory=dict)  # of cells that stand at block
    verdict: int = 0
    decisions: int = 0
    inherited_from: str | None = None
    is_blocked: bool = False  # by a cell of its own
    sequences: dict[str, int] = field(default_factory=dict)
    recent: deque[tuple[str, str]] = field(default_factory=deque)
    due_ms: int | None = None  # the earliest entry of the heap
    last_offset: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.ended_ms is None

    # Limits

    def budgeted_importance(self) -> str:
        """Return critical as high, where it is not justified or not approved as it must be."""
        if self.importance != "critical":
            return self.importance
        if not self.has_justification() or self.approved is False:
            return "high"
        return "critical" if self.approved or not self.policy.requires_review else "high"

    def has_justification(self) -> bool:
        """Tell whether somebody has said why it is critical."""
        return bool(self.justification and self.justification.strip())

    def planned_phases(self) -> list[str]:
        """Return what is planned: all that the policy lists, where nothing else was said."""
        return self.policy.listed if self.planned is None else self.planned

    def computed(self, also: Iterable[str] = ()) -> Limits:
        """Return the limits by policy, class, overrides and grants; `also` of these phases.

        `replaced` is set by the way.
        """
        policy = self.policy
        factors = (self.complexity, self.budgeted_importance(), self.task_type, self.multiplier)
        limits: Limits = {}
        self.replaced = {}
        for phase in dict.fromkeys(
            [*self.policy.listed, *self.planned_phases(), *self.overrides, *self.phases, *also]
        ):
            if phase == "task":
                continue
            override = self.overrides.get(phase, {})
            for metric in METRICS:
                own = policy.phase_limit(phase, metric, factors)
                self._put(limits, (phase, metric), own, override)
        of_task = self.overrides.get("task", {})
        for metric in METRICS:
            own = task_sum(limits, self.planned_phases(), metric)
            self._put(limits, (None, metric), own, of_task)
        for grant in self.grants:
            limits = _granted(limits, grant)
        return limits

    def _put(self, limits: Limits, key: CellKey, own: int | None, override: dict[str, int]) -> None:
        limit = override.get(key[1], own)
        if limit is not None:
            limits[key] = limit
        if key[1] in override and own is not None:
            self.replaced[key] = own

    def flag_class(self) -> None:
        """Set the flags that say why it is not budgeted as it asked for."""
        self.flags -= CLASS_FLAGS
        if self.budgeted_importance() != self.importance:
            if not self.has_justification():
                self.flags.add("critical_unjustified")
            else:
                is_refused = self.approved is False
                self.flags.add("critical_refused" if is_refused else "critical_unreviewed")
        for (phase, metric), own in self.replaced.items():
            if self.overrides["task" if phase is None else phase][metric] < own:
                self.flags.add("override_below_limit")

    def set_limits(self) -> None:
        """Compute the limits anew; what was used and the levels stay."""
        limits = self.computed()
        self.flag_class()
        for key in [key for key in self.cells if key not in limits]:
            if not self.cells[key].used:
                del self.cells[key]
        for key, limit in limits.items():
            cell = self.cells.get(key)
            first = self.policy.first_share(key) * limit * SCALE[key[1]]
            if cell is None:
                self.cells[key] = Cell(limit, first, self._used_before(key))
            else:
                cell.limit, cell.first = limit, first

    def _used_before(self, key: CellKey) -> int:
        phase, metric = key
        if phase is None:
            return {"tokens": self.spent_tokens, "cost_usd": self.spent_cost}.get(metric, 0)
        runs = self.phases.get(phase, {}).values()
        if metric == "tokens":
            return sum(run.metered for run in runs)
        return sum(run.counters.get("cost_usd", 0) for run in runs) if metric == "cost_usd" else 0

    # Use

    def runs(self) -> Iterator[Run]:
        """Yield every run of every phase."""
        for runs in self.phases.values():
            yield from runs.values()

    def run(self, phase: str, attempt: int) -> Run:
        """Return a run, which is known from now on."""
        runs = self.phases.get(phase)
        if runs is None:
            runs = self.phases[phase] = {}
            if phase not in self.policy.listed and (phase, "tokens") not in self.cells:
                self.set_limits()
        found = runs.get(attempt)
        if found is None:
            found = runs[attempt] = Run(attempt)
        return found

    def used(self, key: CellKey, at_ms: int) -> int:
        """Return what a cell has used by then."""
        phase, metric = key
        if metric != "latency_ms":
            return self.cells[key].used
        runs: Iterable[Run] = self.runs() if phase is None else self.phases.get(phase, {}).values()
        return sum(run.latency_ms(at_ms, self.policy.execution_max_ms) for run in runs)

    # Levels

    def is_almost_done(self) -> bool:
        """Tell whether all planned phases but the closing ones are completed."""
        return all(
            self._is_completed(phase)
            for phase in self.planned_phases()
            if phase not in self.policy.closing
        )

    def _is_completed(self, phase: str) -> bool:
        runs = self.phases.get(phase, {})
        return bool(runs) and runs[max(runs)].outcome == "completed"

    def thresholds(self, key: CellKey) -> list[tuple[int, int]]:
        """Return each level of a cell's ladder with the amount, times `PARTS`, that reaches it."""
        phase, metric = key
        limit = self.cells[key].limit * SCALE[metric]
        ladder = self.policy.ladders["task" if phase is None else "phase", metric]
        steps = [(level, share * limit) for level, share in ladder]
        if (
            phase is None
            and metric != "latency_ms"
            and steps
            and steps[-1][0] == BLOCK
            and self.is_almost_done()
        ):
            closing = sum(
                self.cells[one, metric].limit
                for one in self.planned_phases()
                if one in self.policy.closing and (one, metric) in self.cells
            )
            steps[-1] = BLOCK, steps[-1][1] + closing * SCALE[metric] * PARTS
        return steps

    def reached(self, key: CellKey, used: int) -> int:
        """Return the level that an amount reaches."""
        cell = self.cells[key]
        if used * PARTS < cell.first:
            return 0  # most events come nowhere near a level
        level = 0
        for step, amount in self.thresholds(key):
            if used * PARTS >= amount:
                level = step
        return level

    def own_level(self) -> int:
        """Return the highest level of its cells."""
        return max((cell.level for cell in self.cells.values()), default=0)

    # Time

    def next_due(self, now_ms: int) -> Due:
        """Return the earliest deadline from now on."""
        if self.ended_ms is not None:
            return self.ended_ms + self.policy.retention_ms, "", FORGET_DUE, ()
        dues: list[Due] = [(self.last_ms + self.policy.abandoned_after_ms, "", END_DUE, ())]
        run, phase = self.open_run, self.open_phase
        if run is not None and phase is not None:
            assert run.opened_ms is not None, "an open run was begun"
            if "stuck" not in self.flags:
                dues.append((run.opened_ms + self.policy.stuck_after_ms, phase, STUCK_DUE, ()))
            if run.estimates():
                dues += self._level_dues(run, phase, now_ms)
        return min(dues, key=lambda due: (due[0], due[2] != LEVEL_DUE, *due[1:3]))

    def _level_dues(self, run: Run, phase: str, now_ms: int) -> Iterator[Due]:
        assert run.opened_ms is not None, "an open run was begun"
        longest_ms = self.policy.execution_max_ms
        for name, key in (("", (None, "latency_ms")), (phase, (phase, "latency_ms"))):
            cell = self.cells.get(key)
            if cell is None:
                continue
            others = self.used(key, run.opened_ms)  # the open run has used nothing then
            for level, amount in self.thresholds(key):
                if level > cell.level:
                    needed_ms = max(-(-amount // PARTS) - others, 0)
                    # An open run that has become impossible reaches nothing more.
                    if now_ms <= run.opened_ms + needed_ms <= run.opened_ms + longest_ms:
                        yield run.opened_ms + needed_ms, name, LEVEL_DUE, (key,)
                    break


def _granted(limits: Limits, grant: Decimal | dict[str, dict[str, int]]) -> Limits:
    if not isinstance(grant, dict):
        return multiplied(limits, grant)
    raised = dict(limits)
    for name, cells in grant.items():
        for metric, limit in cells.items():
            if name != "task" and (name, "tokens") not in limits:
                continue  # of a phase that was not seen yet
            key = (None if name == "task" else name), metric
            raised[key] = max(raised.get(key, 0), limit)
    return raised


def level_name(level: int) -> str:
    """Return the wire's word for a level."""
    return LEVELS[level]
