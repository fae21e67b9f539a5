"""What is judged, and what is said of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from streams.verify.independent.wire import Data, Headers

Input = tuple[int, int, bytes | None, bytes | None, Headers]  # offset, append_ms, key, value, …
Output = tuple[int, bytes | None, bytes | None]  # offset, key, value
TOPICS = ("dead-letters", "lifecycle", "breaches", "executions", "decisions")
SHOWN_LENGTH_MAX = 300


def _is_whole(_: str) -> bool:
    return False


@dataclass(frozen=True)
class Checkpoint:
    """What a `partition_checkpoint` says: where a partition stood before input `next_offset`."""

    next_offset: int
    clock_ms: int
    mode: str
    policy_hash: str


@dataclass(frozen=True)
class Records:
    """One partition of the topics, each in order; topics are named without their prefix.

    Args:
        partition: its number.
        events: the inputs. They are read once, so that they may come from a stream.
        outputs: `tasks` and those of `TOPICS`, committed records only. They are read once, `tasks`
            first, the others side by side with the inputs.
        trimmed: tells whether retention has removed the first records of a topic.
        compacted_before_ms: of `decisions`, what is older may have been compacted.
        later_offset: asked when all is read, says where the ledger has come to meanwhile: what
            inputs after those that `tasks` stands at have caused is not judged. None: no further.
        checkpoints: where `events` no longer begin at the first one, those of the partition that they
            cover, in order, asked for as needed; judging begins at the first whose policy is still
            there, and only tasks are judged that began after it. None: all inputs are there.
        first_policy: the document and the hash of what the ledger computes with before the first
            `policy.set`. None: the policy of the budget model's tables.
    """

    partition: int
    events: Iterable[Input]
    outputs: Mapping[str, Iterable[Output]]
    trimmed: Callable[[str], bool] = _is_whole
    compacted_before_ms: int | None = None
    later_offset: Callable[[], int] | None = None
    checkpoints: Iterable[Checkpoint] | None = None
    first_policy: tuple[Data, str] | None = None


@dataclass(frozen=True)
class Difference:
    """One record that does not follow from the inputs, or does not stand where it must.

    `offset` is that of the output, None where it is missing; `input_offset` that of the input that
    causes it, None where no input does.
    """

    topic: str
    partition: int
    offset: int | None
    input_offset: int | None
    key: str
    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"{self.topic} partition {self.partition}"
        where += ": no record" if self.offset is None else f" offset {self.offset}"
        if self.input_offset is not None:
            where += f", caused by input offset {self.input_offset}"
        what = f"{self.field}: " if self.field else ""
        return f"{where}, key {self.key}: {what}expected {self.expected}, found {self.found}"


def shown(value: object) -> str:
    """Return a value in one line, shortened."""
    text = str(value)
    return text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}…"
