"""One partition's inputs, in order, and what each of them must have caused."""

import heapq
from decimal import Decimal
from typing import Any

from streams.verify.independent.expected import Expected
from streams.verify.independent.limits import BLOCK, LEVELS, CellKey, Policy
from streams.verify.independent.refusals import Refusals
from streams.verify.independent.standing import BREAKER, SPENT, hear, one_of
from streams.verify.independent.task import (
    END_DUE,
    FORGET_DUE,
    LEVEL_DUE,
    STUCK_DUE,
    Run,
    Task,
)
from streams.verify.independent.wire import (
    METRICS,
    Data,
    Event,
    Headers,
    RefusedError,
    absolute_limits,
    check_address,
    check_rules,
    read_event,
)

LEDGER = "stoploss/ledger"  # the source of what it writes to `events` itself
KEPT = -1  # instead of a deadline: past its retention, and it has children
REVIEW = LEVELS.index("review")
# Fields of a report that are counters as they are.
SUMMED = frozenset(
    {
        "input_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost_usd",
        "tool_calls",
        "files_read",
        "output_chars",
    }
)


class Partition(Refusals):
    """The state of one partition; `fold` changes it by one record of `events`."""

    def fold(
        self,
        offset: int,
        append_ms: int,
        value: bytes | None,
        headers: Headers,
        *,
        is_refused: bool = False,
    ) -> list[Expected]:
        """Return what a record must have caused, of each key in order.

        Args:
            is_refused: there is a dead letter of it. That is believed of a policy alone: the
                contract does not say how its hash is made.
        """
        self._offset, self._append_ms, self._expected = offset, append_ms, []
        self.subject, self.linked, self.unsure = None, [], []
        self.traceparent = self.letter_traceparent = self._event_id = self.claimed = None
        if append_ms > self.clock_ms:
            self._move_clock(append_ms)
        try:
            event = read_event(value, headers)
            self.traceparent = event.traceparent
            self._take(event, value, is_refused=is_refused)
        except RefusedError as refused:
            self.letter_traceparent = refused.traceparent or self.traceparent
            self._letter(value)
        return self._expected

    # Time

    def _move_clock(self, append_ms: int) -> None:
        """Decide what became due, each thing at its own deadline, then let the clock stand there.

        Levels of one instant are one decision of each task, whatever else is due then. What ends or
        forgets a task, or says that it is stuck, comes after them.
        """
        heap = self._heap
        while heap and heap[0][0] <= append_ms:
            at_ms = heap[0][0]
            later = self._cross_due(at_ms)
            self._settle()
            for task in later:
                if task.id in self.tasks:
                    self._decide_due(task, at_ms)
        self.clock_ms = append_ms

    def _cross_due(self, at_ms: int) -> list[Task]:
        """Reach the levels that are due at an instant; return the tasks of which more is due then."""
        heap, later = self._heap, []
        while heap and heap[0][0] <= at_ms:
            due_ms, task_id = heapq.heappop(heap)
            task = self.tasks.get(task_id)
            if task is None or task.due_ms != due_ms:
                continue
            task.due_ms = None
            due = task.next_due(self.clock_ms)
            if due[0] <= at_ms and due[2] != LEVEL_DUE:
                later.append(task)
                continue
            if due[0] <= at_ms:
                self.clock_ms = max(self.clock_ms, at_ms)
                self._cross_all(task, due[3], at_ms, is_firm=False)
            self._schedule(task)
        return later

    def _decide_due(self, task: Task, at_ms: int) -> None:
        due = task.next_due(self.clock_ms)
        if due[2] == FORGET_DUE and self.children.get(task.id):
            task.due_ms = KEPT  # the last of its children takes it along
            return
        self.clock_ms = max(self.clock_ms, at_ms)
        self._due(task, due[1], due[2])
        if task.id in self.tasks:
            self._schedule(task)

    def _schedule(self, task: Task) -> None:
        due = task.next_due(self.clock_ms)
        if task.due_ms is None or due[0] < task.due_ms:
            task.due_ms = due[0]
            heapq.heappush(self._heap, (due[0], task.id))

    def _due(self, task: Task, phase: str, what: int) -> None:
        if what == STUCK_DUE:
            task.flags.add("stuck")
            self._lifecycle(task, "stuck", phase=phase)
        elif what == END_DUE:
            self._end(task, "abandoned", None)
        else:
            self._forget(task)

    def _forget(self, task: Task) -> None:
        del self.tasks[task.id]
        if self.is_partial:
            self.forgotten.append(task.id)
        if task.decisions:
            self._expected.append(Expected("decisions", task.id, {}, is_deletion=True))
        parent = self.tasks.get(task.parent) if task.parent is not None else None
        if task.parent is not None:
            siblings = self.children.get(task.parent, set())
            siblings.discard(task.id)
            if not siblings:
                self.children.pop(task.parent, None)
                if parent is not None and parent.due_ms == KEPT:
                    self._forget(parent)

    # Events

    def _take(self, event: Event, value: bytes | None, *, is_refused: bool) -> None:
        self.subject = event.subject
        check_address(event, self.number)
        if event.subject == self.own_subject:
            self._take_for_all(event, is_refused=is_refused)
            return
        task = self.tasks.get(event.subject)
        if "parent_task_id" in event.data:
            self.claimed = event.subject, event.data["parent_task_id"]
        if task is not None and self._is_repeated(event, task):
            return
        check_rules(event)
        self.check(event, task)
        self._event_id = event.id
        if task is None:
            task = self._open(event.subject, is_inferred=event.kind != "task.started")
        self._remember(event, task)
        task.last_offset = self._offset
        if event.kind == "task.started" and not task.is_known:
            self._check_overrides(task, event, value)
        _TAKERS[event.kind](self, task, event)
        task.last_ms = self.clock_ms
        if self._touched:
            self._settle()
        if event.kind != "phase.usage":
            self._schedule(task)

    def _is_repeated(self, event: Event, task: Task) -> bool:
        if event.sequence is not None:
            return event.sequence <= task.sequences.get(event.source, -1)
        return (event.source, event.id) in task.recent

    def _remember(self, event: Event, task: Task) -> None:
        if event.sequence is not None:
            hear(task.sequences, event.source, event.sequence, keeps_places=True)
        else:
            task.recent.append((event.source, event.id))
            if len(task.recent) > task.policy.recent_count:
                task.recent.popleft()

    def _open(self, task_id: str, *, is_inferred: bool) -> Task:
        task = self.tasks[task_id] = self.new(task_id)
        if is_inferred:
            task.flags.add("inferred")
            task.set_limits()
            self._lifecycle(task, "started")
        return task

    def _started(self, task: Task, event: Event) -> None:
        if task.is_known:
            task.flags.add("repeated_start")
            return
        is_late = bool(task.cells)
        data = event.data
        task.is_known = True
        task.complexity = data.get("complexity", "medium")
        task.importance = data.get("importance", "medium")
        task.justification = data.get("importance_justification")
        task.planned = data.get("planned_phases")
        if task.planned is not None:
            task.planned = list(dict.fromkeys(task.planned))
        task.multiplier = data.get("budget_multiplier", 1)
        task.owner, task.team = data.get("owner"), data.get("team")
        task.task_type = data.get("task_type")
        task.labels = data.get("labels", {})
        task.overrides = _overrides(data.get("budget_overrides"), task.policy) or {}
        if is_late:
            task.flags.discard("inferred")
            task.limits_version += 1
        overshoot = self._set_limits(task)
        if "parent_task_id" in data:
            self._link(task, data["parent_task_id"])
        self._lifecycle(task, "started", by=data.get("by"), overshoot=overshoot)
        if task.spent_tokens or task.spent_cost:
            self._roll_up(task, task.spent_tokens, task.spent_cost)
        for name in self._descendants(task.id):
            below = self._touched[name] = self.tasks[name]
            self._take_over(below)

    def _check_overrides(self, task: Task, event: Event, value: bytes | None) -> None:
        overrides = event.data.get("budget_overrides")
        if overrides is not None and _overrides(overrides, task.policy) is None:
            self.letter_traceparent = self.traceparent
            self._letter(value)
            task.flags.add("overrides_refused")

    def _link(self, task: Task, parent: str) -> None:
        """Put a task below its parent."""
        task.parent = parent
        self.linked.append(task.id)
        if parent not in self.tasks:
            self._schedule(self._open(parent, is_inferred=True))
        self.children.setdefault(parent, set()).add(task.id)
        self._take_over(task)

    def _phase_started(self, task: Task, event: Event) -> None:
        phase, attempt = event.data["phase"], event.data.get("attempt")
        known = task.phases.get(phase, {})
        if attempt is None:
            if task.open_phase == phase:
                task.flags.add("repeated_phase_start")
                return
            attempt = max(known, default=0) + 1
        run = known.get(attempt)
        if run is not None and (run.opened_ms is not None or run.outcome is not None):
            task.flags.add("repeated_phase_start")
            return
        run = task.run(phase, attempt)
        if task.open_run is not None:
            task.flags.add("superseded")
        self._close(task, "superseded", event)
        run.opened_ms, run.started_ms, run.source = self.clock_ms, event.time_ms, event.source
        late_ms = self._append_ms - run.started_ms
        run.is_historical = late_ms > task.policy.historical_after_ms
        if task.is_open:
            task.open_phase, task.open_run = phase, run
        else:
            run.closed_ms, run.outcome = self.clock_ms, "open_at_end"
            self._publish(task, phase, run)
        self._cross_all(task, SPENT, self.clock_ms)  # it may be almost done no more

    def _usage(self, task: Task, event: Event) -> None:
        data = event.data
        phase, attempt = data["phase"], data.get("attempt")
        if attempt is None:
            is_open = task.open_phase == phase and task.open_run is not None
            attempt = task.open_run.attempt if is_open and task.open_run is not None else 1
        run = task.run(phase, attempt)
        metered, cost = task.policy.metered(data), data.get("cost_usd", 0)
        self._count(task, run, data)
        run.metered += metered
        task.spent_tokens += metered
        task.spent_cost += cost
        for key, amount in (
            ((phase, "tokens"), metered),
            ((None, "tokens"), metered),
            ((phase, "cost_usd"), cost),
            ((None, "cost_usd"), cost),
        ):
            if (cell := task.cells.get(key)) is not None:
                cell.used += amount
        if run.outcome is not None:
            self._publish(task, phase, run)
        elif not task.is_open:
            run.outcome, run.closed_ms = "open_at_end", self.clock_ms
            self._publish(task, phase, run)
        # The latency of a run that was begun does not come from its usage.
        keys = _all_of(phase) if run.opened_ms is None else _spent_of(phase)
        self._cross_all(task, keys, self.clock_ms)
        if task.parent is not None:
            self._roll_up(task, metered, cost)
        # Usage of the open run brings no deadline nearer; that of others adds to the latency.
        if run is not task.open_run or task.due_ms is None:
            self._schedule(task)

    def _count(self, task: Task, run: Run, data: Data) -> None:
        counters = run.counters
        calls = data.get("model_calls", 1)
        if data.get("usage_known") is False:  # it means that a call was made
            calls = max(calls, 1)
            counters["unknown_usage"] = counters.get("unknown_usage", 0) + calls
            task.flags.add("unknown_usage")
        counters["model_calls"] = counters.get("model_calls", 0) + calls
        for name, count in data.items():
            if name in SUMMED:
                counters[name] = counters.get(name, 0) + count
        duration_ms = data.get("duration_ms", 0)
        if 0 <= duration_ms <= task.policy.execution_max_ms:
            counters["duration_ms"] = counters.get("duration_ms", 0) + duration_ms
            run.usage_ms += duration_ms
        else:
            run.has_skewed_usage = True
            task.flags.add("clock_skew")
        if data.get("estimated"):
            counters["estimated_usage"] = counters.get("estimated_usage", 0) + max(calls, 1)
            task.flags.add("estimated_usage")

    def _phase_ended(self, task: Task, event: Event) -> None:
        data = event.data
        phase, attempt = data["phase"], data.get("attempt")
        if attempt is None:
            if task.open_phase == phase and task.open_run is not None:
                attempt = task.open_run.attempt
            else:
                attempt = max(task.phases.get(phase, {}), default=1)
        run = task.run(phase, attempt)
        self._finish(task, phase, run, data.get("outcome", "completed"), event)
        self._cross_all(task, _all_of(phase), self.clock_ms)

    def _finish(self, task: Task, phase: str, run: Run, outcome: str, event: Event | None) -> None:
        """End a run, by the enforcer's word or because something else ended it."""
        if task.open_run is run:
            task.open_phase, task.open_run = None, None
            task.flags.discard("stuck")
        is_measured = event is not None and self._measure(task, run, event)
        run.closed_ms, run.outcome = self.clock_ms, outcome
        self._note_end(task, run, event, outcome)
        if is_measured:
            self._withdraw(task, phase)
        # What only append times have told may still be measured: then it is withdrawn.
        keys: list[CellKey] = [(phase, "latency_ms"), (None, "latency_ms")]
        self._cross_all(task, keys, self.clock_ms, is_firm=is_measured)
        self._publish(task, phase, run)

    def _note_end(self, task: Task, run: Run, event: Event | None, outcome: str) -> None:
        """Note by its source's time when a run ended, and whether it took an impossible time."""
        if run.opened_ms is None and outcome == "open_at_end":
            return  # nothing has ended it but its task
        run.ended_ms = self.clock_ms if event is None else event.time_ms
        run.is_skewed = False
        max_ms = task.policy.execution_max_ms
        if event is not None and "duration_ms" in event.data:
            run.is_skewed = not 0 <= event.data["duration_ms"] <= max_ms
        elif event is not None and run.started_ms is not None and run.source == event.source:
            run.is_skewed = not 0 <= event.time_ms - run.started_ms <= max_ms
        elif run.opened_ms is not None and not run.is_historical:
            run.is_skewed = self.clock_ms - run.opened_ms > max_ms
        if run.is_skewed:
            task.flags.add("clock_skew")

    def _measure(self, task: Task, run: Run, event: Event) -> bool:
        """Take the measured duration; tell whether there was one, and a possible one."""
        duration_ms = event.data.get("duration_ms")
        if duration_ms is None:
            if run.started_ms is None:
                return False  # what was measured before stays
            if run.source != event.source:
                run.measured_ms, run.is_confirmed = None, False
                return False
            duration_ms = event.time_ms - run.started_ms
        run.is_confirmed = 0 <= duration_ms <= task.policy.execution_max_ms
        run.measured_ms = duration_ms if run.is_confirmed else 0
        return run.is_confirmed

    def _withdraw(self, task: Task, phase: str) -> None:
        """Take back the levels that an estimate had reached and a measured duration has not."""
        for key in ((phase, "latency_ms"), (None, "latency_ms")):
            cell = task.cells.get(key)
            if cell is None:
                continue
            used = task.used(key, self.clock_ms)
            cell.firm = max(cell.firm, self._firm_level(task, key, used))
            stays = max(cell.firm, task.reached(key, used))
            ladder = task.policy.ladders["task" if key[0] is None else "phase", "latency_ms"]
            for level, _ in reversed(ladder):
                if stays < level <= cell.level:
                    self._breach(task, key, used, level, is_withdrawn=True)
                    if level == BLOCK:
                        task.blocks.pop(key, None)
            if stays < cell.level:
                cell.level = stays
                self._touched[task.id] = task

    def _ended(self, task: Task, event: Event) -> None:
        if task.is_open:
            self._end(task, event.data.get("outcome", "completed"), event)
        else:
            task.flags.add("repeated_end")

    def _end(self, task: Task, outcome: str, event: Event | None, **said: str | None) -> None:
        for phase, runs in task.phases.items():
            for run in runs.values():
                if run.outcome is None:
                    self._finish(task, phase, run, "open_at_end", event)
        self._cross_all(task, list(task.cells), self.clock_ms)
        self._settle()  # while it is open
        task.ended_ms, task.outcome = self.clock_ms, outcome
        overshoot = one_of(self._overshoot(task).values())
        self._lifecycle(task, "ended", outcome=outcome, overshoot=overshoot, **said)
        task.blocks.clear()

    def _granted(self, task: Task, event: Event) -> None:
        self._grant(task, event.data.get("multiplier") or event.data["limits"], event)

    def _grant(self, task: Task, grant: Decimal | dict[str, dict[str, int]], event: Event) -> None:
        task.grants.append(grant)
        task.limits_version += 1
        overshoot = one_of(self._overshoot(task).values())
        self._set_limits(task)
        self._lifecycle(task, "granted", **_who(event), overshoot=overshoot)

    def _reclassified(self, task: Task, event: Event) -> None:
        data = event.data
        previous = {"complexity": task.complexity, "importance": task.importance}
        task.flags.add("reclassified")
        task.complexity = data.get("complexity", task.complexity)
        if data.get("importance") is not None:
            if data["importance"] == "critical":
                task.justification, task.approved = data["reason"], None
            task.importance = data["importance"]
        task.limits_version += 1
        overshoot = self._set_limits(task)
        facts = _who(event) | {"previous": previous, "overshoot": overshoot}
        self._lifecycle(task, "reclassified", **facts)

    def _explained(self, task: Task, event: Event) -> None:
        task.flags.add("explained")
        data = event.data
        self._lifecycle(
            task, "explained", by=data["by"], text=data["text"], phase=data.get("phase")
        )

    def _reviewed(self, task: Task, event: Event) -> None:
        before = task.computed(), task.replaced
        data, overshoot = event.data, None
        task.approved = data["approved"]
        if task.approved and not task.has_justification():
            task.justification = data.get("reason")
        if before != (task.computed(), task.replaced):
            task.limits_version += 1
            overshoot = self._set_limits(task)
        else:  # levels once reached stay: nothing is judged anew
            task.flag_class()
        facts = _who(event) | {"approved": data["approved"], "overshoot": overshoot}
        self._lifecycle(task, "reviewed", **facts)

    def _recovered(self, task: Task, event: Event) -> None:
        action = event.data["action"]
        self._lifecycle(task, "recovered", action=action, **_who(event))
        if action == "close_phase":
            self._close(task, "abandoned", event)
        elif action == "end_task" and task.is_open:
            self._end(task, "abandoned", event, **_who(event))
        elif action == "refold":
            task.limits_version += 1
            task.set_limits()
            self._relevel(task)

    def _close(self, task: Task, outcome: str, event: Event) -> None:
        if task.open_run is not None and task.open_phase is not None:
            phase = task.open_phase
            self._finish(task, phase, task.open_run, outcome, event)
            self._cross_all(task, _all_of(phase), self.clock_ms)

    # Events for all tasks

    def _take_for_all(self, event: Event, *, is_refused: bool) -> None:
        if event.kind == "clock.tick":
            return
        if event.sequence is not None:
            if event.sequence <= self._sequences.get(event.source, -1):
                return
        elif (event.source, event.id) in self._recent:
            return
        check_rules(event)
        if event.kind == "task.recovered" and event.data["action"] != "refold":
            raise RefusedError("invalid_field")
        self._event_id = event.id
        if event.kind == "policy.set":
            self._set_policy(event, is_refused=is_refused)
        if event.sequence is not None:
            hear(self._sequences, event.source, event.sequence, keeps_places=False)
        else:
            self._recent.append((event.source, event.id))
            if len(self._recent) > self.policy.recent_count:
                self._recent.popleft()
        if event.kind == "mode.set":
            self._set_mode(event.data["mode"], event.data["by"])
        elif event.kind == "task.recovered":
            facts = {"change": "recovered", "partition": self.number, **event.data}
            self._expect(Expected("lifecycle", self.own_subject, facts))
        elif event.kind == "all.granted":
            for task in self._open_tasks():
                task.last_offset = self._offset
                self._grant(task, event.data["multiplier"], event)
                self._settle()
                self._schedule(task)

    def _set_policy(self, event: Event, *, is_refused: bool) -> None:
        if is_refused:
            raise RefusedError("invalid_field")
        try:
            policy = Policy(event.data["policy"], event.data["hash"])
        except (LookupError, TypeError, ValueError, ArithmeticError):
            raise RefusedError("invalid_field") from None
        if self.is_policy_set and event.source == LEDGER:
            return  # the built-in one, for a partition that had none when the ledger looked
        self.policy, self.is_policy_set = policy, True

    def _set_mode(self, mode: str, by: str) -> None:
        before, before_by = self.mode, self.mode_by
        self.mode, self.mode_by = mode, by
        if before == mode and before_by is not None and (before_by == BREAKER) == (by == BREAKER):
            return
        for task in self._open_tasks():
            if task.verdict >= REVIEW:
                if before == mode and before_by is None:
                    self.unsure.append(task.id)
                task.last_offset = self._offset
                self._decide(task)


def _who(event: Event) -> Data:
    """Return who has done it, and why."""
    return {"by": event.data["by"], "reason": event.data.get("reason")}


def _all_of(phase: str | None) -> list[CellKey]:
    own = [] if phase is None else [(phase, metric) for metric in METRICS]
    return [*own, *((None, metric) for metric in METRICS)]


def _spent_of(phase: str) -> list[CellKey]:
    return [(phase, "tokens"), (phase, "cost_usd"), *SPENT]


def _overrides(value: Any, policy: Policy) -> dict[str, dict[str, int]] | None:  # noqa: ANN401
    """Return a task's overrides; None where one of them is not allowed, which refuses all."""
    if value is None or value == {}:
        return {}
    try:
        limits = absolute_limits(value)
    except RefusedError:
        return None
    if not all(name == "task" or policy.allows(name) for name in limits):
        return None
    return limits


_TAKERS = {
    "task.started": Partition._started,  # noqa: SLF001 - its own table
    "phase.started": Partition._phase_started,  # noqa: SLF001 - its own table
    "phase.usage": Partition._usage,  # noqa: SLF001 - its own table
    "phase.ended": Partition._phase_ended,  # noqa: SLF001 - its own table
    "task.ended": Partition._ended,  # noqa: SLF001 - its own table
    "task.granted": Partition._granted,  # noqa: SLF001 - its own table
    "task.reclassified": Partition._reclassified,  # noqa: SLF001 - its own table
    "task.explained": Partition._explained,  # noqa: SLF001 - its own table
    "justification.reviewed": Partition._reviewed,  # noqa: SLF001 - its own table
    "task.recovered": Partition._recovered,  # noqa: SLF001 - its own table
}
