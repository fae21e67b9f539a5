"""What finished tasks used and how they ended: what limits are made from, and tried on.

Told by `executions` and `lifecycle`, in any order between both: live from the topics, offline by the
same fold. A task is in the history once it has ended; of what is still open nobody knows what it takes.

Amounts are whole numbers of the small units of `insight.baselines`. What is not known is absent, never
zero: a task of which one call is unknown has used more than is known.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from schemas.fields import Cause, Complexity, Importance, Metric, Number
from schemas.outputs import ExecutionRecord, Lifecycle
from streams.budget.explain import Spent, usage_cause
from streams.budget.policy import Explanations
from streams.budget.state import Counters
from streams.insight.baselines import COUNTED, UNITS, amounts_of, small_units

# Labels by which a task says what became of it, and what it is one of several tries of.
RESOLVED, EXIT_STATUS, GROUP = "resolved", "exit_status", "group"
# Importers label every task with how its phases were found. Of most logs they do not know how the work
# ended: such a task is `completed` because its log is over.
IMPORTED = "phases"
COMPLETED = "completed"
ADDED_UP = (Metric.TOKENS, Metric.COST_USD)  # in every ancestor; time is not
TRUTH = {"true": True, "false": False}


class Run(Struct, frozen=True, kw_only=True):
    """One execution that counts (`insight.baselines.COUNTED`), as its last revision has it.

    `cause` is what would be named if it went over its budget; None where nothing stands out.
    """

    phase: str
    attempt: int
    amounts: dict[Metric, int]
    cause: Cause | None


class TaskHistory(Struct, frozen=True, kw_only=True):
    """One task that has ended.

    `group` is what must not be split: the root task, or the label `group` of tasks that tried the
    same. `importance` is the one that it was budgeted as. `used` is of all its runs, and, but for
    time, of all tasks below it; so is `unknown_share`, of its model calls: unknown or estimated.
    `success`: did the work turn out right (label `resolved`); `finished`: did it end as completed,
    which is not the same. None: not known. `planned` are the phases that its limits were the sum of.
    """

    task_id: str
    group: str
    task_type: str | None
    complexity: Complexity
    importance: Importance
    runs: tuple[Run, ...]
    used: dict[Metric, int]
    unknown_share: float
    success: bool | None
    finished: bool | None
    started_ms: int | None
    duration_ms: int | None
    planned: tuple[str, ...] = ()
    parent_id: str | None = None


class Coverage(Struct, kw_only=True):
    """Of how many executions of a class each metric is known; `estimated`: some of its tokens are."""

    executions: int = 0
    known: dict[Metric, int] = field(default_factory=lambda: dict.fromkeys(Metric, 0))
    estimated: int = 0


class _Told(Struct, kw_only=True):
    """What was told of a task so far."""

    runs: dict[tuple[str, int], ExecutionRecord] = field(default_factory=dict)
    last: Lifecycle | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    outcome: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)


class Histories:
    """Fills with what executions and lifecycle records tell."""

    def __init__(self, rules: Explanations) -> None:
        self._rules = rules
        self._told: dict[str, _Told] = {}

    def __repr__(self) -> str:
        return f"<Histories of {len(self._told)} tasks>"

    @property
    def open_count(self) -> int:
        """How many tasks were heard of that have not ended."""
        return sum(told.outcome is None for told in self._told.values())

    def tell_execution(self, record: ExecutionRecord) -> None:
        """Take over a run, in the place of an earlier revision."""
        runs = self._of(record.task_id).runs
        known = runs.get((record.phase, record.attempt))
        if known is None or known.revision < record.revision:
            runs[record.phase, record.attempt] = record

    def tell_lifecycle(self, record: Lifecycle, at_ms: int) -> None:
        """Take over that a task began, changed or ended, at a time in ms since 1970."""
        if record.task_id is None:
            return
        told = self._of(record.task_id)
        told.last = record
        told.labels = record.labels or told.labels
        if record.parent_task_id is not None:
            children = self._of(record.parent_task_id).children
            if record.task_id not in children:
                children.append(record.task_id)
        if record.change == "started" and told.started_ms is None:
            told.started_ms = at_ms
        if record.change == "ended":
            told.ended_ms, told.outcome = at_ms, record.outcome or COMPLETED

    def tasks(self) -> list[TaskHistory]:
        """Return the tasks that have ended and used something, in the order they were first told."""
        found = (self._history(task_id, told) for task_id, told in self._told.items())
        return [history for history in found if history is not None]

    def coverage(self) -> dict[str, Coverage]:
        """Return how much is known of the executions that count, by `phase/complexity/importance`."""
        found: dict[str, Coverage] = {}
        for told in self._told.values():
            for record in told.runs.values():
                if record.outcome in COUNTED:
                    name = f"{record.phase}/{record.complexity}/{record.importance}"
                    one = found.setdefault(name, Coverage())
                    one.executions += 1
                    one.estimated += "estimated_usage" in record.flags
                    for metric in amounts_of(record):
                        one.known[metric] += 1
        return found

    def _of(self, task_id: str) -> _Told:
        return self._told.setdefault(task_id, _Told())

    def _history(self, task_id: str, told: _Told) -> TaskHistory | None:
        last = told.last
        if last is None or told.outcome is None:
            return None
        below = [each for name in self._below(task_id) for each in self._told[name].runs.values()]
        own = list(told.runs.values())
        if not own and not below:
            return None
        labels = told.labels
        importance = last.budgeted_importance or last.importance
        return TaskHistory(
            task_id=task_id,
            group=f"group/{labels[GROUP]}" if GROUP in labels else self._root(task_id),
            task_type=last.task_type,
            complexity=last.complexity or Complexity.MEDIUM,
            importance=importance or Importance.MEDIUM,
            runs=tuple(self._run(each) for each in own if each.outcome in COUNTED),
            used=dict(_used(own, below)),
            unknown_share=_unknown_share([*own, *below]),
            success=TRUTH.get(labels.get(RESOLVED, "")),
            finished=_finished(told.outcome, labels),
            started_ms=told.started_ms or None,
            duration_ms=_passed(told.started_ms, told.ended_ms),
            planned=tuple(last.planned_phases),
            parent_id=last.parent_task_id,
        )

    def _root(self, task_id: str) -> str:
        seen = {task_id}
        while (last := self._of(task_id).last) is not None:
            parent = last.parent_task_id
            if parent is None or parent in seen:
                break
            seen.add(parent)
            task_id = parent
        return task_id

    def _below(self, task_id: str) -> Iterator[str]:
        seen, waiting = {task_id}, list(self._told[task_id].children)
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += self._told[name].children
                yield name

    def _run(self, record: ExecutionRecord) -> Run:
        metered = small_units(Metric.TOKENS, record.metered_tokens)
        spent = Spent(
            _counters(record.counters), record.attempt, metered, metered * (record.attempt > 1)
        )
        cause = usage_cause(self._rules, spent, is_slow=_is_slow(record))
        return Run(
            phase=record.phase,
            attempt=record.attempt,
            amounts=amounts_of(record),
            cause=None if cause is Cause.UNCLASSIFIED else cause,
        )


def _counters(counted: dict[str, Number]) -> Counters:
    whole = {name: int(amount) for name, amount in counted.items() if name != Metric.COST_USD}
    cost = small_units(Metric.COST_USD, counted.get(Metric.COST_USD, 0))
    return Counters(**whole, cost_usd=cost)


def _is_slow(record: ExecutionRecord) -> bool:
    limits = record.limits
    latency_ms, tokens = limits.get(Metric.LATENCY_MS), limits.get(Metric.TOKENS)
    is_over = latency_ms is not None and record.latency_ms >= latency_ms
    return is_over and (tokens is None or record.metered_tokens < tokens)


def _used(own: list[ExecutionRecord], below: list[ExecutionRecord]) -> Iterable[tuple[Metric, int]]:
    """Yield the metrics of which every run that has used something is known."""
    for metric in UNITS:
        runs = [*own, *below] if metric in ADDED_UP else own
        amounts = [amounts_of(each).get(metric) for each in runs if _has_used(each)]
        known = [amount for amount in amounts if amount is not None]
        if known and len(known) == len(amounts):
            yield metric, sum(known)


def _has_used(record: ExecutionRecord) -> bool:
    counters = record.counters
    return bool(record.latency_ms or counters.get("model_calls") or counters.get("unknown_usage"))


def _unknown_share(runs: list[ExecutionRecord]) -> float:
    calls = missing = 0
    for each in runs:
        counters = each.counters
        unknown = int(counters.get("unknown_usage", 0))
        calls += max(int(counters.get("model_calls", 0)), unknown)
        missing += unknown + int(counters.get("estimated_usage", 0))
    return min(missing / calls, 1.0) if calls else 0.0


def _finished(outcome: str, labels: dict[str, str]) -> bool | None:
    is_told = IMPORTED not in labels or RESOLVED in labels or EXIT_STATUS in labels
    return outcome == COMPLETED if is_told else None


def _passed(started_ms: int | None, ended_ms: int | None) -> int | None:
    if not started_ms or ended_ms is None or ended_ms <= started_ms:
        return None
    return ended_ms - started_ms


def families(tasks: Iterable[TaskHistory]) -> dict[str, list[TaskHistory]]:
    """Return each root task's family, itself first; of tasks whose root is not there, none."""
    below: dict[str | None, list[TaskHistory]] = {}
    for task in tasks:
        below.setdefault(task.parent_id, []).append(task)
    found = {}
    for root in below.get(None, ()):
        family = [root]
        for task in family:
            family += below.get(task.task_id, ())
        found[root.task_id] = family
    return found
