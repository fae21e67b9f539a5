"""What folding one event causes, in the order to publish it."""

from msgspec import Struct

from schemas.outputs import DeadLetterDetail
from schemas.topics import Topic


class Refused(Struct, frozen=True):
    """An input that changed nothing; whoever has its bytes makes the dead letter."""

    reason: str
    detail: DeadLetterDetail
    task_id: str | None = None


class Effect(Struct, frozen=True):
    """One record to publish. Its id is `{partition}-{offset}-{index}`.

    `data` None is a tombstone. `key` of a refused input is empty: its dead letter takes the input's.
    """

    topic: Topic
    type: str
    key: str
    data: Struct | None
    offset: int
    index: int
