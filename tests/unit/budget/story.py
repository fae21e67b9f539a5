"""Histories told as text: one event a line, and after the arrow what a user can see then.

    start  TASK-1 planned=THINK   → continue    # medium, medium: 6,000 tokens
    usage  TASK-1 THINK 9_000     → review      # three levels at once: the highest is said
    tick   +2m                    → nothing

Before the arrow: verb, subject, then words and `name=value`. On every line: `+90s` moves the clock
first (also ms, m, h, d), `own=-10m` is the event's own time from the clock, `id=`, `seq=` and
`source=` are the envelope's. After it, separated by semicolons: the verdict of the task (of the line
before, where the event is for all of them), `TASK-2 block` for another's, `refused FIELD`, `nothing` (no record at all), or any line of `said`.
"""

import re
import shlex
from collections.abc import Callable
from typing import Any

from schemas.events import partition_subject
from schemas.outputs import Breach, Decision, ExecutionRecord, Lifecycle
from schemas.topics import Topic
from streams.budget.effects import Effect, Refused
from streams.budget.ladder import LEVELS
from streams.budget.policy import Policy, policy_json
from tests.unit.budget.world import OWN_SUBJECT, PARTITION, World, record

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
VERDICTS = {level.value for level in LEVELS}
LIMITS = ("tokens", "latency_ms", "cost_usd")

Words = list[str]
Named = dict[str, str]


def story(text: str, *, policy: Policy | None = None, **policies: Policy) -> World:
    """Tell a history to a new partition and check it; `policies` are those of `policy` lines."""
    return tell(World(policy), text, **policies)


def tell(world: World, text: str, **policies: Policy) -> World:
    """Go on with a history."""
    subject = ""
    for line in text.splitlines():
        told, _, _ = line.partition("#")
        event, _, seen = told.partition("→")
        if event.strip():
            subject = _happen(world, shlex.split(event), policies) or subject
            for claim in filter(None, (one.strip() for one in seen.split(";"))):
                _check(world, subject, claim, line.strip())
    return world


def said(effect: Effect) -> str:
    """One record as a short line, such as `TASK-1 THINK tokens warn` or `TASK-1 ended`."""
    match effect.data:
        case Decision() as data:
            how = data.unenforced_reason or "enforced"
            above = f" from {data.inherited_from}" if data.inherited_from else ""
            return f"{data.task_id} {data.previous} to {data.verdict}{above} {how}"
        case Breach() as data:
            where = data.cell.phase or "task"
            taken_back = " withdrawn" if data.withdrawn else ""
            return f"{data.task_id} {where} {data.cell.metric} {data.level}{taken_back}"
        case ExecutionRecord() as data:
            run = f"{data.phase} {data.attempt} {data.outcome}"
            return f"{data.task_id} {run} {data.latency_ms}ms r{data.revision}"
        case Lifecycle() as data:
            return f"{data.task_id or f'partition/{data.partition}'} {data.change}"
        case Refused() as data:
            return f"refused {data.detail.field}"
        case None:
            return f"{effect.key} gone from {effect.topic}"
        case _:
            return f"{effect.key.partition('/')[0]} stored"


def all_said(world: World, *topics: Topic) -> list[str]:
    """Everything published so far, in order; of some topics only where they are named."""
    return [said(one) for one in world.effects if not topics or one.topic in topics]


def _check(world: World, subject: str, claim: str, line: str) -> None:
    seen = [said(effect) for effect in world.last]
    match claim.split():
        case ["nothing"]:
            assert not seen, line
        case [verdict] if verdict in VERDICTS:
            assert LEVELS[world.task(subject).verdict].value == verdict, f"{line}: {seen}"
        case [task_id, verdict] if verdict in VERDICTS:
            assert LEVELS[world.task(task_id).verdict].value == verdict, f"{line}: {seen}"
        case _:
            assert claim in seen, f"{line}: {seen}"


def _happen(world: World, words: Words, policies: dict[str, Policy]) -> str:
    """Fold the event of one line; return its task, or nothing where it is for all of them."""
    verb, *rest = words
    moves = [word for word in rest if re.fullmatch(r"\+\d+[a-z]+", word)]
    rest = [word for word in rest if word not in moves]
    named = dict(word.split("=", 1) for word in rest if "=" in word)
    plain = [word for word in rest if "=" not in word]
    append_ms = world.clock_ms + sum(map(duration_ms, moves))
    if verb == "garbage":
        world.take(b"}", append_ms)
        return ""
    kind, whole_partition, data_of = VERBS[verb]
    subject = OWN_SUBJECT if whole_partition else plain.pop(0)
    envelope = {name: named.pop(name, None) for name in ("id", "seq", "source", "own")}
    data = _policy_data(policies[plain[0]]) if verb == "policy" else data_of(plain, named)
    own_ms = append_ms + (duration_ms(envelope["own"]) if envelope["own"] else 0)
    world.take(
        record(
            kind,
            subject,
            envelope["id"] or f"e-{world.offset}",
            data,
            own_ms,
            source=envelope["source"] or "enforcer",
            sequence=None if envelope["seq"] is None else int(envelope["seq"]),
        ),
        append_ms,
    )
    return "" if whole_partition else subject


def duration_ms(text: str) -> int:
    """`+90s`, `-10m`, `250ms` in milliseconds."""
    found = re.fullmatch(r"([+-]?\d+)(ms|s|m|h|d)", text)
    assert found, text
    return int(found[1]) * UNITS_MS[found[2]]


def limits_of(named: Named, prefix: str = "") -> dict[str, dict[str, int | float]]:
    """`THINK.tokens=100` as the limits of an override or a grant."""
    limits: dict[str, dict[str, int | float]] = {}
    for name in [one for one in named if one.startswith(prefix) and one.endswith(LIMITS)]:
        scope, _, metric = name.removeprefix(prefix).rpartition(".")
        limits.setdefault(scope, {})[metric] = number_of(named.pop(name))
    return limits


def number_of(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _who(named: Named, **data: object) -> dict[str, Any]:
    who = {"by": named.pop("by", "ada"), "reason": named.pop("reason", "because")}
    return who | data | {name: _plain(value) for name, value in named.items()}


def _plain(text: str) -> object:
    """The value of a word: null, a number, true or false, else text."""
    known = {"null": None, "true": True, "false": False}
    if text in known:
        return known[text]
    return number_of(text) if re.fullmatch(r"-?[\d_]*\.?\d+", text) else text


def _start(_: Words, named: Named) -> dict[str, Any]:
    renamed = {"parent": "parent_task_id", "why": "importance_justification"}
    renamed |= {"x": "budget_multiplier", "type": "task_type"}
    data: dict[str, Any] = {}
    if overrides := limits_of(named, "override."):
        data["budget_overrides"] = overrides
    if "planned" in named:
        data["planned_phases"] = named.pop("planned").split(",")
    for name, value in named.items():
        is_text = name in {"parent", "why", "owner", "team", "by"}
        data[renamed.get(name, name)] = value if is_text else _plain(value)
    return data


def _usage(words: Words, named: Named) -> dict[str, Any]:
    phase, *tokens = words
    renamed = {"out": "output_tokens", "read": "cache_read_tokens", "write": "cache_write_tokens"}
    renamed |= {"thought": "reasoning_tokens", "cost": "cost_usd", "calls": "model_calls"}
    renamed |= {"ms": "duration_ms", "files": "files_read", "known": "usage_known"}
    data: dict[str, Any] = {"phase": phase}
    if tokens:
        data["input_tokens"] = int(tokens[0])
    return data | {renamed.get(name, name): _plain(value) for name, value in named.items()}


def _phase(words: Words, named: Named) -> dict[str, Any]:
    phase, *outcome = words
    data: dict[str, Any] = {"phase": phase}
    if outcome:
        data["outcome"] = outcome[0]
    if "ms" in named:
        data["duration_ms"] = int(named.pop("ms"))
    return data | {name: _plain(value) for name, value in named.items()}


def _grant(words: Words, named: Named) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if words:
        data["multiplier"] = number_of(words[0].removeprefix("×"))
    if limits := limits_of(named):
        data["limits"] = limits
    return _who(named, **data)


def _finish(words: Words, _: Named) -> dict[str, Any]:
    return {"outcome": words[0]} if words else {}


def _explain(words: Words, named: Named) -> dict[str, Any]:
    return {"by": "ada", "text": words[0]} | named


def _review(words: Words, named: Named) -> dict[str, Any]:
    return {"by": "ada", "approved": words[0] == "approve"} | named


def _recover(words: Words, named: Named) -> dict[str, Any]:
    return _who(named, action=words[0])


def _mode(words: Words, named: Named) -> dict[str, Any]:
    return _who(named, mode=words[0])


def _policy_data(policy: Policy) -> dict[str, Any]:
    document = policy.document
    assert policy_json(policy)
    return {"policy": document, "version": policy.version, "hash": policy.hash, "by": "ada"}


def _nothing(_words: Words, _named: Named) -> None:
    return None


# By verb: the event's type, whether it is for the whole partition, and how its data is read.
VERBS: dict[str, tuple[str, bool, Callable[[Words, Named], dict[str, Any] | None]]] = {
    "start": ("task.started", False, _start),
    "begin": ("phase.started", False, _phase),
    "usage": ("phase.usage", False, _usage),
    "end": ("phase.ended", False, _phase),
    "finish": ("task.ended", False, _finish),
    "grant": ("task.granted", False, _grant),
    "reclassify": ("task.reclassified", False, lambda _, named: _who(named)),
    "explain": ("task.explained", False, _explain),
    "review": ("justification.reviewed", False, _review),
    "recover": ("task.recovered", False, _recover),
    "grant-all": ("all.granted", True, _grant),
    "mode": ("mode.set", True, _mode),
    "policy": ("policy.set", True, _nothing),
    "tick": ("clock.tick", True, _nothing),
}

assert partition_subject(PARTITION) == OWN_SUBJECT
