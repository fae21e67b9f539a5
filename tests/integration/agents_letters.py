"""Letters as agents write them, among the ledger's own."""

from collections.abc import Iterable

from schemas.outputs import DeadLetterDetail
from schemas.refusal import Refusal
from schemas.topics import Topic
from streams.agents.letters import Refused, letter
from tests.integration.recorded_log import Raw


class _Executions:
    """A record of `executions` that no agent can read."""

    def __init__(self, prefix: str, offset: int, partition: int) -> None:
        self.topic, self.partition, self.offset = f"{prefix}executions", partition, offset
        self.key: bytes | None = b"T"
        self.value: bytes | None = b"\xff"
        self.timestamp = 1.0
        self.headers = [("h", b"1")]


def agents_letter(prefix: str, offset: int, partition: int, timestamp: int = 0) -> Raw:
    """Return a letter about `executions`, of the same place as one of `events` may be."""
    why = Refusal("not_json", DeadLetterDetail("value", "", "JSON"))
    made = letter(Refused(_Executions(prefix, offset, partition), prefix, why))
    return Raw(Topic.DEAD_LETTERS, partition, made.key, made.value, timestamp)


def with_agents_letters(records: list[Raw]) -> Iterable[Raw]:
    """Put one before and one after every letter of the ledger."""
    for offset, record in enumerate(records):
        is_letter = record.topic is Topic.DEAD_LETTERS
        if is_letter:
            yield agents_letter("", offset, record.partition, record.timestamp)
        yield record
        if is_letter:
            yield agents_letter("", offset, record.partition, record.timestamp)
