"""How much a task may use: the formula, overrides, grants; exact, rounded up once.

Limits are in the unit their metric is folded in (`amounts`). All tasks of the same class share one
`Limits`. Source: budget model, "Limits" and "Exact rules".
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor, prod
from typing import assert_never

import msgspec
from msgspec import Struct

from schemas.errors import InvalidFieldError
from schemas.events import CellLimits, PhaseLimits
from schemas.fields import Complexity, Importance, Metric, Number, Scope, Verdict
from schemas.refusal import UNREADABLE
from schemas.state import CellState
from streams.budget.amounts import (
    AMOUNT_MAX,
    MILLI_PER_TOKEN,
    NANO_PER_DOLLAR,
    nano_dollars,
    number,
)
from streams.budget.encode import ENCODER
from streams.budget.ladder import Line, line
from streams.budget.policy import MULTIPLIER_MAX, TASK_SCOPE, Policy

TASK = TASK_SCOPE
METRICS = (Metric.TOKENS, Metric.LATENCY_MS, Metric.COST_USD)
TOKENS, LATENCY, COST = range(3)  # indices into METRICS
MULTIPLIER_PLACES = 9
_PLACES = 10**MULTIPLIER_PLACES

Amounts = tuple[int | None, int | None, int | None]  # by METRICS; None = not limited, or not named
NamedAmounts = tuple[tuple[str, Amounts], ...]  # by phase, or TASK
Lines = tuple[Line | None, Line | None, Line | None]
NO_AMOUNTS: Amounts = (None, None, None)


class Grant(Struct, frozen=True):
    """What was granted once: a multiplier for all cells, or new absolute limits for some."""

    multiplier: Fraction | None = None
    limits: NamedAmounts = ()


class TaskClass(Struct, frozen=True):
    """All that a task's limits follow from, besides the policy.

    `importance` is the one it is budgeted as. `planned` None = every phase of the policy.
    """

    complexity: Complexity = Complexity.MEDIUM
    importance: Importance = Importance.MEDIUM
    task_type: str | None = None
    multiplier: Fraction = Fraction(1)
    planned: tuple[str, ...] | None = None
    overrides: NamedAmounts = ()
    grants: tuple[Grant, ...] = ()


class Limits(Struct, frozen=True):
    """The limits of one task. `phases` has the policy's phases and those that were named."""

    phases: dict[str, Lines]
    task: Lines
    planned: tuple[str, ...]
    low_overrides: tuple[str, ...] = ()  # "THINK.tokens": an override below the computed limit
    # What `tasks` says of a planned phase of which nothing was used, as bytes: every batch writes it
    # for every task of the class.
    unused: dict[str, list[msgspec.Raw]] = {}
    # What `lifecycle` says of all of them, by phase or "task", in the metrics' units.
    told: dict[str, dict[str, Number]] = {}


def phase_limit(policy: Policy, task: TaskClass, phase: str, metric: Metric) -> int | None:
    """Return the limit of one phase cell by the formula, in the unit `metric` is folded in.

    base × complexity × importance × phase weight × task type × multiplier, rounded up once, to
    whole tokens, milliseconds or nano-dollars.

    Returns:
        Milli-tokens, milliseconds or nano-dollars; critical + large + THINK is 18_000_000. None
        where the policy sets no cost for this phase.

    Raises:
        InvalidFieldError: `policy` does not list `phase`.
    """
    base = policy.base(phase)
    factor = (
        Fraction(policy.complexity[task.complexity])
        * Fraction(policy.importance[task.importance])
        * Fraction(base.weight)
        * Fraction(policy.task_type.get(task.task_type or "", Decimal(1)))
        * task.multiplier
    )
    match metric:
        case Metric.TOKENS:
            limit = ceil(base.tokens * factor) * MILLI_PER_TOKEN
        case Metric.LATENCY_MS:
            limit = ceil(base.latency_ms * factor)
        case Metric.COST_USD:
            if base.cost_usd is None:
                return None
            limit = ceil(Fraction(base.cost_usd) * NANO_PER_DOLLAR * factor)
        case _:
            assert_never(metric)
    return min(limit, AMOUNT_MAX)


def compute_limits(policy: Policy, task: TaskClass, named: Iterable[str] = ()) -> Limits:
    """Return all limits of a task; `named` are phases beyond the policy's that it has used.

    Raises:
        InvalidFieldError: a planned, overridden or named phase that `policy` does not list.
    """
    planned = tuple(policy.phases) if task.planned is None else task.planned
    overrides = dict(task.overrides)
    names = dict.fromkeys((*policy.phases, *planned, *named))
    names.update(dict.fromkeys(name for name in overrides if name != TASK))
    computed = {name: _computed(policy, task, name) for name in names}
    limits = {name: _overridden(computed[name], overrides.get(name)) for name in names}
    sums = _sums([limits[name] for name in planned])
    limits[TASK] = _overridden(sums, overrides.get(TASK))
    low = tuple(
        f"{name}.{metric}"
        for name, amounts in overrides.items()
        for index, metric in enumerate(METRICS)
        if _is_low(amounts[index], (sums if name == TASK else computed[name])[index])
    )
    before = {**computed, TASK: sums}
    for grant in task.grants:
        limits = {name: _granted(amounts, name, grant) for name, amounts in limits.items()}
    lines = {
        name: _lines(policy, name, amounts, overrides.get(name, NO_AMOUNTS), before[name])
        for name, amounts in limits.items()
    }
    return Limits(
        phases={name: found for name, found in lines.items() if name != TASK},
        task=lines[TASK],
        planned=planned,
        low_overrides=low,
        unused={name: _unused(name, lines[name]) for name in planned},
        told={name: limits_json(found) for name, found in lines.items()},
    )


def merged_grants(policy: Policy, task: TaskClass, named: Iterable[str] = ()) -> tuple[Grant, ...]:
    """Return at most two grants that lead to the same limits as all of a task's.

    The product of the multipliers first: for phases that are named later, and for another class.
    Then, as absolute limits, what all cells have now: each multiplier was rounded up, which the
    product is not. It is rounded down to as many decimals as a multiplier has, and so lifts none.

    Args:
        policy: the task's.
        task: the grants, and all else that its limits follow from.
        named: phases beyond the policy's that it has used, or was granted limits for.
    """
    limits = compute_limits(policy, task, named)
    absolute = Grant(
        limits=(
            *((name, limits_in(lines)) for name, lines in limits.phases.items()),
            (TASK, limits_in(limits.task)),
        )
    )
    multipliers = [grant.multiplier for grant in task.grants if grant.multiplier is not None]
    if not multipliers:
        return (absolute,)
    product = min(prod(multipliers), Fraction(AMOUNT_MAX))
    return (Grant(multiplier=Fraction(floor(product * _PLACES), _PLACES)), absolute)


def limits_in(lines: Lines) -> Amounts:
    """Return the limits alone."""
    return by_metric(None if line is None else line.limit for line in lines)


def _granted(amounts: Amounts, name: str, grant: Grant) -> Amounts:
    """Return the limits of `name` after one grant; an absolute one never lowers them."""
    if grant.multiplier is not None:
        tokens, latency, cost = amounts
        factor = grant.multiplier
        return (
            _times(tokens, factor, MILLI_PER_TOKEN),
            _times(latency, factor, 1),
            _times(cost, factor, 1),
        )
    absolute = dict(grant.limits).get(name, NO_AMOUNTS)
    return by_metric(
        amount if new is None else max(amount or 0, new)
        for amount, new in zip(amounts, absolute, strict=True)
    )


def check_multiplier(field: str, value: Decimal, *, above: int) -> Fraction:
    """Return a multiplier exactly.

    Raises:
        InvalidFieldError: not above `above`, above 10, or with more than nine decimals.
    """
    allowed = f"a number above {above}, at most {MULTIPLIER_MAX}, with up to 9 decimals"
    if not value.is_finite() or not above < value <= MULTIPLIER_MAX:
        raise InvalidFieldError(field, str(value), allowed)
    if int(value.as_tuple().exponent) < -MULTIPLIER_PLACES:
        raise InvalidFieldError(field, str(value), allowed)
    return Fraction(value)


def check_named_limits(field: str, named: Mapping[str, CellLimits], policy: Policy) -> NamedAmounts:
    """Return absolute limits by phase or "task", in folded units.

    Raises:
        InvalidFieldError: a phase that the policy does not list, a limit out of range, or none.
    """
    if not named:
        raise InvalidFieldError(field, "{}", "at least one phase or task with a limit")
    for name in named:
        if name != TASK and not policy.lists(name):
            raise InvalidFieldError(
                f"{field}.{name}", name, f"task or one of {', '.join(policy.phases)}"
            )
    return tuple((name, _folded(f"{field}.{name}", limits)) for name, limits in named.items())


def read_overrides(raw: msgspec.Raw, policy: Policy) -> NamedAmounts:
    """Return a task's `budget_overrides`; one invalid override refuses all of them.

    Raises:
        InvalidFieldError: names the override.
    """
    field = "data.budget_overrides"
    try:
        named = _OVERRIDES.decode(raw)
    except UNREADABLE as error:
        shown = bytes(raw)[:80].decode(errors="replace")
        raise InvalidFieldError(field, shown, f"{{phase or task: limits}} ({error})") from error
    return check_named_limits(field, named, policy) if named else ()


_OVERRIDES = msgspec.json.Decoder(PhaseLimits | None)


def _folded(field: str, limits: CellLimits) -> Amounts:
    tokens = None if limits.tokens is None else limits.tokens * MILLI_PER_TOKEN
    cost = None
    if limits.cost_usd is not None:
        cost = nano_dollars(f"{field}.cost_usd", limits.cost_usd)
    amounts = by_metric((tokens, limits.latency_ms, cost))
    if amounts == NO_AMOUNTS:
        raise InvalidFieldError(field, "{}", "at least one of tokens, latency_ms, cost_usd")
    for metric, amount in zip(METRICS, amounts, strict=True):
        if amount is not None and not 0 < amount <= AMOUNT_MAX:
            raise InvalidFieldError(f"{field}.{metric}", amount, "a limit above 0")
    return amounts


def limits_json(lines: Lines) -> dict[str, Number]:
    """Return limits by metric, in its unit; none where there is none."""
    return {
        metric.value: number(line.limit, metric)
        for metric, line in zip(METRICS, lines, strict=True)
        if line is not None
    }


def _unused(name: str, lines: Lines) -> list[msgspec.Raw]:
    cells = [
        CellState(Scope.PHASE, metric, 0, number(line.limit, metric), Verdict.CONTINUE, name)
        for metric, line in zip(METRICS, lines, strict=True)
        if line is not None
    ]
    return [msgspec.Raw(ENCODER.encode(cell)) for cell in cells]


def _computed(policy: Policy, task: TaskClass, phase: str) -> Amounts:
    return by_metric(phase_limit(policy, task, phase, metric) for metric in METRICS)


def _overridden(computed: Amounts, override: Amounts | None) -> Amounts:
    if override is None:
        return computed
    return by_metric(
        own if new is None else new for own, new in zip(computed, override, strict=True)
    )


def _is_low(override: int | None, computed: int | None) -> bool:
    return override is not None and computed is not None and override < computed


def _sums(planned: list[Amounts]) -> Amounts:
    """A metric that one planned phase has no limit for has none for the task either."""
    sums: list[int | None] = []
    for index in range(len(METRICS)):
        parts = [amounts[index] for amounts in planned]
        known = [part for part in parts if part is not None]
        sums.append(min(sum(known), AMOUNT_MAX) if len(known) == len(parts) else None)
    return by_metric(sums)


def _times(amount: int | None, factor: Fraction, unit: int) -> int | None:
    """Rounded up as a computed limit is: to whole tokens, milliseconds, nano-dollars."""
    return None if amount is None else min(ceil(amount * factor / unit) * unit, AMOUNT_MAX)


def by_metric(amounts: Iterable[int | None]) -> Amounts:
    """Return three amounts, in the order of METRICS."""
    tokens, latency, cost = amounts
    return (tokens, latency, cost)


def _lines(
    policy: Policy, name: str, amounts: Amounts, override: Amounts, computed: Amounts
) -> Lines:
    scope = Scope.TASK if name == TASK else Scope.PHASE
    found = [
        None
        if amount is None
        else line(
            amount,
            policy.ladders[scope, metric],
            computed[index] if override[index] is not None else None,
        )
        for index, (metric, amount) in enumerate(zip(METRICS, amounts, strict=True))
    ]
    return (found[0], found[1], found[2])
