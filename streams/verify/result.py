"""What a judge of the topics says: equal, or the first difference of each partition."""

from typing import Literal

from msgspec import Struct

from schemas.fields import Offset, Partition

Problem = Literal["missing", "extra", "changed"]


class Difference(Struct, frozen=True, kw_only=True):
    """One record that is not what the fold of its inputs gives.

    `expected` and `found` are JSON, shortened: of the `field` where a record is changed, else of
    the whole record. `id` is empty for a deletion, which has none. `input_offset` is that of the
    record of `events` that caused it, None where no input of ours has.
    """

    problem: Problem
    topic: str
    partition: Partition
    key: str
    id: str = ""
    field: str | None = None
    expected: str | None = None
    found: str | None = None
    input_offset: Offset | None = None

    def __str__(self) -> str:
        where = f"{self.topic} partition {self.partition}, key {self.key}"
        if self.id:
            where += f", id {self.id}"
        if self.input_offset is not None:
            where += f" (input offset {self.input_offset})"
        match self.problem:
            case "missing":
                return f"{where}: missing: {self.expected}"
            case "extra":
                return f"{where}: nothing has caused it: {self.found}"
            case "changed":
                return f"{where}: {self.field}: expected {self.expected}, found {self.found}"


class PartitionReport(Struct, kw_only=True):
    """What was judged of one input partition.

    Inputs from `first_offset` to before `next_offset`, the last that the ledger has committed.
    `compared` counts equal records by topic without its prefix, `trimmed` those that retention may
    have removed. `unjudged_tasks` began before `first_offset`, where that is a checkpoint.
    """

    partition: Partition
    equal: bool = True
    first_offset: Offset = 0
    next_offset: Offset = 0
    from_checkpoint: bool = False
    events: int = 0
    compared: dict[str, int]
    trimmed: int = 0
    unjudged_tasks: int = 0
    difference: Difference | None = None


class VerifyResult(Struct, kw_only=True):
    """`stoploss verify --json` prints this; `equal` is its answer."""

    equal: bool
    partitions: list[PartitionReport]


class IndependentDifference(Struct, frozen=True, kw_only=True):
    """The first record that does not follow from the inputs; `text` says the same in one line.

    `offset` is that of the record, None where it is missing; `input_offset` that of the record of
    `events` that causes it, None where none does.
    """

    topic: str
    partition: Partition
    offset: Offset | None
    input_offset: Offset | None
    key: str
    field: str
    expected: str
    found: str
    text: str

    def __str__(self) -> str:
        return self.text


class IndependentReport(Struct, kw_only=True):
    """What the independent judge says of one partition; the fields are those of `PartitionReport`.

    `not_judged`: nothing could be looked at, so that `equal` says nothing. The first events are gone,
    and `lifecycle` has no checkpoint that the others cover, or `tasks` none of the policies that held
    at one.
    """

    partition: Partition
    equal: bool = True
    first_offset: Offset = 0
    next_offset: Offset = 0
    from_checkpoint: bool = False
    events: int = 0
    unjudged_tasks: int = 0
    not_judged: Literal["no_checkpoint", "policy_gone"] | None = None
    difference: IndependentDifference | None = None


class IndependentResult(Struct, kw_only=True):
    """`stoploss verify --independent --json` prints this."""

    equal: bool
    partitions: list[IndependentReport]
