"""Which events are refused by how their task and its family stand."""

from streams.verify.independent.standing import Standing
from streams.verify.independent.task import Task
from streams.verify.independent.wire import (
    Event,
    RefusedError,
    check_multiplier,
    check_task_id,
)

# Bounds of what is remembered, of which the contract says nothing: phases of a task, runs of a phase,
# generations of a family.
PHASES_MAX, RUNS_MAX, GENERATIONS_MAX = 64, 256, 64


class Refusals(Standing):
    """What is asked before an event changes anything."""

    def new(self, task_id: str) -> Task:
        """Return a task of which nothing was used, by the policy that holds now."""
        return Task(task_id, self.policy, self.clock_ms)

    def check(self, event: Event, task: Task | None) -> None:
        """Refuse what depends on the policy and the limits of the task."""
        if task is not None and event.kind in {"phase.usage", "phase.started", "phase.ended"}:
            _check_bounds(event, task)
        if event.kind == "phase.usage":
            if not (self.policy if task is None else task.policy).allows(event.data["phase"]):
                raise RefusedError("invalid_field")
            return
        if event.kind == "task.started" and task is not None and task.is_known:
            return  # ignored, whatever it says
        if event.kind == "task.recovered":
            action = event.data["action"]
            if task is None or (
                (action == "close_phase" and task.open_run is None)
                or (action == "end_task" and not task.is_open)
            ):
                raise RefusedError("invalid_field")
        policy = self.policy if task is None else task.policy
        data = event.data
        named = [data["phase"]] if "phase" in data else []
        named += data.get("planned_phases", [])
        if isinstance(data.get("limits"), dict):
            named += [name for name in data["limits"] if name != "task"]
        if not all(policy.allows(phase) for phase in named):
            raise RefusedError("invalid_field")
        if event.kind == "task.granted" and "limits" in data:
            self._check_grant(task or self.new(event.subject), data["limits"])
        if event.kind == "task.started":
            if "budget_multiplier" in data:
                check_multiplier(data["budget_multiplier"], above=0)
            self._check_parent(event)

    def _check_grant(self, task: Task, limits: dict[str, dict[str, int]]) -> None:
        """Refuse to lower a limit, also one of a phase that was not seen yet."""
        current = task.computed(also=[name for name in limits if name != "task"])
        for name, cells in limits.items():
            for metric, limit in cells.items():
                if limit < current.get((None if name == "task" else name, metric), 0):
                    raise RefusedError("invalid_field")

    def _check_parent(self, event: Event) -> None:
        """Refuse a parent that is the task itself or below it."""
        above = event.data.get("parent_task_id")
        if above is None:
            return
        check_task_id(above)
        generations = 1 + self._height(event.subject)
        while above is not None:
            generations += 1
            if above == event.subject or generations > GENERATIONS_MAX:
                raise RefusedError("invalid_field")
            parent = self.tasks.get(above)
            above = None if parent is None else parent.parent

    def _height(self, task_id: str) -> int:
        """Return how many generations stand below a task."""
        height, below = 0, self.children.get(task_id)
        while below:
            height += 1
            below = {one for name in below for one in self.children.get(name, ())}
        return height


def _check_bounds(event: Event, task: Task) -> None:
    attempt, runs = event.data.get("attempt"), task.phases.get(event.data["phase"])
    if runs is None:
        if len(task.phases) >= PHASES_MAX:
            raise RefusedError("invalid_field")
    elif len(runs) >= RUNS_MAX and attempt not in runs:
        is_new = attempt is not None or event.kind == "phase.started"
        if is_new:
            raise RefusedError("invalid_field")
