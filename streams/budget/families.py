"""Parents and children: what a child uses counts in every ancestor's task cells.

Tokens and cost roll up, latency does not. Source: budget model, "Children".
"""

from schemas.errors import InvalidFieldError
from schemas.events import PARTITION_PREFIX
from streams.budget.evaluate import raise_level
from streams.budget.limits import COST, TOKENS
from streams.budget.state import POLICY_KEY, PartitionState, Task

DEPTH_MAX = 64
RESERVED = (PARTITION_PREFIX, POLICY_KEY)


def check_task_id(field: str, task_id: str) -> None:
    """Refuse what would stand in the way of the partition's own records in `tasks`.

    Raises:
        InvalidFieldError: names the field.
    """
    if task_id.startswith(RESERVED):
        raise InvalidFieldError(field, task_id, f"a task id: not one with {' or '.join(RESERVED)}")


def check_parent(state: PartitionState, task_id: str, parent_id: str) -> None:
    """Refuse a parent that would close a circle, or make a family too deep.

    Raises:
        InvalidFieldError: names the parent.
    """
    field = "data.parent_task_id"
    if parent_id == task_id:
        raise InvalidFieldError(field, parent_id, "another task than itself")
    above = state.tasks.get(parent_id)
    depth = 1 + _height(state, task_id) + (above is None)  # then the parent is opened as well
    while above is not None:
        if above.task_id == task_id:
            raise InvalidFieldError(field, parent_id, "a task that is not below this one")
        depth += 1
        above = None if above.parent_id is None else state.tasks[above.parent_id]
    if depth > DEPTH_MAX:
        raise InvalidFieldError(field, parent_id, f"a family of at most {DEPTH_MAX} levels")


def link(state: PartitionState, task: Task, parent: Task) -> None:
    """Put a task below its parent; what it has used already rolls up."""
    task.parent_id = parent.task_id
    state.children.setdefault(parent.task_id, set()).add(task.task_id)
    if task.tokens.used or task.cost.used:
        roll_up(state, task, task.tokens.used, task.cost.used)


def unlink(state: PartitionState, task: Task) -> None:
    """Take a task that leaves memory from its parent's children."""
    if task.parent_id is None:
        return
    siblings = state.children[task.parent_id]
    siblings.remove(task.task_id)
    if not siblings:
        del state.children[task.parent_id]


def roll_up(state: PartitionState, task: Task, milli_tokens: int, nano_dollars: int) -> bool:
    """Add usage to every ancestor's task cells; tell whether one of them crossed a level."""
    crossed = False
    for ancestor in state.ancestors(task):
        state.touch(ancestor)
        ancestor.last_ms = state.clock_ms
        ancestor.tokens.used += milli_tokens
        ancestor.cost.used += nano_dollars
        if ancestor.tokens.used >= ancestor.tokens.next_at:
            raise_level(state, ancestor, None, TOKENS, ancestor.tokens.used)
            crossed = True
        if ancestor.cost.used >= ancestor.cost.next_at:
            raise_level(state, ancestor, None, COST, ancestor.cost.used)
            crossed = True
    return crossed


def _height(state: PartitionState, task_id: str) -> int:
    """How many levels of tasks stand below one."""
    height, level = 0, list(state.children.get(task_id, ()))
    while level:
        height += 1
        level = [child for one in level for child in state.children.get(one, ())]
    return height
