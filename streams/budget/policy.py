"""The policy: every number of the budget model that a person may change, checked as a whole.

A policy travels as an event, so two ledgers with different files cannot decide two ways; its hash
names its content. Source: budget model, "Limits", "Ladders" and "Governance".
"""

import hashlib
import tomllib
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct

from schemas.errors import InvalidFieldError, StoplossError
from schemas.fields import Complexity, Fail, Importance, Metric, Scope, Verdict
from schemas.nesting import is_deeper
from schemas.refusal import UNREADABLE
from streams.budget.alert_rules import TABLE as ALERTS
from streams.budget.alert_rules import AlertRules, read_alert_rules
from streams.budget.governance_rules import GovernanceRules, read_governance_rules
from streams.budget.ladder import LEVELS, SHARE_PLACES, Shares
from streams.budget.policy_reader import Document, Reader

DECIMAL_PLACES = 4
MULTIPLIER_MAX = 10
WEIGHT_PLACES = 3
SHARE_MAX = 100
TOKENS_MAX = 10**12
LATENCY_MS_MAX = 10**12
PERIOD_MS_MAX = 10 * 365 * 24 * 3_600_000
COST_PLACES = 9
PHASES_MAX = 64
PHASE_LENGTH_MAX = 64
FACTORS_MAX = 256
HASH_DIGITS = 16
DEFAULT_PHASE = "default"
TASK_SCOPE = "task"  # the scope's name beside those of phases, in overrides and grants
NEVER_WORD = "never"
# A policy has four levels. Where Python gives up depends on how deep its stack is already, and so
# would a dead letter.
NESTING_MAX = 16


class InvalidPolicyError(StoplossError):
    """A policy is refused; `errors` has everything that is wrong with it."""

    def __init__(self, origin: str, errors: list[InvalidFieldError]) -> None:
        self.origin, self.errors = origin, errors
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return one line for each error: origin, field, value, what is allowed."""
        return [f"{self.origin}: {error}" for error in self.errors]


class PhaseBase(Struct, frozen=True):
    """What a phase may use before multipliers; `cost_usd` None = it has no cost limit."""

    tokens: int
    latency_ms: int
    cost_usd: Decimal | None
    weight: Decimal


class Explanations(Struct, frozen=True):
    """What a cause needs to be named."""

    missing_share: Fraction
    backtracking_share: Fraction
    inefficient_output_share: Fraction
    research_files_read: int
    iteration_model_calls: int


class ClockRules(Struct, frozen=True):
    """When time alone decides something."""

    historical_after_ms: int
    execution_max_ms: int
    stuck_after_ms: int
    abandoned_after_ms: int
    retention_ms: int
    checkpoint_every_ms: int


class Policy(Struct, frozen=True):
    """A checked policy. `document` is its normalised form, every default filled in.

    Of alerts it has what the policy says, or nothing. `weights_milli` are those of uncached input, cache read, cache write and output.
    """

    version: str
    hash: str
    document: Document
    fail: Fail
    closing_phases: tuple[str, ...]
    weights_milli: tuple[int, int, int, int]
    phases: dict[str, PhaseBase]
    default_phase: PhaseBase | None
    complexity: dict[str, Decimal]
    importance: dict[str, Decimal]
    task_type: dict[str, Decimal]
    ladders: dict[tuple[Scope, Metric], Shares]
    clock: ClockRules
    dedupe_recent: int
    explanations: Explanations
    governance: GovernanceRules
    alerts: AlertRules

    def lists(self, phase: str) -> bool:
        """Tell whether events may name this phase."""
        return phase in self.phases or (self.default_phase is not None and phase != TASK_SCOPE)

    def check_listed(self, field: str, phase: str) -> None:
        """Refuse a phase that events may not name.

        Raises:
            InvalidFieldError: names the field and the phase.
        """
        if not self.lists(phase):
            raise InvalidFieldError(field, phase, f"one of {', '.join(self.phases)}")

    def base(self, phase: str) -> PhaseBase:
        """Return what a phase may use before multipliers.

        Raises:
            InvalidFieldError: the policy does not list `phase` and has no default.
        """
        found = self.phases.get(phase, self.default_phase)
        if found is None:
            raise InvalidFieldError("phase", phase, f"one of {', '.join(self.phases)}")
        return found


def policy_from_toml(text: str, origin: str) -> Policy:
    """Return the policy of a TOML file; what it leaves out is the built-in policy's.

    Raises:
        InvalidPolicyError: everything that is wrong, at once.
    """
    try:
        own = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        reason = InvalidFieldError("file", str(error), "TOML 1.0")
        raise InvalidPolicyError(origin, [reason]) from error
    whole = _merged(_builtin_document(), own)
    if isinstance(own.get("phases"), dict) and "closing_phases" not in own:
        whole["closing_phases"] = [
            name for name in whole["closing_phases"] if name in own["phases"]
        ]
    return _checked(whole, origin)


def policy_from_json(document: bytes, origin: str) -> Policy:
    """Return the policy in a `stoploss.policy.set` event, whose numbers are read exactly.

    Raises:
        InvalidPolicyError: everything that is wrong, at once.
    """
    if is_deeper(document, NESTING_MAX):
        reason = InvalidFieldError("policy", "nested too deeply", f"at most {NESTING_MAX} levels")
        raise InvalidPolicyError(origin, [reason])
    try:
        return _checked(_from_null(_JSON_DECODER.decode(document)), origin)
    except UNREADABLE as error:
        reason = InvalidFieldError("policy", f"{error}", "the policy as JSON")
        raise InvalidPolicyError(origin, [reason]) from error


@cache
def builtin_policy() -> Policy:
    """Return the policy in the package, the user's own starting point."""
    return policy_from_toml(_builtin_text(), "builtin.toml")


def default_governance_rules() -> GovernanceRules:
    """Return what holds where nobody has set a policy."""
    return builtin_policy().governance


def policy_json(policy: Policy) -> bytes:
    """Return the normalised document as JSON, with exact numbers and its keys in order."""
    return _canonical(policy.document)


_JSON_DECODER = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
# Not sorted: the order of the phases is part of a policy, and so of its hash; the order of all
# other keys is that in which they are read.
_JSON_ENCODER = msgspec.json.Encoder(decimal_format="number")


def _builtin_text() -> str:
    return files("streams.budget").joinpath("builtin.toml").read_text(encoding="utf-8")


@cache
def _builtin_document() -> Document:
    return tomllib.loads(_builtin_text(), parse_float=Decimal)


def _canonical(document: Document) -> bytes:
    return _JSON_ENCODER.encode(_as_null(document))


def _as_null(value: object) -> object:
    """JSON has null where TOML, which lacks it, has "never"; 1.0 and 1 are the same number."""
    match value:
        case dict():
            return {key: _as_null(item) for key, item in value.items()}
        case Decimal() if value == value.to_integral_value():
            return int(value)
    return None if value == NEVER_WORD else value


def _from_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _from_null(item) for key, item in value.items()}
    return NEVER_WORD if value is None else value


# A file that has phases has its own list of them, else the built-in ones would count in its sums.
_WHOLE_TABLES = frozenset({"phases"})


def _merged(ours: Document, own: Document, path: str = "") -> Document:
    merged = dict(ours)
    for key, value in own.items():
        mine = ours.get(key)
        if isinstance(mine, dict) and isinstance(value, dict) and path + key not in _WHOLE_TABLES:
            merged[key] = _merged(mine, value, f"{path}{key}.")
        else:
            merged[key] = value
    return merged


def _checked(document: object, origin: str) -> Policy:
    errors: list[InvalidFieldError] = []
    top = Reader(document, "", errors)
    version = top.text("version", 100)
    fail = Fail(top.choice("fail", tuple(Fail)))
    top.flag("auto_adjust")
    phases, default_phase = _read_phases(top.child("phases"))
    closing = top.names(
        "closing_phases", frozenset(phases), f"different ones of {', '.join(phases)}"
    )
    weights = _read_weights(top.child("metered"))
    multipliers = top.child("multipliers")
    complexity = _read_factors(multipliers.child("complexity"), tuple(Complexity))
    importance = _read_factors(multipliers.child("importance"), tuple(Importance))
    task_type = _read_open_factors(multipliers.child("task_type"))
    multipliers.finish()
    ladders = _read_ladders(top.child("ladders"))
    clock = _read_clock(top.child("clock"))
    dedupe = top.child("dedupe")
    recent = dedupe.whole("recent", 1, 4_096)
    dedupe.finish()
    explanations = _read_explanations(top.child("explanations"))
    governance = read_governance_rules(top.child("governance"))
    definitions = top.child("definitions")
    for importance_name in Importance:
        definitions.text(importance_name, 1_000)
    definitions.finish()
    alerts = read_alert_rules(top)
    top.finish(ALERTS)
    if errors:
        raise InvalidPolicyError(origin, errors)
    return Policy(
        version=version,
        hash=hashlib.sha256(_canonical(top.out)).hexdigest()[:HASH_DIGITS],
        document=_plain_document(top.out),
        fail=fail,
        closing_phases=closing,
        weights_milli=weights,
        phases=phases,
        default_phase=default_phase,
        complexity=complexity,
        importance=importance,
        task_type=task_type,
        ladders=ladders,
        clock=clock,
        dedupe_recent=recent,
        explanations=explanations,
        governance=governance,
        alerts=alerts,
    )


def _plain_document(document: Document) -> Document:
    plain = _as_null(document)
    assert isinstance(plain, dict)
    return plain


def _read_phases(reader: Reader) -> tuple[dict[str, PhaseBase], PhaseBase | None]:
    phases: dict[str, PhaseBase] = {}
    if not 1 <= len(reader.table) <= PHASES_MAX:
        reader.errors.append(
            InvalidFieldError(reader.path, len(reader.table), f"1 to {PHASES_MAX} phases")
        )
    for name in reader.table:
        if name == TASK_SCOPE or not 1 <= len(name) <= PHASE_LENGTH_MAX:
            reader.refuse(
                name, name, f'a name of 1 to {PHASE_LENGTH_MAX} characters other than "task"'
            )
        one = reader.child(name)
        phases[name] = PhaseBase(
            tokens=one.whole("tokens", 1, TOKENS_MAX),
            latency_ms=one.whole("latency_ms", 1, LATENCY_MS_MAX),
            cost_usd=one.decimal("cost_usd", above=0, at_most=1_000_000, places=COST_PLACES)
            if "cost_usd" in one.table
            else None,
            weight=one.decimal("weight", above=0, at_most=MULTIPLIER_MAX, places=DECIMAL_PLACES),
        )
        one.finish()
    return phases, phases.pop(DEFAULT_PHASE, None)


def _read_weights(reader: Reader) -> tuple[int, int, int, int]:
    names = ("input", "cache_read", "cache_write", "output")
    found = [
        int(reader.decimal(name, at_least=0, at_most=100, places=WEIGHT_PLACES) * 1000)
        for name in names
    ]
    reader.finish()
    return (found[0], found[1], found[2], found[3])


def _read_factors(reader: Reader, names: tuple[str, ...]) -> dict[str, Decimal]:
    factors = {
        str(name): reader.decimal(str(name), above=0, at_most=MULTIPLIER_MAX, places=DECIMAL_PLACES)
        for name in names
    }
    reader.finish()
    return factors


def _read_open_factors(reader: Reader) -> dict[str, Decimal]:
    if len(reader.table) > FACTORS_MAX:
        reader.errors.append(
            InvalidFieldError(reader.path, len(reader.table), f"at most {FACTORS_MAX} factors")
        )
    return _read_factors(reader, tuple(reader.table))


def _read_ladders(reader: Reader) -> dict[tuple[Scope, Metric], Shares]:
    ladders: dict[tuple[Scope, Metric], Shares] = {}
    for scope in Scope:
        scoped = reader.child(scope)
        for metric in Metric:
            ladders[scope, metric] = _read_shares(scoped.child(metric))
        scoped.finish()
    reader.finish()
    return ladders


def _read_shares(reader: Reader) -> Shares:
    shares: list[int | None] = []
    highest = 0
    for verdict in LEVELS[1:]:
        if reader.table.get(verdict) == NEVER_WORD:
            reader.out[verdict] = NEVER_WORD
            shares.append(None)
            continue
        errors = len(reader.errors)
        share = reader.decimal(verdict, above=0, at_most=SHARE_MAX, places=DECIMAL_PLACES)
        scaled = int(share * SHARE_PLACES)
        shares.append(scaled)
        if len(reader.errors) > errors or verdict not in reader.table:
            continue
        if scaled <= highest:
            reader.refuse(verdict, share, "more than the level before it")
        highest = max(highest, scaled)
    reader.finish()
    return (shares[0], shares[1], shares[2], shares[3])


def _read_clock(reader: Reader) -> ClockRules:
    names = ClockRules.__struct_fields__
    found = {name: reader.whole(name, 1, PERIOD_MS_MAX) for name in names}
    reader.finish()
    return ClockRules(**found)


def _read_explanations(reader: Reader) -> Explanations:
    def share(name: str) -> Decimal:
        return reader.decimal(name, at_least=0, at_most=1, places=DECIMAL_PLACES)

    found = Explanations(
        missing_share=Fraction(share("missing_share")),
        backtracking_share=Fraction(share("backtracking_share")),
        inefficient_output_share=Fraction(share("inefficient_output_share")),
        research_files_read=reader.whole("research_files_read", 1, 10**9),
        iteration_model_calls=reader.whole("iteration_model_calls", 1, 10**9),
    )
    reader.finish()
    return found


assert Verdict.CONTINUE is LEVELS[0]
