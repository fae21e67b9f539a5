"""What an enforcer said becomes the bytes of an event, or a refusal.

Runs on the emitter's thread: the caller has only put its arguments into a tuple. Validation is the
ledger's own (`schemas.decode`), so that what leaves here is not refused there for its form.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.decode import Refusal, decode_event
from schemas.envelope import rfc3339
from schemas.events import (
    PhaseEndedData,
    PhaseStartedData,
    PhaseUsageData,
    TaskEndedData,
    TaskExplainedData,
    TaskStartedData,
)
from schemas.outputs import DeadLetterDetail
from streams.client.spool import Item

# Type, task id, nanoseconds since 1970, and the fields of `data` with those of `ENVELOPE_FIELDS`.
Said = tuple[str, str, int, Mapping[str, Any]]

TASK_STARTED = "stoploss.task.started"
PHASE_STARTED = "stoploss.phase.started"
PHASE_USAGE = "stoploss.phase.usage"
PHASE_ENDED = "stoploss.phase.ended"
TASK_ENDED = "stoploss.task.ended"
TASK_EXPLAINED = "stoploss.task.explained"

ENVELOPE_FIELDS = frozenset({"root", "traceparent"})
SEQUENCE_DIGITS = 20
_DATA_FIELDS: dict[str, frozenset[str]] = {
    name: frozenset(data.__struct_fields__)
    for name, data in (
        (TASK_STARTED, TaskStartedData),
        (PHASE_STARTED, PhaseStartedData),
        (PHASE_USAGE, PhaseUsageData),
        (PHASE_ENDED, PhaseEndedData),
        (TASK_ENDED, TaskEndedData),
        (TASK_EXPLAINED, TaskExplainedData),
    )
}
_NOT_TASK_IDS = ("partition/", "policy/")
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def encode(said: Said, source: str, sequence: int) -> Item | Refusal:
    """Return the event in its CloudEvents envelope; whatever was said, this does not raise."""
    kind, task_id, time_ns, fields = said
    try:
        data, root, traceparent = _split(kind, task_id, fields)
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"{source}-{sequence}",
            "source": source,
            "type": kind,
            "subject": task_id,
            "time": rfc3339(time_ns // 1_000_000),
            "sequence": f"{sequence:0{SEQUENCE_DIGITS}d}",
            "data": data,
        }
        if root is not None and root != task_id:
            event["partitionkey"] = root
        if traceparent is not None:
            event["traceparent"] = traceparent
        value = _ENCODER.encode(event)
        decoded = decode_event(value)
        if isinstance(decoded, Refusal):
            return decoded
        return Item((task_id if root is None else root).encode(), value)
    except _NotAllowedError as error:
        return error.refusal
    except Exception as error:  # noqa: BLE001 - an object of the enforcer's may raise anything
        return _refusal("value", type(error).__name__, f"what JSON can hold ({error})")


class _NotAllowedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


def _split(
    kind: str, task_id: str, fields: Mapping[str, Any]
) -> tuple[dict[str, Any], str | None, str | None]:
    """Return data, root task id and traceparent; what is None is left out."""
    known = _DATA_FIELDS[kind]
    data: dict[str, Any] = {}
    for name, value in fields.items():
        if name in ENVELOPE_FIELDS or value is None:
            continue
        if name not in known:
            allowed = ", ".join(sorted(known | ENVELOPE_FIELDS))
            raise _NotAllowedError(_refusal(f"data.{name}", value, f"one of {allowed}"))
        if isinstance(value, float) and not math.isfinite(value):  # JSON would say null
            raise _NotAllowedError(_refusal(f"data.{name}", value, "a finite number"))
        data[name] = value
    root = fields.get("root")
    for name, value in (("subject", task_id), ("root", task_id if root is None else root)):
        if not isinstance(value, str) or not value or value.startswith(_NOT_TASK_IDS):
            allowed = "a task id of 1 to 200 characters, not beginning with partition/ or policy/"
            raise _NotAllowedError(_refusal(name, value, allowed))
    return data, root, fields.get("traceparent")


def _refusal(field: str, value: object, allowed: str) -> Refusal:
    try:
        shown = f"{value!r:.80}"
    except Exception:  # noqa: BLE001 - an object of the enforcer's may have a bad repr
        shown = type(value).__name__
    return Refusal("invalid_field", DeadLetterDetail(field, shown, allowed))
