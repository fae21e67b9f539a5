"""`stoploss recover KEY`: a record of `tasks` that stops its partition is made anew from `events`.

What a running ledger owns is not written behind its back. In this order: 1. the partition is folded
again, while its owner goes on; 2. its transactional id is taken over, as a new owner does: from now
on the old one can commit nothing, throws its state away, and restores; 3. what it has committed
meanwhile is read and folded, too; 4. the record, the partition's own and the operator's event are
committed in one transaction of that same id. A ledger that stands still takes its partition over
again every few seconds, and may do so between 2 and 4: then nothing of ours is visible, and we begin
again at 2. So a record that an owner may still replace is never overwritten.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from schemas.errors import InvalidFieldError, UnavailableError
from schemas.events import PARTITION_PREFIX, TaskRecoveredData, partition_subject
from schemas.fields import RecoverAction
from schemas.topics import Topic
from streams.budget.policy import builtin_policy
from streams.budget.restore import torn_in
from streams.cli.exits import AnswerIsNoError
from streams.cli.operating import (
    POLL_S,
    Watch,
    Written,
    folded_in,
    operator_record,
    raise_if_refused,
    watch_outputs,
)
from streams.cli.reading import LedgerView, Log
from streams.kafka.errors import FencedError, UnconfirmedBatchError
from streams.kafka.owners import groups_at_work
from streams.kafka.ports import Record
from streams.kafka.reader import start_client
from streams.kafka.session import KafkaWriter
from streams.kafka.settings import Settings
from streams.verify.reading import OnProgress, OutputReader
from streams.verify.rebuild import READ, Rebuild
from streams.verify.tasks_log import TasksLog

# A ledger that stands still takes over every 5 s at the latest, and needs a moment for it.
TAKE_OVER_ATTEMPTS = 20

# Of one transaction, as of the ledger's own: all tasks of a partition at once have no time in one.
PART_BYTES_MAX = 16 * 1024 * 1024

Write = tuple[bytes, bytes | None]  # key, value
Done = Literal["rebuilt", "deleted", "sound"]


class RebuildOutcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `stoploss recover KEY` did.

    `deleted`: nothing in `events` has caused the record. `sound`: it was what the events give, and
    nothing was written. `keys` are those that were written; `written` is the operator's event.
    """

    key: str
    partition: int
    done: Done
    events: int
    from_checkpoint: bool
    keys: list[str] = []
    written: Written | None = None


class UnknownKeyError(AnswerIsNoError):
    """No record of `tasks` has this key."""

    def __init__(self, key: str, partitions: Sequence[int]) -> None:
        where = (
            "no partition" if not partitions else f"partitions {', '.join(map(str, partitions))}"
        )
        allowed = (
            "the key that the ledger names" if not partitions else "--partition N, one of them"
        )
        super().__init__(f"KEY: {key!r:.220} stands in {where} of tasks; use {allowed}")


async def rebuild_record(
    settings: Settings,
    key: str,
    partition: int | None,
    *,
    by: str,
    reason: str,
    timeout_s: float,
    on_progress: OnProgress | None = None,
) -> RebuildOutcome:
    """Make one record of `tasks` anew, whoever owns its partition.

    Args:
        settings: where.
        key: of the record: a task's id, `partition/N`, `policy/HASH`, or what somebody else wrote.
        partition: where it stands; None looks for it.
        by: who does it.
        reason: why.
        timeout_s: how long the ledger may take to go on afterwards.
        on_progress: told how many events are folded, and how many there are.

    Raises:
        InvalidFieldError: the ledger has another group than our settings.
        UnknownKeyError: there is no such record, or it is not clear which one is meant.
        NotRebuildableError: `events` does not reach back far enough.
        UnavailableError: Kafka does not answer, or no ledger goes on afterwards.
    """
    client = await start_client(settings, [settings.topic(topic) for topic in READ], "recover")
    try:
        await _check_group(settings)
        log = Log(settings, client)
        where = await _partition_of(log, client, key, partition)
        rebuild = Rebuild(client, settings, where, key, builtin_policy(), on_progress)
        await rebuild.begin()  # 1.
        if rebuild.is_sound():
            return _outcome(rebuild, key, where, "sound", [])
        (watch,) = await watch_outputs(log, [where])
        data = TaskRecoveredData(by=by, reason=reason, action=RecoverAction.REFOLD)
        audit = _audit(log, rebuild, key, where, data)
        keys = await _take_over_and_write(settings, rebuild, where, audit)
        if keys is None:
            return _outcome(rebuild, key, where, "sound", [])
        done: Done = "rebuilt" if rebuild.is_caused() else "deleted"
        at = await _written_at(log, rebuild.next_offset, audit, timeout_s)
        await _until_folded(log, watch, at, timeout_s)
        await raise_if_refused(log, [watch], [at])
        return _outcome(rebuild, key, where, done, keys, at)
    finally:
        await client.close()


async def _check_group(settings: Settings) -> None:
    """Refuse to write beside a ledger that we would not fence.

    Raises:
        InvalidFieldError: a ledger is at work in another group.
    """
    others = await groups_at_work(settings) - {settings.group_id()}
    if others:
        names = ", ".join(sorted(name.removeprefix(settings.topic_prefix) for name in others))
        raise InvalidFieldError("group", settings.group, f"that of the ledger that runs: {names}")


async def _partition_of(log: Log, client: Any, key: str, partition: int | None) -> int:  # noqa: ANN401 - aiokafka has no types
    """Return where the record stands that is meant.

    Raises:
        UnknownKeyError: nowhere, or in several partitions of which not exactly one is stopped by it.
        InvalidFieldError: there is no such partition.
    """
    count = len(log.partitions)
    if partition is None and key.startswith(PARTITION_PREFIX):
        number = key.removeprefix(PARTITION_PREFIX)
        partition = int(number) if number.isascii() and number.isdigit() else None
    if partition is not None:
        if partition >= count:
            raise InvalidFieldError("--partition", partition, f"a number from 0 to {count - 1}")
        return partition
    holding, stopped = [], []
    for each in log.partitions:
        tasks = TasksLog(OutputReader(client, log.settings.topic(Topic.TASKS), each), each)
        await tasks.read()
        if key in tasks.last:
            holding.append(each)
        torn = torn_in(each, tasks.last.items())
        if torn is not None and torn.key == key:
            stopped.append(each)
    for found in (stopped, holding):
        if len(found) == 1:
            return found[0]
    raise UnknownKeyError(key, holding)


def _audit(log: Log, rebuild: Rebuild, key: str, partition: int, data: TaskRecoveredData) -> Record:
    """Return the operator's event: about the task, else about its partition, naming the key."""
    kind, task = "stoploss.task.recovered", rebuild.task()
    if task is not None:
        return operator_record(log, kind, key, rebuild.root_id(task), partition, data)
    own = partition_subject(partition)
    return operator_record(log, kind, own, own, partition, replace(data, key=key))


async def _take_over_and_write(
    settings: Settings, rebuild: Rebuild, partition: int, audit: Record
) -> list[str] | None:
    """Do steps 2 to 4; return the keys that were written, None where none had to be any more."""
    topic, own_key = settings.topic(Topic.TASKS), partition_subject(partition).encode()
    progress = Progress(own_key)
    for _ in range(TAKE_OVER_ATTEMPTS):
        writer = KafkaWriter(settings, partition)
        try:
            await writer.fence()  # 2.
            await rebuild.catch_up()  # 3.
            written = [] if rebuild.is_sound() else rebuild.records()
            progress.reads(written)
            if not written:
                return progress.keys or None  # None: the owner has replaced it
            *parts, last = in_parts(written, own_key)
            for part in parts:
                await _write(writer, topic, partition, part, progress)
            await _write(writer, topic, partition, last, progress, audit)  # 4.
        except (FencedError, UnconfirmedBatchError):
            continue
        except UnavailableError as error:
            if progress.has_none:
                raise
            raise UnavailableError(f"{error}; {progress}") from error
        else:
            return progress.keys
        finally:
            await writer.close()
    raise UnavailableError(
        f"partition {partition}: others took it over {TAKE_OVER_ATTEMPTS} times before the record "
        f"was written; {progress}"
    )


class Progress:
    """What of the records our transactions have written, over all attempts; says how to go on."""

    def __init__(self, own_key: bytes) -> None:
        self._own_key = own_key
        self._written: dict[bytes, None] = {}
        self._in_doubt: list[bytes] = []  # of one transaction: there all of it, or nothing

    def __str__(self) -> str:
        if self._written:
            count = len(self._written)
            return (
                f"{count} {'record was' if count == 1 else 'records were'} written, and no ledger goes "
                f"on before {self._own_key.decode()}, which comes last: try again, and what is missing "
                "is written"
            )
        if self._in_doubt:
            return "it is not known whether anything was written: try again"
        return "nothing was written: try again"

    @property
    def keys(self) -> list[str]:
        """The keys of what was written, in its order."""
        return [key.decode(errors="replace") for key in self._written]

    @property
    def has_none(self) -> bool:
        """Whether it is certain that nothing was written."""
        return not self._written and not self._in_doubt

    def reads(self, missing: Sequence[Write]) -> None:
        """After a fence it is known what is still missing: what was in doubt and is not, is there."""
        still = {key for key, _ in missing}
        self._note(key for key in self._in_doubt if key not in still)
        self._in_doubt = []

    def begins(self, part: Sequence[Write]) -> None:
        """A transaction is being committed."""
        self._in_doubt = [key for key, value in part if (key, value) != (self._own_key, None)]

    def refused(self) -> None:
        """It is not committed, and never will be."""
        self._in_doubt = []

    def committed(self) -> None:
        """It is."""
        self._note(self._in_doubt)
        self._in_doubt = []

    def _note(self, keys: Iterable[bytes]) -> None:
        self._written |= dict.fromkeys(keys)


def in_parts(written: Sequence[Write], own_key: bytes) -> list[list[Write]]:
    """Return what is written in one transaction each; in nearly every case there is one.

    Where all of `tasks` is made anew, it may be more than one transaction has time for. Then the
    partition's own record is deleted first, and comes with the last part, so that no ledger goes on
    from a part of the tasks.
    """
    parts: list[list[Write]] = [[]]
    size_bytes = 0
    for key, value in written:
        size_bytes += len(key) + len(value or b"")
        if parts[-1] and size_bytes > PART_BYTES_MAX:
            parts.append([])
            size_bytes = len(key) + len(value or b"")
        parts[-1].append((key, value))
    if len(parts) > 1:
        assert written[-1][0] == own_key, "only with the partition's own record there are many"
        parts[0].insert(0, (own_key, None))
    return parts


async def _write(
    writer: KafkaWriter,
    topic: str,
    partition: int,
    part: Sequence[Write],
    progress: Progress,
    audit: Record | None = None,
) -> None:
    batch = writer.batch()
    for key, value in part:
        batch.produce(Record(topic, partition, key, value))
    if audit is not None:
        batch.produce(audit)
    progress.begins(part)
    try:
        await batch.commit()
    except FencedError:
        progress.refused()
        raise
    progress.committed()


async def _written_at(log: Log, first: int, audit: Record, within_s: float) -> Written:
    """Return where the operator's event stands: decided, and visible a moment later."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while True:
                async for record in log.records(Topic.EVENTS, audit.partition, first):
                    if record.value == audit.value:
                        return Written(audit.partition, record.offset)
                await asyncio.sleep(POLL_S)
    raise UnavailableError(
        f"partition {audit.partition}: it is not known whether the record was written; try again"
    )


async def _until_folded(log: Log, watch: Watch, at: Written, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await folded_in(log, LedgerView(), watch, at)
    except TimeoutError:
        raise UnavailableError(
            f"the record is rebuilt, but no ledger has gone on with partition {at.partition} within "
            f"{within_s:g} s; `stoploss doctor` shows why"
        ) from None


def _outcome(
    rebuild: Rebuild,
    key: str,
    partition: int,
    done: Done,
    keys: list[str],
    written: Written | None = None,
) -> RebuildOutcome:
    return RebuildOutcome(
        key=key,
        partition=partition,
        done=done,
        events=rebuild.events,
        from_checkpoint=rebuild.from_checkpoint,
        keys=keys,
        written=written,
    )
