"""Ports that break one promise each: the simulator must find out, or it proves nothing.

Each is a mistake that somebody has made with Kafka's transactions.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from schemas.topics import Topic
from streams.kafka.ports import Chunk, Record
from tests.simulation.broker import BrokerError
from tests.simulation.compaction import Cleaned
from tests.simulation.links import Link, SimulatedBatch, SimulatedReader, SimulatedWriter
from tests.simulation.log import Stored
from tests.simulation.network import NoAnswerError

LOSES = 0.05  # not always, so that all is folded in the end


class _TwoTransactions(SimulatedBatch):
    async def write(self, records: Sequence[Record]) -> None:
        tasks = self.link.settings.topic(Topic.TASKS)
        await super().write([record for record in records if record.topic == tasks])
        if outputs := [record for record in records if record.topic != tasks]:
            await super().write(outputs)


class StateAndOutputsApart(Link):
    """Commits the state, and what it caused in another transaction."""

    batches: type[SimulatedBatch] = _TwoTransactions


class _Unawaited(SimulatedBatch):
    async def deliver(self, groups: Sequence[Sequence[Record]]) -> None:
        try:
            await super().deliver(groups)
        except (NoAnswerError, BrokerError):
            return


class DeliveriesNotAwaited(Link):
    """Commits although a record batch was refused."""

    batches: type[SimulatedBatch] = _Unawaited


class _SentAgain(SimulatedBatch):
    async def write(self, records: Sequence[Record]) -> None:
        try:
            await super().write(records)
        except NoAnswerError:
            await super().write(records)


class BatchSentAgain(Link):
    """Sends a batch again when it does not hear what became of it."""

    batches: type[SimulatedBatch] = _SentAgain


class _Believed(SimulatedBatch):
    async def write(self, records: Sequence[Record]) -> None:
        try:
            await super().write(records)
        except NoAnswerError:
            return


class CommitBelieved(Link):
    """Takes a batch for committed when it does not hear what became of it."""

    batches: type[SimulatedBatch] = _Believed


class _Unfenced(SimulatedWriter):
    async def begin_epoch(self) -> int:
        return self.link.broker.epoch(self.name) or await super().begin_epoch()


class PredecessorNotFenced(Link):
    """Writes beside whoever came before, as with a transactional id for each process."""

    writers: type[SimulatedWriter] = _Unfenced


class _FencedLate(SimulatedWriter):
    """Fences when it writes first."""

    async def fence(self) -> None:
        self._epoch = -1


class _FencesFirst(SimulatedBatch):
    async def write(self, records: Sequence[Record]) -> None:
        if self.epoch == -1:
            self.epoch = await self.link.broker.begin_epoch(self.name)
        await super().write(records)


class FencedAfterRestore(Link):
    """Restores before its predecessor has ended."""

    writers: type[SimulatedWriter] = _FencedLate
    batches: type[SimulatedBatch] = _FencesFirst


class _Uncommitted(SimulatedReader):
    def end(self) -> int:
        return self.log.end

    def visible(self, offset: int) -> list[Stored]:
        return [record for record in self.log.records if record.offset >= offset]


class UncommittedRead(Link):
    """Reads what is not committed, or never will be."""

    readers: type[SimulatedReader] = _Uncommitted


class _ReadAgain(SimulatedReader):
    """Begins a record batch before the offset that was asked for, as a broker may."""

    def visible(self, offset: int) -> list[Stored]:
        return super().visible(max(0, offset - 1))


class RecordsReadAgain(Link):
    """Hands over records before the offset that was asked for."""

    readers: type[SimulatedReader] = _ReadAgain


class _Forgetful(SimulatedReader):
    async def read(self) -> Sequence[Chunk]:
        chunks = list(await super().read())
        if len(chunks) > 1 and not self._restores and self.link.chance.random() < LOSES:
            del chunks[self.link.chance.randrange(len(chunks))]
        return chunks


class ChunkLost(Link):
    """Loses some of what it has read."""

    readers: type[SimulatedReader] = _Forgetful


class _Careless(SimulatedReader):
    async def read(self) -> Sequence[Chunk]:
        chunks = list(await super().read())
        is_more = bool(chunks) and len(chunks[0].records) > 1
        if is_more and not self._restores and self.link.chance.random() < LOSES:
            chunks[0] = replace(chunks[0], records=chunks[0].records[1:])
        return chunks


class RecordLost(Link):
    """Loses the first record of what it has read."""

    readers: type[SimulatedReader] = _Careless


class _NearSighted(SimulatedReader):
    def end(self) -> int:
        return min(super().end(), 5)


class EndNotSeen(Link):
    """Sees the first records only, so that nothing goes on."""

    readers: type[SimulatedReader] = _NearSighted


class _CleansByAborted(SimulatedReader):
    def clean(self) -> Cleaned:
        newest = {one.key: one.offset for one in self.log.records}
        self.log.records = [one for one in self.log.records if one.offset == newest[one.key]]
        return super().clean()


class AbortedSupersede(Link):
    """Removes records because of later ones that were aborted."""

    readers: type[SimulatedReader] = _CleansByAborted


BROKEN: tuple[type[Link], ...] = (
    StateAndOutputsApart,
    DeliveriesNotAwaited,
    BatchSentAgain,
    CommitBelieved,
    PredecessorNotFenced,
    FencedAfterRestore,
    UncommittedRead,
    RecordsReadAgain,
    ChunkLost,
    RecordLost,
    EndNotSeen,
    AbortedSupersede,
)
