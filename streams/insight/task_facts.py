"""What is known of one task from the ledger's topics, whatever order they are read in.

Within a topic a task's records come in order; between topics a reader may see them in any, and after
a restart some of them twice. So everything here is kept by what it is about (a run, a crossing, a
decision), and a later record replaces an earlier one, never the other way round.
"""

from typing import NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Struct

from schemas.envelope import Envelope
from schemas.feedback import Feedback
from schemas.fields import Cause, Complexity, Importance, Metric, Number, Scope, Verdict
from schemas.outputs import Breach, Cell, Decision, ExecutionRecord, Lifecycle

OPEN, ENDED = "open", "ended"
# A task that backtracks for ever fills no memory: what is older goes first.
RUNS_MAX, CROSSINGS_MAX, BLOCKS_MAX, EXPLANATIONS_MAX, CHILDREN_MAX = 512, 512, 32, 32, 1_000
LIMITS_CHANGES_MAX = 32
CHANGES_LIMITS = frozenset({"granted", "reclassified", "reviewed", "started"})
LEVELS = tuple(Verdict)


class Place(NamedTuple):
    """Where a record's input stands in its partition: what orders the records of one task."""

    offset: int
    order: int  # among what that input caused


NOWHERE = Place(-1, -1)


class Run(Struct, kw_only=True, omit_defaults=True):
    """One finished run of a phase, as its last revision has it."""

    place: Place
    phase: str
    attempt: int
    outcome: str
    latency_ms: int
    metered_tokens: Number
    counters: dict[str, Number]
    limits: dict[str, Number]


class Crossing(Struct, kw_only=True, omit_defaults=True):
    """A level that a cell came to, as its last record has it."""

    place: Place
    cell: Cell
    level: Verdict
    used: Number
    limit: Number
    limits_version: int
    withdrawn: bool = False
    cause: Cause | None = None
    evidence: dict[str, Number] = {}


class Block(Struct, kw_only=True, omit_defaults=True):
    """A decision to stop, and what people said of it."""

    place: Place
    decision_id: str
    time: str
    message: str
    enforced: bool
    false_positive: bool | None = None
    answered_by: str | None = None


class Explanation(Struct, kw_only=True, omit_defaults=True):
    """What somebody wrote about a review or block."""

    place: Place
    by: str
    text: str
    time: str
    phase: str | None = None


class Changed(Struct, kw_only=True, omit_defaults=True):
    """What gave the task other limits, and the version that they have since."""

    change: str
    time: str
    limits_version: int
    by: str | None = None
    reason: str | None = None


class TaskFacts(Struct, kw_only=True, omit_defaults=True):
    """One task: what its class and limits are, what ran, what was crossed, decided and explained."""

    task_id: str
    status: str = OPEN
    outcome: str | None = None
    complexity: Complexity = Complexity.MEDIUM
    importance: Importance = Importance.MEDIUM
    task_type: str | None = None
    owner: str | None = None
    team: str | None = None
    parent_task_id: str | None = None
    planned_phases: list[str] = []
    limits: dict[str, dict[str, Number]] = {}
    limits_version: int = 0
    flags: list[str] = []
    started: str | None = None
    ended: str | None = None
    born: Place = NOWHERE  # where this life began, if the id had an earlier one
    changed: Place = NOWHERE  # of the last lifecycle record
    verdict: Verdict = Verdict.CONTINUE
    decided: Place = NOWHERE  # of the last decision
    owed: Place = NOWHERE  # of the last decision for which an explanation is owed
    inherited_from: str | None = None  # by the last decision: whose block holds it
    own: Verdict = Verdict.CONTINUE  # while it inherits: its own verdict before
    runs: dict[str, Run] = {}
    crossings: dict[str, Crossing] = {}
    blocks: dict[str, Block] = {}
    explanations: list[Explanation] = []
    limits_changes: list[Changed] = []
    children: dict[str, Place] = {}

    @property
    def is_ended(self) -> bool:
        """Whether the enforcer said that it has ended."""
        return self.status == ENDED


def place_of(record_id: str) -> Place:
    """Return the place in the id of one of the ledger's records, `{partition}-{offset}-{index}`.

    Raises:
        ValueError: it is no such id.
    """
    _, offset, order = record_id.split("-")
    return Place(int(offset), int(order))


def tell_lifecycle(facts: TaskFacts, record: Envelope[Lifecycle]) -> bool:
    """Take over what a start, a change or an end says; tell whether anything changed."""
    place, said = place_of(record.id), record.data
    if place <= facts.changed:
        return False
    # A late start completes a task that usage has opened; it computes its limits anew.
    if said.change == "started" and facts.is_ended and said.limits_version == 1:
        _begin_anew(facts, place)
    facts.changed = place
    facts.complexity = said.complexity or facts.complexity
    facts.importance = said.importance or facts.importance
    _note_limits(facts, record)
    facts.task_type, facts.owner, facts.team = said.task_type, said.owner, said.team
    facts.parent_task_id = said.parent_task_id
    facts.limits, facts.planned_phases, facts.flags = said.limits, said.planned_phases, said.flags
    match said.change:
        case "started":
            facts.started = facts.started or record.time
        case "ended":
            facts.status, facts.outcome, facts.ended = ENDED, said.outcome, record.time
        case "explained":
            told = Explanation(
                by=said.by or "",
                text=said.text or "",
                time=record.time,
                phase=said.phase,
                place=place,
            )
            facts.explanations = [*facts.explanations, told][-EXPLANATIONS_MAX:]
        case _:
            pass  # its values are taken over above, whatever happened
    return True


def _note_limits(facts: TaskFacts, record: Envelope[Lifecycle]) -> None:
    """Note what has changed the limits: a crossing is told beside those that hold now."""
    said = record.data
    version = said.limits_version or facts.limits_version
    if said.change in CHANGES_LIMITS and version > max(facts.limits_version, 1):
        changed = Changed(
            change=said.change,
            time=record.time,
            limits_version=version,
            by=said.by,
            reason=said.reason,
        )
        facts.limits_changes = [*facts.limits_changes, changed][-LIMITS_CHANGES_MAX:]
    facts.limits_version = version


def _begin_anew(facts: TaskFacts, start: Place) -> None:
    """Begin a new life: after its retention a task's id may be used again, for another task.

    What came after the start stays, though another topic's records may have been read before it.
    """
    fresh = TaskFacts(task_id=facts.task_id, born=start)
    fresh.runs = _since(start, facts.runs)
    fresh.crossings = _since(start, facts.crossings)
    fresh.blocks = _since(start, facts.blocks)
    if facts.decided > start:
        fresh.decided, fresh.verdict, fresh.owed = facts.decided, facts.verdict, facts.owed
        fresh.inherited_from, fresh.own = facts.inherited_from, facts.own
    fresh.children = {child: place for child, place in facts.children.items() if place > start}
    for name in facts.__struct_fields__:
        setattr(facts, name, getattr(fresh, name))


def tell_execution(facts: TaskFacts, record: Envelope[ExecutionRecord]) -> bool:
    """Take over a run of a phase, unless a later revision is known; tell whether it was."""
    place, said = place_of(record.id), record.data
    name = f"{said.phase}#{said.attempt}"
    if place < facts.born or _is_old(facts.runs, name, place):
        return False
    facts.runs[name] = Run(
        place=place,
        phase=said.phase,
        attempt=said.attempt,
        outcome=said.outcome.value,
        latency_ms=said.latency_ms,
        metered_tokens=said.metered_tokens,
        counters={counter: count for counter, count in said.counters.items() if count},
        limits=said.limits,
    )
    _bound(facts.runs, RUNS_MAX)
    return True


def tell_breach(facts: TaskFacts, record: Envelope[Breach]) -> bool:
    """Take over a crossing, or that one is withdrawn; tell whether anything changed."""
    place, said = place_of(record.id), record.data
    name = f"{cell_key(said.cell)}/{said.level.value}"
    if place < facts.born or _is_old(facts.crossings, name, place):
        return False
    facts.crossings[name] = Crossing(
        place=place,
        cell=said.cell,
        level=said.level,
        used=said.used,
        limit=said.limit,
        limits_version=said.limits_version,
        withdrawn=said.withdrawn,
        cause=said.cause,
        evidence=said.evidence,
    )
    _bound(facts.crossings, CROSSINGS_MAX)
    return True


def tell_decision(facts: TaskFacts, record: Envelope[Decision]) -> bool:
    """Take over a verdict, and keep each block of its own: somebody is asked about it.

    A block that is inherited is its parent's: nobody has to explain it here, or to answer for it.
    """
    place, said = place_of(record.id), record.data
    if place < facts.born:
        return False
    is_own_block = said.verdict is Verdict.BLOCK and said.inherited_from is None
    is_new_block = is_own_block and record.id not in facts.blocks
    if is_new_block:
        facts.blocks[record.id] = Block(
            place=place,
            decision_id=record.id,
            time=record.time,
            message=said.message,
            enforced=said.enforced,
        )
        _bound(facts.blocks, BLOCKS_MAX)
    if place <= facts.decided:
        return is_new_block
    before, inherited_at = said.previous, None
    if facts.inherited_from is not None:
        before, inherited_at = facts.own, facts.decided
    facts.decided, facts.verdict = place, said.verdict
    facts.inherited_from = said.inherited_from
    if said.inherited_from is not None:
        facts.own = before
        return True
    facts.own = Verdict.CONTINUE
    # One that is told again, because another mode holds now, asks for nothing new, nor does one that
    # falls: what it came down from has asked already. What it came to itself while it inherited a
    # block shows only now, and may have been explained meanwhile.
    has_risen = LEVELS.index(said.verdict) > LEVELS.index(before)
    if said.verdict in (Verdict.REVIEW, Verdict.BLOCK) and has_risen:
        facts.owed = place if inherited_at is None else inherited_at
    return True


def tell_feedback(facts: TaskFacts, record: Envelope[Feedback]) -> None:
    """Take over an answer to: was this block a false positive?"""
    said = record.data
    if (block := facts.blocks.get(said.decision_id)) is not None:
        block.false_positive, block.answered_by = said.false_positive, said.by


def tell_child(facts: TaskFacts, record: Envelope[Lifecycle]) -> bool:
    """Remember a child from its own lifecycle: what it uses counts for its parent as well.

    Returns:
        Whether anything changed.
    """
    child_id, place = record.data.task_id, place_of(record.id)
    if child_id is None or place < facts.born:
        return False
    known = facts.children.get(child_id)
    if known is None and len(facts.children) >= CHILDREN_MAX:
        return False
    facts.children[child_id] = place if known is None else max(place, known)
    return known is None or place > known


def cell_key(cell: Cell) -> str:
    """Return `task/tokens` or `phase/THINK/tokens`: names a cell among those of its task."""
    if cell.scope is Scope.TASK:
        return f"task/{cell.metric.value}"
    return f"phase/{cell.phase}/{cell.metric.value}"


def used_by(run: Run) -> dict[Metric, Number]:
    """Return what a run used of each metric, in the metric's unit."""
    return {
        Metric.TOKENS: run.metered_tokens,
        Metric.LATENCY_MS: run.latency_ms,
        Metric.COST_USD: run.counters.get("cost_usd", 0),
    }


def encode_facts(facts: TaskFacts) -> bytes:
    """Return the facts as JSON; `decode_facts` reads them back."""
    return _ENCODER.encode(facts)


def decode_facts(value: bytes) -> TaskFacts:
    """Return what `encode_facts` was given.

    Raises:
        schemas.refusal.UNREADABLE: it is something else.
    """
    return _DECODER.decode(value)


_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DECODER = msgspec.json.Decoder(TaskFacts)


class _Placed(Protocol):
    place: Place


_Kept = TypeVar("_Kept", bound=_Placed)


def _is_old(kept: dict[str, _Kept], name: str, place: Place) -> bool:
    """Whether what is kept under `name` is as new as a record of that place, or newer."""
    known = kept.get(name)
    return known is not None and known.place >= place


def _since(start: Place, kept: dict[str, _Kept]) -> dict[str, _Kept]:
    return {name: each for name, each in kept.items() if each.place > start}


def _bound(kept: dict[str, _Kept], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]
