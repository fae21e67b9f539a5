"""One stretch of following: from the positions in Redis on, until something fails.

1. What the topics say next is fetched, by one request for each broker, while the last answer is on
   its way into Redis.
2. It is cut into pieces (`slices`), and of each the last word of every key is taken (`digest`), while
   the piece before is written.
3. A piece goes to Redis in one step, together with the new positions (`store`).

Whatever fails, the next stretch begins at the positions that Redis has.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition
from msgspec import Struct

from schemas.errors import StoplossError, UnavailableError
from schemas.refusal import UNREADABLE
from schemas.topics import Topic
from streams.kafka.reader import KafkaReader, close_client, start_client
from streams.kafka.settings import Settings
from streams.kafka.several import Fetched, SeveralReader, by_leader, cluster_id
from streams.view.changes import Changes
from streams.view.digest import TOPICS, Digest, Field
from streams.view.metrics import ViewMetrics
from streams.view.progress import Advance, Progress, Reach
from streams.view.slices import last_of_each_key, sliced
from streams.view.store import DamagedError, OvertakenError, Standing, Store

log = logging.getLogger("stoploss.view")

# A ledger commits every few milliseconds. To follow each commit would cost more than all of it is
# worth; what is shown is this much older. From one request to the next: a broker that takes longer than
# this to answer is asked again at once.
PACE_S = 0.02
FEW_RECORDS = 1_000
CANCEL_AGAIN_AFTER_S = 1.0


class Answer(Struct, frozen=True):
    """What a broker has answered, and when."""

    broker: int
    fetched: list[Fetched]
    at_ms: int


class Piece(Struct, frozen=True):
    """A piece of an answer, digested.

    `at_ms`: every broker has answered then or later, and with this all of it is written; None where
    that cannot be said.
    """

    digest: Digest
    fetched: list[Fetched]
    at_ms: int | None
    records: Counter[str] = msgspec.field(default_factory=Counter)


async def end_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    `asyncio.wait_for` of Python 3.11, which aiokafka waits with, forgets that it was cancelled where the
    answer comes at the same moment: the task would go on, and whoever waits for its end wait for ever.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_AFTER_S)


class Follower:
    """Follows the topics of one system.

    Args:
        wall_ms: milliseconds since 1970.
        rebuild_because: why there has to be a rebuild first, where there has to.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        metrics: ViewMetrics,
        wall_ms: Callable[[], int],
        rebuild_because: str | None = None,
    ) -> None:
        self._settings, self._store = settings, store
        self._metrics, self._wall_ms = metrics, wall_ms
        self._names = {settings.topic(topic): topic for topic in TOPICS}
        self._rebuild_because = rebuild_because
        self.progress: Progress | None = None

    def __repr__(self) -> str:
        return f"<Follower {self._store} {self.progress}>"

    async def follow(self, follows: Callable[[], None]) -> None:
        """Follow until something fails.

        Args:
            follows: is called once something has come to Redis.

        Raises:
            UnavailableError: Redis or Kafka is away.
            OvertakenError: Redis is not where we left it.
        """
        client = await start_client(self._settings, list(self._names), "view")
        try:
            progress, fence = await self._begin(client)
            self.progress = progress
            async with self._pieces(client, progress) as pieces:
                while True:
                    piece = await pieces.get()
                    if isinstance(piece, UnavailableError):
                        raise piece
                    await self._write(fence, piece, progress)
                    follows()
        except DamagedError as error:
            self._rebuild_because = str(error)
            raise
        finally:
            await close_client(client)

    async def _begin(self, client: Any) -> tuple[Progress, str]:  # noqa: ANN401 - aiokafka has no types
        """Return how far Redis is, and the fence under which it may be written."""
        cluster = await cluster_id(client)
        standing = await self._stand(cluster, self._rebuild_because)
        # After the positions: another view may have gone on with both.
        bounds = await self._bounds(client)
        for place, offset in standing.positions.items():
            if place in bounds and offset > bounds[place][1]:
                why = f"{place} ends before what is in Redis: it is another topic of that name"
                standing = await self._stand(cluster, why)
                break
        return _progress(bounds, standing), standing.fence

    async def _stand(self, cluster: str, why: str | None) -> Standing:
        try:
            standing = await self._store.begin(cluster, self._wall_ms(), why)
        except OvertakenError:
            # Whoever wanted a rebuild has one: else nobody would have been first.
            self._rebuild_because = None
            raise
        self._rebuild_because = None
        if standing.rebuilds_because is not None:
            self._metrics.rebuilds()
            log.info("view: rebuilds: %s", standing.rebuilds_because)
        return standing

    async def _bounds(self, client: Any) -> dict[str, tuple[int, int]]:  # noqa: ANN401 - aiokafka has no types
        """Return the first offset and the end of each partition."""
        readers = {
            self._place(name, partition): KafkaReader(client, name, partition)
            for name in self._names
            for partition in client.cluster.partitions_for_topic(name)
        }
        firsts = await asyncio.gather(*(reader.first_offset() for reader in readers.values()))
        ends = await asyncio.gather(*(reader.end_offset() for reader in readers.values()))
        return dict(zip(readers, zip(firsts, ends, strict=True), strict=True))

    def _place(self, name: str, partition: int) -> str:
        return f"{self._names[name]}/{partition}"

    @contextlib.asynccontextmanager
    async def _pieces(
        self,
        client: Any,  # noqa: ANN401 - aiokafka has no types
        progress: Progress,
    ) -> AsyncIterator["asyncio.Queue[Piece | UnavailableError]"]:
        """Give what the brokers answer, in pieces: the next is ready while one is being written."""
        answers: asyncio.Queue[Answer | UnavailableError] = asyncio.Queue(maxsize=1)
        pieces: asyncio.Queue[Piece | UnavailableError] = asyncio.Queue(maxsize=1)
        offsets = {
            TopicPartition(name, partition): progress.reaches[
                self._place(name, partition)
            ].next_offset
            for name in self._names
            for partition in client.cluster.partitions_for_topic(name)
        }
        readers = {
            broker: SeveralReader(client, broker, {tp: offsets[tp] for tp in tps})
            for broker, tps in by_leader(client, list(offsets)).items()
        }
        failed: StoplossError | None = None
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._fetch(broker, reader, answers))
                for broker, reader in readers.items()
            ]
            tasks.append(group.create_task(self._cut(len(readers), answers, pieces)))
            try:
                yield pieces
            except StoplossError as error:
                failed = error  # as it is: the group would wrap it
            finally:
                await end_all(tasks)
        if failed is not None:
            raise failed

    async def _fetch(
        self,
        broker: int,
        reader: SeveralReader,
        answers: "asyncio.Queue[Answer | UnavailableError]",
    ) -> None:
        """Ask one broker again and again, until it fails."""
        clock = asyncio.get_running_loop().time
        while True:
            asked_s = clock()
            try:
                fetched = await reader.read()
            except UnavailableError as error:
                await answers.put(error)
                return
            await answers.put(Answer(broker, fetched, self._wall_ms()))
            await asyncio.sleep(
                pause_s(sum(len(each.records) for each in fetched), clock() - asked_s)
            )

    async def _cut(
        self,
        brokers: int,
        answers: "asyncio.Queue[Answer | UnavailableError]",
        pieces: "asyncio.Queue[Piece | UnavailableError]",
    ) -> None:
        """Cut answers into pieces, and digest each."""
        answered_ms: dict[int, int] = {}
        while True:
            answer = await answers.get()
            if isinstance(answer, UnavailableError):
                await pieces.put(answer)
                return
            cut = list(sliced(map(self._shortened, answer.fetched)))
            for fetched in cut[:-1]:
                await pieces.put(self._digested(fetched, None))
            answered_ms[answer.broker] = answer.at_ms
            at_ms = min(answered_ms.values()) if len(answered_ms) == brokers else None
            await pieces.put(self._digested(cut[-1], at_ms))

    def _shortened(self, fetched: Fetched) -> Fetched:
        if self._names[fetched.topic] is not Topic.TASKS:
            return fetched
        return msgspec.structs.replace(fetched, records=last_of_each_key(fetched.records))

    def _digested(self, fetched: list[Fetched], at_ms: int | None) -> Piece:
        piece = Piece(Digest(self._store.keys), fetched, at_ms)
        for each in fetched:
            if each.records:
                topic = self._names[each.topic]
                piece.digest.take(topic, each.partition, each.records)
                piece.records[topic] += len(each.records)
        return piece

    async def _write(self, fence: str, piece: Piece, progress: Progress) -> None:
        began_s = asyncio.get_running_loop().time()
        digest, keys = piece.digest, self._store.keys
        wanted = digest.wanted()
        found = dict(zip(wanted, await self._store.look_up(wanted), strict=True))
        placed = [(self._place(each.topic, each.partition), each) for each in piece.fetched]
        advance = progress.advance(placed, piece.at_ms)
        positions = {place: str(offset) for place, offset in advance.positions.items()}
        told = {keys.positions: positions, keys.progress: advance.progress, keys.meta: advance.meta}
        await self._store.apply(fence, _changes(digest, found).commands(), told)
        self._confirm(progress, advance)
        took_ms = (asyncio.get_running_loop().time() - began_s) * 1000
        self._metrics.applied(piece.records, _by_name(digest.unreadable), took_ms)

    def _confirm(self, progress: Progress, advance: Advance) -> None:
        was_rebuilt = progress.rebuilt_in_ms is not None
        progress.confirm(advance)
        if progress.rebuilt_in_ms is not None and not was_rebuilt:
            log.info("view: rebuilt in %.1f s", progress.rebuilt_in_ms / 1000)


def pause_s(records: int, since_s: float) -> float:
    """Return how long to wait before the next request, in seconds.

    Args:
        records: that came of the last one; of many there may be more at once.
        since_s: how long ago that was made.
    """
    return max(PACE_S - since_s, 0.0) if records < FEW_RECORDS else 0.0


def _progress(bounds: dict[str, tuple[int, int]], standing: Standing) -> Progress:
    """Return how far we are: where Redis is, or where retention has left something."""
    reaches = {}
    for place, (first, end) in bounds.items():
        stored = standing.positions.get(place)
        reaches[place] = Reach(
            next_offset=max(first, stored or 0),
            end_offset=end,
            target=end,
            stored=stored,
            newest_ms=standing.newest_ms.get(place, 0),
        )
    return Progress(reaches, state=standing.state, began_ms=standing.began_ms, at_ms=standing.at_ms)


def _changes(digest: Digest, found: dict[Field, bytes | None]) -> Changes:
    """Return what a piece changes.

    Raises:
        DamagedError: what was looked up is none of the records that we have put there.
    """
    try:
        return digest.changes(found)
    except UNREADABLE as error:
        raise DamagedError(f"a key holds what we did not write ({error})") from error


def _by_name(counts: "Counter[Topic]") -> dict[str, int]:
    return {topic.value: count for topic, count in counts.items()}
