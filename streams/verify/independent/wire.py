"""What crosses the wire, read from the contract: exact JSON, and which events are refused."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

EVENT_BYTES_MAX = 1024 * 1024
NANO = Decimal(1_000_000_000)
COST_USD_MAX = 1_000_000
TOKENS_MAX = 10_000_000_000
COUNT_MAX = 1_000_000_000
LIMIT_MAX = 10**15
DURATION_MS_MAX = 10 * 365 * 24 * 3_600_000
MULTIPLIER_MAX = 10
MULTIPLIER_PLACES_MAX = 9
SEQUENCE_DIGITS_MAX = 40
METRICS = ("tokens", "latency_ms", "cost_usd")
COMPLEXITIES = ("tiny", "small", "medium", "large")
IMPORTANCES = ("low", "medium", "high", "critical")

Headers = Sequence[tuple[str, bytes | None]]
Data = dict[str, Any]


class RefusedError(Exception):
    """A record is no event of ours; the message is the reason of its dead letter."""


@dataclass(slots=True)
class Event:
    """An event that is well formed; `data` has the fields of the contract that are not null."""

    kind: str  # without `stoploss.`
    id: str
    source: str
    subject: str
    time: str
    sequence: int | None
    traceparent: str | None
    data: Data

    def time_ms(self) -> int:
        """Return the event's own time, in milliseconds since 1970, rounded down."""
        return epoch_ms(self.time)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant)


def loads(value: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return JSON with exact numbers.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        text = value.decode()
        if text[:1] == "{":  # nearly all; to look for blanks around it takes as long as to read it
            found, end = _DECODER.raw_decode(text)
            if end == len(text):
                return found
        return _DECODER.decode(text)
    except (RecursionError, ArithmeticError) as error:
        raise ValueError("not read") from error


def epoch_ms(text: str) -> int:
    """Return the milliseconds since 1970 of an RFC 3339 time; ValueError where it is none."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    whole = int(time.replace(microsecond=0).timestamp())
    return whole * 1000 + time.microsecond // 1000


def nano(value: Decimal | int) -> int:
    """Return dollars as nano-dollars, rounded half-even."""
    return int((Decimal(value) * NANO).to_integral_value(ROUND_HALF_EVEN))


Check = Callable[[Any], Any]


def _text(low: int, high: int) -> Check:
    def check(value: Any) -> Any:  # noqa: ANN401 - any JSON
        if type(value) is not str or not low <= len(value) <= high:
            raise RefusedError("invalid_field")
        return value

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> Any:  # noqa: ANN401 - any JSON
        if type(value) is int and low <= value <= high:  # a bool is none
            return value
        if isinstance(value, Decimal) and low <= value <= high and value == int(value):
            value = int(value)  # within bounds: of 1e999999999 it would never end
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
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
    """Return a decimal; written as a text it is one as well."""
    if isinstance(value, str):
        try:
            value = Decimal(value)
        except ArithmeticError:
            raise RefusedError("invalid_field") from None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise RefusedError("invalid_field")
    number = Decimal(value)
    if not number.is_finite():
        raise RefusedError("invalid_field")
    return number


def _cost(value: Any) -> int:  # noqa: ANN401 - any JSON
    """Return nano-dollars."""
    dollars = _decimal(value)
    if not 0 <= dollars <= COST_USD_MAX:
        raise RefusedError("invalid_field")
    return nano(dollars)


def _check_multiplier(factor: Decimal, *, above: int) -> None:
    if not above < factor <= MULTIPLIER_MAX or _places(factor) > MULTIPLIER_PLACES_MAX:
        raise RefusedError("invalid_field")


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int), "only finite numbers come here"
    return max(-exponent, 0)


def _anything(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return value


def _object(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict):
        raise RefusedError("invalid_field")
    return value


def _labels(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict) or len(value) > 16:  # noqa: PLR2004 - the contract's
        raise RefusedError("invalid_field")
    for key, one in value.items():
        _text(0, 64)(key)
        _text(0, 256)(one)
    return value


def _phases(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(value, list) or not 1 <= len(value) <= 64:  # noqa: PLR2004 - the contract's
        raise RefusedError("invalid_field")
    return [_phase(one) for one in value]


def absolute_limits(value: Any) -> dict[str, dict[str, int]]:  # noqa: ANN401 - any JSON
    """Return limits by phase or "task", then metric: tokens, milliseconds, nano-dollars.

    Raises:
        RefusedError: one of them is not allowed.
    """
    if not isinstance(value, dict) or len(value) > 65:  # noqa: PLR2004 - the contract's
        raise RefusedError("invalid_field")
    limits: dict[str, dict[str, int]] = {}
    for name, cells in value.items():
        _name(name)
        if not isinstance(cells, dict) or not cells.keys() <= set(METRICS):
            raise RefusedError("invalid_field")
        limits[name] = {}
        for metric, limit in cells.items():
            if limit is None:
                continue
            if metric == "cost_usd":
                limits[name][metric] = _cost(limit)
                if limits[name][metric] == 0:
                    raise RefusedError("invalid_field")
            else:
                limits[name][metric] = _whole(1, LIMIT_MAX)(limit)
        if not limits[name]:
            raise RefusedError("invalid_field")
    if not limits:
        raise RefusedError("invalid_field")
    return limits


_name, _phase, _long = _text(1, 200), _text(1, 64), _text(0, 4_000)
_required, _trace = _text(1, 4_000), _text(0, 128)
_attempt, _tokens, _count = _whole(1, 1_000_000), _whole(0, TOKENS_MAX), _whole(0, COUNT_MAX)
_duration = _whole(-DURATION_MS_MAX, DURATION_MS_MAX)
_complexity, _importance = _one_of(*COMPLEXITIES), _one_of(*IMPORTANCES)


def _task_id(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if _name(value).startswith(("partition/", "policy/")):
        raise RefusedError("invalid_field")
    return value


# By type: the fields of its data, and those that must be there.
FIELDS: Mapping[str, tuple[Mapping[str, Check], tuple[str, ...]]] = {
    "task.started": (
        {
            "complexity": _complexity,
            "importance": _importance,
            "importance_justification": _long,
            "by": _name,
            "planned_phases": _phases,
            "parent_task_id": _task_id,
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
        {"by": _name, "reason": _required, "multiplier": _decimal, "limits": _object},
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
        {"policy": _object, "version": _name, "hash": _name, "by": _name},
        ("policy", "version", "hash", "by"),
    ),
    "clock.tick": ({}, ()),
}
OF_PARTITION = frozenset({"all.granted", "mode.set", "policy.set", "clock.tick"})
PREFIX = "stoploss."
_HEADERS = frozenset(
    {"specversion", "id", "source", "type", "subject", "time", "sequence", "partitionkey"}
    | {"traceparent"}
)


def read_event(value: bytes | None, headers: Headers, partition: int) -> Event:
    """Return the event of a record, in structured or in binary mode.

    Raises:
        RefusedError: it is none; what depends on the state of its task is judged later.
    """
    return _event(_envelope(value, headers), partition)


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
    envelope: Data = {}
    for header, raw in headers:
        name = header.removeprefix("ce_")
        if header.startswith("ce_") and name in _HEADERS and raw is not None:
            envelope[name] = raw.decode()
    if value is not None and value.strip():
        envelope["data"] = loads(value)
    return envelope


def _event(envelope: Data, partition: int) -> Event:
    kind = envelope.get("type")
    if not isinstance(kind, str):
        raise RefusedError("not_an_event")
    kind = kind.removeprefix(PREFIX) if kind.startswith(PREFIX) else ""
    fields = FIELDS.get(kind)
    if fields is None:
        raise RefusedError("unknown_type")
    get = envelope.get
    if get("specversion", "1.0") not in {"1.0", None}:
        raise RefusedError("invalid_field")
    subject = _name(get("subject"))
    if kind in OF_PARTITION or (kind == "task.recovered" and subject.startswith("partition/")):
        if subject != f"partition/{partition}":
            raise RefusedError("invalid_field")
    else:
        _task_id(subject)
    time = _name(get("time"))
    try:
        is_dated = datetime.fromisoformat(time).tzinfo is not None
    except ValueError:
        is_dated = False
    if not is_dated:
        raise RefusedError("invalid_field")
    if (text := get("partitionkey")) is not None:
        _name(text)
    if (traceparent := get("traceparent")) is not None:
        _trace(traceparent)
    sequence = _sequence(get("sequence"))
    data = _data(get("data"), fields)
    return Event(
        kind=kind,
        id=_name(get("id")),
        source=_name(get("source")),
        subject=subject,
        time=time,
        sequence=sequence,
        traceparent=traceparent,
        data=data,
    )


def _sequence(value: Any) -> int | None:  # noqa: ANN401 - any JSON
    if value is None:
        return None
    text = _text(1, SEQUENCE_DIGITS_MAX)(value)
    if not text.isascii() or not text.isdigit():
        raise RefusedError("invalid_field")
    return int(text)


def _data(value: Any, fields: tuple[Mapping[str, Check], tuple[str, ...]]) -> Data:  # noqa: ANN401
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise RefusedError("invalid_field")
    checks, required = fields
    data: Data = {}
    for name, one in value.items():
        if one is not None and (check := checks.get(name)) is not None:
            data[name] = check(one)
    for name in required:
        if name not in data:
            raise RefusedError("invalid_field")
    return data


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
    elif event.kind == "task.started":
        if "budget_multiplier" in data:
            _check_multiplier(data["budget_multiplier"], above=0)
    elif event.kind in {"task.granted", "all.granted"}:
        if event.kind == "task.granted" and ("multiplier" in data) == ("limits" in data):
            raise RefusedError("invalid_field")
        if "multiplier" in data:
            _check_multiplier(data["multiplier"], above=1)
        else:
            data["limits"] = absolute_limits(data["limits"])
    elif event.kind == "task.reclassified" and not data.keys() & {"complexity", "importance"}:
        raise RefusedError("invalid_field")
