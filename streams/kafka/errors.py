"""What can go wrong between us and Kafka, by what to do about it."""

from schemas.errors import Remedy, StoplossError


class FencedError(StoplossError):
    """Another owner of this input partition has begun: nothing of ours can be committed any more."""

    remedy = Remedy.STOP

    def __init__(self, partition: int) -> None:
        super().__init__(f"partition {partition}: another owner has taken over")
        self.partition = partition


class UnconfirmedBatchError(StoplossError):
    """A batch failed: all of it is visible or nothing. Restoring the state from `tasks` tells which."""

    remedy = Remedy.RESTORE

    def __init__(self, partition: int, why: str) -> None:
        super().__init__(f"partition {partition}: a batch is not confirmed: {why}")
        self.partition = partition


class OffsetGoneError(StoplossError):
    """The broker no longer has, or never had, the offset at which reading should go on."""

    remedy = Remedy.RESTORE

    def __init__(self, topic: str, partition: int, offset: int, first: int, end: int) -> None:
        super().__init__(
            f"{topic} partition {partition}: offset {offset} is not there; use {first} to {end}"
        )
        self.offset, self.first, self.end = offset, first, end
