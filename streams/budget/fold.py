"""One event is folded into the state of its partition. Pure: same log, same bytes.

The order is always the same: the clock moves and what became due is decided; the event is refused,
found a duplicate, or folded; what it caused comes back in the order to publish it. A refused event
leaves no trace but the clock. Start reading here; each kind of event has its file.
"""

from collections.abc import Sequence
from typing import Final, assert_never

from schemas.decode import Refusal
from schemas.envelope import rfc3339
from schemas.errors import InvalidFieldError
from schemas.events import (
    LEDGER_SOURCE,
    PARTITION_PREFIX,
    AllGranted,
    ClockTick,
    Event,
    EventBase,
    JustificationReviewed,
    ModeSet,
    PartitionEvent,
    PhaseEnded,
    PhaseStarted,
    PhaseUsage,
    PolicySet,
    TaskEnded,
    TaskEvent,
    TaskExplained,
    TaskGranted,
    TaskReclassified,
    TaskRecovered,
    TaskStarted,
    partition_subject,
)
from schemas.outputs import DeadLetterDetail, Lifecycle
from schemas.topics import Topic
from streams.budget.clock import advance, next_deadline_ms
from streams.budget.decide import redecide, settle, settle_below
from streams.budget.dedupe import is_seen, mark_of, remember, remember_of_task
from streams.budget.effects import Effect, Refused
from streams.budget.executions import check_phase, fold_phase_ended, fold_phase_started
from streams.budget.families import check_task_id
from streams.budget.lifecycle import fold_task_ended, fold_task_started, open_task
from streams.budget.limits import Grant, check_multiplier
from streams.budget.operators import (
    apply_grant,
    check_grant,
    check_reclassified,
    check_recovered,
    fold_explained,
    fold_partition_recovered,
    fold_reclassified,
    fold_recovered,
    fold_reviewed,
)
from streams.budget.policy import InvalidPolicyError, policy_from_json
from streams.budget.state import BREAKER, PartitionState, Task
from streams.budget.usage import fold_usage

__all__ = ["fold", "next_deadline_ms", "open_task_count"]

RareEvent = (
    TaskStarted
    | PhaseStarted
    | PhaseEnded
    | TaskEnded
    | TaskGranted
    | TaskReclassified
    | TaskExplained
    | JustificationReviewed
    | TaskRecovered
)
VALUE_LENGTH_MAX = 80
NOTHING: Final = ()


def fold(
    state: PartitionState, event: Event | Refusal, *, offset: int, append_ms: int
) -> Sequence[Effect]:
    """Change `state` by one record of its partition; return what it caused.

    Args:
        event: a refusal, too, moves the clock; it comes back as a dead letter to be.
        offset: of the record; `state.next_offset` is one more afterwards.
        append_ms: the broker's append time, in milliseconds since 1970 (offline: the event's own).
    """
    state.offset = offset
    state.index = 0
    if state.effects:  # they were returned
        state.effects = []
    state.event_id = None
    if append_ms > state.clock_ms:
        if append_ms >= state.next_due_ms:
            advance(state, append_ms)
        else:
            state.clock_ms = append_ms
    try:
        match event:
            case PhaseUsage():
                _fold_task_event(state, event)
            case Refusal():
                _refuse(state, event.reason, event.detail, None)
            case AllGranted() | ModeSet() | PolicySet() | ClockTick():
                _fold_partition_event(state, event)
            case TaskRecovered() if event.subject.startswith(PARTITION_PREFIX):
                _fold_partition_event(state, event)
            case _:
                state.append_ms = append_ms
                _fold_task_event(state, event)
    except InvalidFieldError as error:
        detail = DeadLetterDetail(error.field, f"{error.value}"[:VALUE_LENGTH_MAX], error.allowed)
        task_id = event.subject if isinstance(event, EventBase) else None
        _refuse(state, "invalid_field", detail, task_id)
    state.next_offset = offset + 1
    if state.clock_ms >= state.checkpoint_due_ms:
        _checkpoint(state)
    # Nearly no event causes anything: its list is the next one's, and nobody else's.
    return state.effects or NOTHING


def open_task_count(state: PartitionState) -> int:
    """Return how many tasks of the partition have not ended."""
    return state.open_tasks


def _fold_task_event(state: PartitionState, event: TaskEvent) -> None:
    # Nearly all tasks that an event names are awake: found without a call.
    subject, source = event.subject, event.source
    task = state.tasks.awake.get(subject) or state.tasks.get(subject)
    if task is None:
        check_task_id("subject", subject)
    mark = mark_of(event)
    if task is not None and is_seen(task, source, mark):
        return
    state.event_id = event.id
    if isinstance(event, PhaseUsage):
        task = fold_usage(state, task, event)
    else:
        task = _apply(state, task, event)
    remember_of_task(task, source, mark)


def _apply(state: PartitionState, task: Task | None, event: RareEvent) -> Task:
    """Refuse an event, or fold it into its task, opened where nothing named it before."""
    policy = state.active_policy if task is None else task.policy
    match event:
        case TaskStarted():
            return _fold_start(state, task, event)
        case PhaseStarted():
            check_phase(task, policy, event.data.phase, event.data.attempt)
            task = _touched(state, task, event)
            fold_phase_started(state, task, event)
        case PhaseEnded():
            known = task is not None and event.data.phase in task.phases
            if event.data.attempt is not None or not known:  # else it is about a run that is known
                check_phase(task, policy, event.data.phase, event.data.attempt)
            task = _touched(state, task, event)
            fold_phase_ended(state, task, event)
        case TaskEnded():
            task = _touched(state, task, event)
            fold_task_ended(state, task, event)
        case TaskGranted():
            grant = check_grant(task, policy, event)
            task = _touched(state, task, event)
            apply_grant(state, task, grant, event.data.by, event.data.reason)
        case TaskReclassified():
            check_reclassified(event)
            task = _touched(state, task, event)
            fold_reclassified(state, task, event)
        case TaskExplained():
            if event.data.phase is not None:
                policy.check_listed("data.phase", event.data.phase)
            task = _touched(state, task, event)
            fold_explained(state, task, event)
        case JustificationReviewed():
            task = _touched(state, task, event)
            fold_reviewed(state, task, event)
        case TaskRecovered():
            check_recovered(task, event)
            task = _touched(state, task, event)
            fold_recovered(state, task, event)
        case _:
            assert_never(event)
    settle(state, task)
    return task


def _fold_start(state: PartitionState, task: Task | None, event: TaskStarted) -> Task:
    if task is not None and task.known:
        task = _touched(state, task, event)
        task.flag("repeated_start")
        return task
    task = fold_task_started(state, task, event)
    _touched(state, task, event)
    settle(state, task, *state.ancestors(task))
    if task.parent_id is not None:
        settle_below(state, task)
    return task


def _touched(state: PartitionState, task: Task | None, event: TaskEvent) -> Task:
    if task is None:
        task = open_task(state, event.subject)
    state.touch(task)
    task.last_ms = state.clock_ms
    return task


def _fold_partition_event(state: PartitionState, event: PartitionEvent | TaskRecovered) -> None:
    own = partition_subject(state.partition)
    if event.subject != own:
        raise InvalidFieldError("subject", event.subject, f"{own}: it is written to this partition")
    if isinstance(event, ClockTick):
        return
    mark = mark_of(event)
    if is_seen(state, event.source, mark):
        return
    state.event_id = event.id
    match event:
        case ModeSet():
            _set_mode(state, event)
        case PolicySet():
            _set_policy(state, event)
        case AllGranted():
            _grant_all(state, event)
        case TaskRecovered():
            fold_partition_recovered(state, event)
        case _:
            assert_never(event)
    remember(state, event.source, mark, state.active_policy.dedupe_recent)


def _set_mode(state: PartitionState, event: ModeSet) -> None:
    before = (state.mode, state.mode_by == BREAKER)
    if (event.data.mode, event.data.by == BREAKER) == before:
        return
    state.previous_mode, state.mode, state.mode_by = state.mode, event.data.mode, event.data.by
    for task_id in sorted(state.tasks.awake):  # who is held is never asleep
        if not state.tasks[task_id].is_ended:
            redecide(state, state.tasks[task_id])


def _set_policy(state: PartitionState, event: PolicySet) -> None:
    try:
        policy = policy_from_json(bytes(event.data.policy), "data.policy")
    except InvalidPolicyError as refused:
        first = refused.errors[0]
        field = f"data.policy.{first.field}"
        raise InvalidFieldError(field, first.value, first.allowed) from refused
    if policy.hash != event.data.hash:
        raise InvalidFieldError("data.hash", event.data.hash, f"{policy.hash}, that of its content")
    if state.policy is not None and event.source == LEDGER_SOURCE:
        # The built-in one, for a partition that had none when its owner looked: an operator's,
        # already in `events` then but not folded, came before it and stays.
        return
    previous, state.policy = state.policy, policy
    state.checkpoint_due_ms = 0
    state.retain(policy)
    if previous is not None:
        state.release(previous)


def _grant_all(state: PartitionState, event: AllGranted) -> None:
    grant = Grant(multiplier=check_multiplier("data.multiplier", event.data.multiplier, above=1))
    for task_id in sorted(state.tasks):
        task = state.tasks[task_id]
        if not task.is_ended:
            state.touch(task)
            apply_grant(state, task, grant, event.data.by, event.data.reason)
            settle(state, task)


def _refuse(
    state: PartitionState, reason: str, detail: DeadLetterDetail, task_id: str | None
) -> None:
    state.emit(Topic.DEAD_LETTERS, "stoploss.dead_letter", "", Refused(reason, detail, task_id))


def _checkpoint(state: PartitionState) -> None:
    policy = state.active_policy
    every_ms = policy.clock.checkpoint_every_ms
    if state.clock_ms - state.checkpoint_ms < every_ms:  # a restart, or another policy since
        state.checkpoint_due_ms = state.checkpoint_ms + every_ms
        return
    is_first = not state.checkpoint_ms
    state.checkpoint_ms = state.clock_ms
    state.checkpoint_due_ms = state.clock_ms + every_ms
    if is_first:
        return
    state.emit(
        Topic.LIFECYCLE,
        "stoploss.lifecycle",
        partition_subject(state.partition),
        Lifecycle(
            change="partition_checkpoint",
            partition=state.partition,
            next_offset=state.next_offset,
            clock=rfc3339(state.clock_ms),
            mode=state.mode,
            policies=[policy.hash, *sorted(set(state.policies) - {policy.hash})],
            input=state.input_ref(),
        ),
    )
