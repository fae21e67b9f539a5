"""What crosses the wire, read from the contract: exact JSON, and which events are refused."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from streams.verify.independent.exact_json import NESTING_MAX, Repeated, each, loads, nesting
from streams.verify.independent.times import epoch_ms, read_time

EVENT_BYTES_MAX = 1024 * 1024
NANO = Decimal("1e-9")
COST_USD_MAX = 1_000_000
TOKENS_MAX = 10_000_000_000
COUNT_MAX = 1_000_000_000
LIMIT_MAX = 10**15
DURATION_MS_MAX = 10 * 365 * 24 * 3_600_000
MULTIPLIER_MAX = 10
MULTIPLIER_PLACES_MAX = 9
SEQUENCE_DIGITS_MAX = 40
SEQUENCE_MAX = 2**63 - 1
TRACEPARENT_LENGTH_MAX = 128
METRICS = ("tokens", "latency_ms", "cost_usd")
COMPLEXITIES = ("tiny", "small", "medium", "large")
IMPORTANCES = ("low", "medium", "high", "critical")

Headers = Sequence[tuple[str, bytes | None]]
Data = dict[str, Any]


class RefusedError(Exception):
    """A record is no event of ours; the message is the reason of its dead letter."""

    traceparent: str | None = None  # as far as it was understood


@dataclass(slots=True)
class Event:
    """An event that is well formed; `data` has the fields of the contract that are not null."""

    kind: str  # without `stoploss.`
    id: str
    source: str
    subject: str
    time: str
    digits: str | None  # of its sequence
    traceparent: str | None
    data: Data
    sequence: int | None = None

    @property
    def time_ms(self) -> int:
        """Its own time, in milliseconds since 1970."""
        return epoch_ms(self.time)


def nano(value: Decimal | int) -> int:
    """Return dollars as nano-dollars, rounded half-even."""
    return int(Decimal(value).quantize(NANO, context=_ROUNDING).scaleb(9, context=_ROUNDING))


_ROUNDING = Context(prec=40, rounding=ROUND_HALF_EVEN)  # once: a product would be rounded before


Check = Callable[[Any], Any]


def _text(low: int, high: int) -> Check:
    def check(value: Any) -> Any:  # noqa: ANN401 - any JSON
        if type(value) is not str or not low <= len(value) <= high:
            raise RefusedError("invalid_field")
        return value

    return check


def _whole(low: int, high: int) -> Check:
    """Return a check for digits: 1.0 and 1e3 are no integers of the wire."""

    def check(value: Any) -> Any:  # noqa: ANN401 - any JSON
        if type(value) is not int or not low <= value <= high:  # a bool is none
            raise RefusedError("invalid_field")
        return value

    return check


def _one_of(*allowed: str) -> Check:
    def check(value: Any) -> Any:  # noqa: ANN401 - any JSON
        if value not in allowed:
            raise RefusedError("invalid_field")
        return value

    return check


def _bool(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(value, bool):
        raise RefusedError("invalid_field")
    return value


def _decimal(value: Any) -> Decimal:  # noqa: ANN401 - any JSON
    """Return a decimal, written as a number or as a text; whether it is finite is asked later."""
    if isinstance(value, str):
        try:
            value = Decimal(value)
        except ArithmeticError:
            raise RefusedError("invalid_field") from None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise RefusedError("invalid_field")
    return Decimal(value)


def _cost(value: Any) -> int:  # noqa: ANN401 - any JSON
    """Return nano-dollars."""
    dollars = _decimal(value)
    if not dollars.is_finite() or not 0 <= dollars <= COST_USD_MAX:
        raise RefusedError("invalid_field")
    return nano(dollars)


def check_multiplier(factor: Decimal, *, above: int) -> None:
    """Refuse a factor that is not above `above`, or too large, or written with too many decimals."""
    if not factor.is_finite() or not above < factor <= MULTIPLIER_MAX:
        raise RefusedError("invalid_field")
    exponent = factor.as_tuple().exponent  # as it is written: 2.0000000000 has ten decimals
    assert isinstance(exponent, int), "only finite numbers come here"
    if -exponent > MULTIPLIER_PLACES_MAX:
        raise RefusedError("invalid_field")


def _anything(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return value


def _labels(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict) or len(value) > 16:  # noqa: PLR2004 - the contract's
        raise RefusedError("invalid_field")
    for key, one in each(value):
        _text(0, 64)(key)
        _text(0, 256)(one)
    return value


def _phases(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(value, list) or not 1 <= len(value) <= 64:  # noqa: PLR2004 - the contract's
        raise RefusedError("invalid_field")
    return [_phase(one) for one in value]


def limits_by_name(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return limits by phase or "task", then metric, as they were written."""
    if not isinstance(value, dict) or len(value) > 65:  # noqa: PLR2004 - the contract's
        raise RefusedError("invalid_field")
    for name, cells in each(value):
        _name(name)
        if not isinstance(cells, dict) or not cells.keys() <= _LIMITS.keys():
            raise RefusedError("invalid_field")
        for metric, limit in each(cells):
            if limit is not None:
                _LIMITS[metric](limit)
    return value


def absolute_limits(value: Any) -> dict[str, dict[str, int]]:  # noqa: ANN401 - any JSON
    """Return limits by phase or "task", then metric: tokens, milliseconds, nano-dollars.

    Raises:
        RefusedError: one of them is not allowed.
    """
    limits: dict[str, dict[str, int]] = {}
    for name, cells in limits_by_name(value).items():
        limits[name] = {
            metric: _cost(limit) if metric == "cost_usd" else limit
            for metric, limit in cells.items()
            if limit is not None
        }
        if not limits[name] or 0 in limits[name].values():
            raise RefusedError("invalid_field")
    if not limits:
        raise RefusedError("invalid_field")
    return limits


_name, _phase, _long = _text(1, 200), _text(1, 64), _text(0, 4_000)
_required, _trace = _text(1, 4_000), _text(0, TRACEPARENT_LENGTH_MAX)
_attempt, _tokens, _count = _whole(1, 1_000_000), _whole(0, TOKENS_MAX), _whole(0, COUNT_MAX)
_duration = _whole(-DURATION_MS_MAX, DURATION_MS_MAX)
_LIMITS = {
    "tokens": _whole(1, LIMIT_MAX),
    "latency_ms": _whole(1, LIMIT_MAX),
    "cost_usd": _decimal,
}
_complexity, _importance = _one_of(*COMPLEXITIES), _one_of(*IMPORTANCES)


# By type: the fields of its data, and those that must be there.
FIELDS: Mapping[str, tuple[Mapping[str, Check], tuple[str, ...]]] = {
    "task.started": (
        {
            "complexity": _complexity,
            "importance": _importance,
            "importance_justification": _long,
            "by": _name,
            "planned_phases": _phases,
            "parent_task_id": _name,
            "budget_multiplier": _decimal,
            "budget_overrides": _anything,
            "owner": _name,
            "team": _name,
            "task_type": _name,
            "labels": _labels,
        },
        (),
    ),
    "phase.started": ({"phase": _phase, "attempt": _attempt}, ("phase",)),
    "phase.usage": (
        {
            "phase": _phase,
            "attempt": _attempt,
            "model": _name,
            "input_tokens": _tokens,
            "cache_read_tokens": _tokens,
            "cache_write_tokens": _tokens,
            "output_tokens": _tokens,
            "reasoning_tokens": _tokens,
            "cost_usd": _decimal,
            "duration_ms": _duration,
            "model_calls": _count,
            "tool_calls": _count,
            "files_read": _count,
            "output_chars": _count,
            "estimated": _bool,
            "usage_known": _bool,
        },
        ("phase",),
    ),
    "phase.ended": (
        {
            "phase": _phase,
            "attempt": _attempt,
            "duration_ms": _duration,
            "outcome": _one_of("completed", "failed", "backtracked", "abandoned"),
            "transition_ms": _duration,
        },
        ("phase",),
    ),
    "task.ended": ({"outcome": _one_of("completed", "failed", "abandoned", "blocked")}, ()),
    "task.granted": (
        {"by": _name, "reason": _required, "multiplier": _decimal, "limits": limits_by_name},
        ("by", "reason"),
    ),
    "task.reclassified": (
        {"by": _name, "reason": _required, "complexity": _complexity, "importance": _importance},
        ("by", "reason"),
    ),
    "task.explained": ({"by": _name, "text": _required, "phase": _phase}, ("by", "text")),
    "justification.reviewed": (
        {"by": _name, "approved": _bool, "reason": _long},
        ("by", "approved"),
    ),
    "task.recovered": (
        {
            "by": _name,
            "reason": _required,
            "action": _one_of("close_phase", "end_task", "refold"),
            "key": _long,
        },
        ("by", "reason", "action"),
    ),
    "all.granted": (
        {"by": _name, "reason": _required, "multiplier": _decimal},
        ("by", "reason", "multiplier"),
    ),
    "mode.set": (
        {"mode": _one_of("observe", "partial", "enforce"), "by": _name, "reason": _required},
        ("mode", "by", "reason"),
    ),
    "policy.set": (
        {"policy": _anything, "version": _name, "hash": _name, "by": _name},
        ("policy", "version", "hash", "by"),
    ),
    "clock.tick": ({}, ()),
}
OF_PARTITION = frozenset({"all.granted", "mode.set", "policy.set", "clock.tick"})
PREFIX = "stoploss."


def _time(value: Any) -> Any:  # noqa: ANN401 - any JSON
    try:
        read_time(value)
    except (TypeError, ValueError):
        raise RefusedError("invalid_field") from None
    return value


ATTRIBUTES: Mapping[str, Check] = {
    "specversion": _one_of("1.0"),
    "id": _name,
    "source": _name,
    "subject": _name,
    "time": _time,
    "sequence": _text(0, SEQUENCE_DIGITS_MAX),
    "partitionkey": _name,
    "traceparent": _trace,
}
_OPTIONAL = frozenset({"sequence", "partitionkey", "traceparent"})
_ABSENT = _OPTIONAL | {"specversion"}  # or null
_HEADERS = ATTRIBUTES.keys() | {"type"}


def read_event(value: bytes | None, headers: Headers) -> Event:
    """Return the event of a record, in structured or in binary mode.

    Raises:
        RefusedError: it is none; what depends on the state of its task is judged later.
    """
    envelope = _envelope(value, headers)
    try:
        return _event(envelope)
    except RefusedError as refused:
        traceparent = envelope.get("traceparent")
        if isinstance(traceparent, str) and len(traceparent) <= TRACEPARENT_LENGTH_MAX:
            refused.traceparent = traceparent
        raise


def _envelope(value: bytes | None, headers: Headers) -> Data:
    if value is not None and len(value) > EVENT_BYTES_MAX:
        raise RefusedError("too_large")
    is_binary = False
    for name, _ in headers:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise RefusedError("not_an_event")
        is_binary = is_binary or name.startswith("ce_")
    try:
        if is_binary:
            return _binary(value, headers)
        envelope = None if value is None else loads(value)
    except ValueError:
        raise RefusedError("not_json") from None
    if not isinstance(envelope, dict):
        raise RefusedError("not_an_event")
    return envelope


def _binary(value: bytes | None, headers: Headers) -> Data:
    """Return a record as it would be in structured mode; what holds for that one holds for it."""
    envelope: Data = {}
    for header, raw in headers:
        name = header.removeprefix("ce_")
        if header.startswith("ce_") and name in _HEADERS and raw is not None:
            envelope[name] = raw.decode()
    data = (value or b"").strip(b" \t\r\n")
    if data:
        attributes = json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()
        size_bytes = len(attributes) + len(b',"data":' if envelope else b'"data":') + len(data)
        if size_bytes > EVENT_BYTES_MAX:
            raise RefusedError("too_large")
        envelope["data"] = loads(data)
        if nesting(data.decode()) == NESTING_MAX:
            raise ValueError("nested too deeply")
    return envelope


def _event(envelope: Data) -> Event:
    kind = _kind_of(envelope)
    if isinstance(envelope, Repeated):
        _check_each(envelope, kind)
    attributes: Data = {
        name: None if (value := envelope.get(name)) is None and name in _ABSENT else check(value)
        for name, check in ATTRIBUTES.items()
    }
    subject = attributes["subject"]
    if kind in OF_PARTITION and not subject.startswith("partition/"):
        raise RefusedError("invalid_field")
    return Event(
        kind=kind,
        id=attributes["id"],
        source=attributes["source"],
        subject=subject,
        time=attributes["time"],
        digits=attributes["sequence"],
        traceparent=attributes["traceparent"],
        data=_data(envelope.get("data"), FIELDS[kind]),
    )


def _kind_of(envelope: Data) -> str:
    kind = envelope.get("type")
    if not isinstance(kind, str):
        raise RefusedError("not_an_event")
    kind = kind.removeprefix(PREFIX) if kind.startswith(PREFIX) else ""
    if kind not in FIELDS:
        raise RefusedError("unknown_type")
    return kind


def _check_each(envelope: Repeated, kind: str) -> None:
    """Refuse a record of two types, and one of whose repeated attributes a value is not allowed.

    In such a record null is not taken for absent where a value has to stand.
    """
    for name, value in envelope.pairs:
        if name == "type" and value != envelope["type"]:
            raise RefusedError("not_an_event")
        if name == "data":
            if value is None and kind != "clock.tick":
                raise RefusedError("invalid_field")
            _data(value, FIELDS[kind])
        elif name in ATTRIBUTES and (value is not None or name not in _OPTIONAL):
            ATTRIBUTES[name](value)


def check_task_id(value: str) -> None:
    """Refuse what would stand in the way of other records of `tasks`."""
    if value.startswith(("partition/", "policy/")):
        raise RefusedError("invalid_field")


def _data(value: Any, fields: tuple[Mapping[str, Check], tuple[str, ...]]) -> Data:  # noqa: ANN401
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise RefusedError("invalid_field")
    checks, required = fields
    data: Data = {}
    for name, one in each(value):
        check = checks.get(name)
        if check is None:
            continue
        if one is not None:
            data[name] = check(one)
        elif name in required:
            raise RefusedError("invalid_field")
        else:
            data.pop(name, None)
    for name in required:
        if name not in data:
            raise RefusedError("invalid_field")
    return data


def check_address(event: Event, partition: int) -> None:
    """Refuse what is for another partition, or for no task; read its sequence."""
    kind, subject = event.kind, event.subject
    if kind in OF_PARTITION or (kind == "task.recovered" and subject.startswith("partition/")):
        if subject != f"partition/{partition}":
            raise RefusedError("invalid_field")
    else:
        check_task_id(subject)
    digits = event.digits
    if kind == "clock.tick" or digits is None:
        return  # of a tick nothing counts but its append time
    if not digits.isascii() or not digits.isdigit() or int(digits) > SEQUENCE_MAX:
        raise RefusedError("invalid_field")
    event.sequence = int(digits)


def check_rules(event: Event) -> None:
    """Refuse what breaks a rule of decimals or between fields; make decimals what is folded.

    A repeated event is ignored before: it changes nothing, whatever it says.
    """
    data = event.data
    if event.kind == "phase.usage":
        cached = data.get("cache_read_tokens", 0) + data.get("cache_write_tokens", 0)
        if cached > data.get("input_tokens", 0):
            raise RefusedError("invalid_field")
        if data.get("reasoning_tokens", 0) > data.get("output_tokens", 0):
            raise RefusedError("invalid_field")
        if "cost_usd" in data:
            data["cost_usd"] = _cost(data["cost_usd"])
    elif event.kind in {"task.granted", "all.granted"}:
        if event.kind == "task.granted" and ("multiplier" in data) == ("limits" in data):
            raise RefusedError("invalid_field")
        if "multiplier" in data:
            check_multiplier(data["multiplier"], above=1)
        else:
            data["limits"] = absolute_limits(data["limits"])
    elif event.kind == "task.reclassified" and not data.keys() & {"complexity", "importance"}:
        raise RefusedError("invalid_field")
