"""What follows from what was used: levels, verdicts, who inherits them, and the records of each."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from streams.verify.independent.expected import (
    Expected,
    breach,
    cell_of,
    decision,
    execution,
    letter,
    lifecycle,
)
from streams.verify.independent.limits import BLOCK, CellKey, as_number, built_in
from streams.verify.independent.task import Block, Run, Task
from streams.verify.independent.values import OneOf

PARTIALLY_HELD = frozenset({"low", "medium"})
BREAKER = "breaker"
SOURCES_MAX = 256  # whose sequences are remembered: of a task, and of the partition
SPENT: list[CellKey] = [(None, "tokens"), (None, "cost_usd")]


def one_of(values: Iterable[Any]) -> OneOf | None:
    """Return that it is one of these; None where there are none."""
    found = tuple(values)
    return OneOf(found) if found else None


class Standing:
    """The tasks of one partition, and how they stand."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.own_subject = f"partition/{number}"
        self.clock_ms = 0
        self.mode = "observe"
        self.mode_by: str | None = ""  # None: not known
        self.policy = built_in()
        self.is_policy_set = False  # by an event
        self.tasks: dict[str, Task] = {}
        self.children: dict[str, set[str]] = {}
        self._sequences: dict[str, int] = {}
        self._recent: deque[tuple[str, str]] = deque()
        self._heap: list[tuple[int, str]] = []
        self._touched: dict[str, Task] = {}  # whose verdict is to be judged
        self.subject: str | None = None  # of the last event
        self.linked: list[str] = []  # tasks that the last event has put below a parent
        self.is_partial = False  # there are tasks of which nothing is known
        self.claimed: tuple[str, str] | None = None  # child and parent, by the last event
        self.unsure: list[str] = []  # tasks that the last event may have decided on
        self.forgotten: list[str] = []  # where that is so: until somebody has taken note
        self.traceparent: str | None = None  # of the last event
        self.letter_traceparent: str | None = None  # of what was refused, as far as it was read
        self._event_id: str | None = None  # of it, where it counts
        self._offset = self._append_ms = 0
        self._expected: list[Expected] = []

    def _open_tasks(self) -> list[Task]:
        return [self.tasks[name] for name in sorted(self.tasks) if self.tasks[name].is_open]

    def _firm_level(self, task: Task, key: CellKey, used: int) -> int:
        """Return the level that is reached without the estimate of the open run."""
        run = task.open_run
        if run is not None and key[0] in {None, task.open_phase} and run.estimates():
            used -= run.latency_ms(self.clock_ms, task.policy.execution_max_ms)
        return task.reached(key, used)

    def _ancestors(self, task: Task) -> Iterator[Task]:
        above = task.parent
        while above is not None:
            parent = self.tasks.get(above)
            if parent is None:
                return
            yield parent
            above = parent.parent

    def _roll_up(self, task: Task, metered: int, cost: int) -> None:
        for above in self._ancestors(task):
            above.last_ms = self.clock_ms
            above.spent_tokens += metered
            above.spent_cost += cost
            for metric, amount in (("tokens", metered), ("cost_usd", cost)):
                if (cell := above.cells.get((None, metric))) is not None:
                    cell.used += amount
            self._cross_all(above, SPENT, self.clock_ms)

    def _cross_all(
        self, task: Task, keys: Iterable[CellKey], at_ms: int, *, is_firm: bool = True
    ) -> None:
        """Publish the levels that were reached; on the estimate of an open run they are not firm."""
        for key in keys:
            if (cell := task.cells.get(key)) is not None:
                used = task.used(key, at_ms)
                level = task.reached(key, used)
                if level > cell.level:
                    self._cross(task, key, used, level)
                    self._touched[task.id] = task
                    if is_firm and key[1] == "latency_ms":
                        cell.firm = max(cell.firm, self._firm_level(task, key, used))

    def _relevel(self, task: Task) -> None:
        """Judge every cell by its new limit: a level may fall."""
        for key, cell in task.cells.items():
            used = task.used(key, self.clock_ms)
            level = task.reached(key, used)
            if level > cell.level:
                self._cross(task, key, used, level)
            if level < BLOCK:
                task.blocks.pop(key, None)
            cell.level = level
            cell.firm = min(cell.firm, level)
        self._touched[task.id] = task

    def _cross(self, task: Task, key: CellKey, used: int, to_level: int) -> None:
        cell = task.cells[key]
        for level, _ in task.policy.ladders["task" if key[0] is None else "phase", key[1]]:
            if cell.level < level <= to_level:
                self._breach(task, key, used, level)
                if level == BLOCK:
                    task.blocks[key] = Block((self._offset, self.clock_ms), used)
        cell.level = to_level

    def _settle(self) -> None:
        """Publish the verdicts that changed, also of those that inherit them."""
        touched, self._touched = self._touched, {}
        heirs: dict[str, Task] = {}
        for task in touched.values():
            was_blocked, task.is_blocked = task.is_blocked, task.own_level() == BLOCK
            if task.is_blocked != was_blocked:
                heirs.update((name, self.tasks[name]) for name in self._descendants(task.id))
        for task in heirs.values():
            self._take_over(task)
        for task in (touched | heirs).values():
            verdict = BLOCK if task.inherited_from is not None else task.own_level()
            if verdict != task.verdict and (task.is_open or task.id in touched):
                self._decide(task, verdict)

    def family(self, task_id: str) -> set[str]:
        """Return a task with all above and below it."""
        root, above = task_id, self.tasks.get(task_id)
        while above is not None and above.parent is not None:
            root, above = above.parent, self.tasks.get(above.parent)
        return {root, *self._descendants(root)}

    def _descendants(self, task_id: str) -> Iterator[str]:
        waiting, seen = [task_id], {task_id}
        while waiting:
            for one in self.children.get(waiting.pop(), ()):
                if one not in seen:
                    seen.add(one)
                    waiting.append(one)
                    if one in self.tasks:
                        yield one

    def _take_over(self, task: Task) -> None:
        """Let an open task take over the block of an ancestor, or leave it."""
        if task.is_open:
            blocked = [one.id for one in self._ancestors(task) if one.is_blocked]
            task.inherited_from = blocked[0] if blocked else None

    # Overshoot

    def _first_blocks(self, task: Task) -> set[CellKey]:
        """Return the cell that came to block first; of one moment all, which have no order."""
        first = min((block.at for block in task.blocks.values()), default=None)
        return {key for key, block in task.blocks.items() if block.at == first}

    def _overshoot(self, task: Task) -> dict[CellKey, Any]:
        """Return what was used since the first crossing that still blocks a task, by its cell."""
        found: dict[CellKey, Any] = {}
        for key in sorted(self._first_blocks(task), key=str):
            used, metric, at_block = task.used(key, self.clock_ms), key[1], task.blocks[key].used
            found[key] = {
                "cell": cell_of(key),
                "at_block": as_number(at_block, metric),
                "used": as_number(used, metric),
                "overshoot": as_number(max(used - at_block, 0), metric),
            }
        return found

    def _set_limits(self, task: Task) -> OneOf | None:
        """Compute the limits anew and judge by them; return the overshoot of a block that they lift."""
        before = self._overshoot(task)
        task.set_limits()
        self._relevel(task)
        # Of several cells of one moment nobody says which of them it is about.
        return one_of(over if key not in task.blocks else None for key, over in before.items())

    # Records

    def _decide(self, task: Task, verdict: int | None = None) -> None:
        previous, task.verdict = task.verdict, task.verdict if verdict is None else verdict
        task.decisions += 1
        is_inherited = task.inherited_from is not None and task.own_level() < BLOCK
        source = self.tasks[task.inherited_from] if is_inherited and task.inherited_from else task
        about = {
            "unenforced_reason": self._unenforced(task),
            "mode": self.mode,
            "event_id": self._event_id,
        }
        if is_inherited:
            about["inherited_from"] = task.inherited_from
        self._expect(decision(task, previous, source, self.clock_ms, about))

    def _unenforced(self, task: Task) -> str | OneOf | None:
        """Return why nobody is held; the first reason that applies, or each that may."""
        if not task.is_open:
            return "ended"
        if self.mode == "enforce":
            return None
        if self.mode == "partial" and task.importance in PARTIALLY_HELD:
            return None
        if self.mode_by is None:
            return OneOf((BREAKER, self.mode))
        return BREAKER if self.mode_by == BREAKER else self.mode

    def _breach(
        self, task: Task, key: CellKey, used: int, level: int, *, is_withdrawn: bool = False
    ) -> None:
        self._expect(breach(task, key, used, level, is_withdrawn=is_withdrawn))

    def _publish(self, task: Task, phase: str, run: Run) -> None:
        run.revision += 1
        self._expect(execution(task, phase, run, self.clock_ms))

    def _lifecycle(self, task: Task, change: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON
        self._expect(lifecycle(task, change, facts))

    def _letter(self, value: bytes | None) -> None:
        self._expected.append(letter(value, self.number, self._offset))

    def _expect(self, record: Expected) -> None:
        if record.topic != "executions":  # which do not say it
            record.facts["input"] = {"partition": self.number, "offset": self._offset}
        self._expected.append(record)


def hear(sequences: dict[str, int], source: str, sequence: int, *, keeps_places: bool) -> None:
    """Remember the sequence of a source; where there is no room for another, forget the first.

    Who is heard again becomes the last one. While there is still room, the sources of a task keep
    the places in which they were first heard (docs/design.md, "One event").
    """
    is_full = len(sequences) == SOURCES_MAX
    if source in sequences:
        if is_full or not keeps_places:
            del sequences[source]
    elif is_full:
        first = next(iter(sequences))
        del sequences[first]
    sequences[source] = sequence
