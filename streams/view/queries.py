"""What people ask, answered from Redis alone; docs/redis.md has the keys.

Records that a newer version wrote, and that cannot be read, are left out of lists.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from schemas.alerts import Alert
from schemas.audit import Audit
from schemas.baselines import Baseline
from schemas.envelope import Envelope, epoch_ms_of, rfc3339
from schemas.feedback import Feedback
from schemas.health import Health
from schemas.outputs import Breach, Decision, ExecutionRecord, Heartbeat, Lifecycle
from schemas.refusal import UNREADABLE
from schemas.reports import Report
from schemas.sketches import Histogram
from schemas.state import PartitionStateData, PolicyStateData, TaskStateData
from schemas.topics import DAY_MS
from streams.view.answers import (
    AlertsAnswer,
    AuditAnswer,
    Beat,
    Freshness,
    HealthAnswer,
    ListedTask,
    PartitionLag,
    Quantiles,
    Share,
    SourceHealth,
    TaskBelow,
    TaskFound,
    TasksPage,
    Total,
    Utilisation,
    quantiles_of,
)
from streams.view.digest import COMMITS, TRANSITIONS, ZEROS
from streams.view.keys import (
    FEED_RECORDS,
    KEPT_DAYS,
    LAYOUT,
    REPORT_DAYS,
    TASK_RECORDS,
    Keys,
    days_back,
    hours_back,
)
from streams.view.meta import State, damage
from streams.view.progress import shown_until
from streams.view.store import (
    DamagedError,
    DamagedViewError,
    RedisUnavailableError,
    answering,
    damaged,
    redis_client,
    shown,
    told_newest_ms,
)
from streams.view.totals import ALL_MEASURES, BINS, TASKS, UTILISATION, Dimension

PAGE_TASKS = 50
TASKS_ASKED_FOR = 1_000  # at once: Redis answers nobody else meanwhile
Data = TypeVar("Data", bound=msgspec.Struct)


def _decoder(kind: type[Data]) -> "msgspec.json.Decoder[Envelope[Data]]":
    return msgspec.json.Decoder(Envelope[kind])  # type: ignore[valid-type]


_TASK, _PARTITION = _decoder(TaskStateData), _decoder(PartitionStateData)
_POLICY = msgspec.json.Decoder(Envelope[PolicyStateData], float_hook=Decimal)
_EXECUTION, _DECISION, _BREACH = _decoder(ExecutionRecord), _decoder(Decision), _decoder(Breach)
_LIFECYCLE, _HEARTBEAT, _HEALTH = _decoder(Lifecycle), _decoder(Heartbeat), _decoder(Health)
_ALERT, _BASELINE, _REPORT = _decoder(Alert), _decoder(Baseline), _decoder(Report)
_AUDIT, _FEEDBACK = _decoder(Audit), _decoder(Feedback)


class Queries:
    """Asks the view of one system.

    Every query raises `RedisUnavailableError` where Redis is away, `DamagedViewError` where it has
    what no view has written.

    Args:
        now_ms: milliseconds since 1970.
    """

    def __init__(self, url: str, prefix: str, now_ms: Callable[[], int]) -> None:
        self._url, self._keys, self._now_ms = url, Keys(prefix), now_ms
        self._redis = redis_client(url)

    def __repr__(self) -> str:
        return f"<Queries {self._keys.root}>"

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()

    async def freshness(self) -> Freshness | None:
        """Return how old the view is; None where Redis has none of these topics.

        Raises:
            RedisUnavailableError: Redis is away, or its keys are of another layout.
            DamagedViewError: somebody else has written to them.
        """
        keys = self._keys
        async with self._asking() as ask:
            for key in (keys.meta, keys.positions, keys.progress, keys.unreadable):
                ask.hgetall(key)
            meta, positions, progress, unreadable = map(_texts, await ask.execute())
            if not meta:
                return None
            if (layout := meta.get("layout", str(LAYOUT))) != str(LAYOUT):
                # Of another version of stoploss: what its keys hold is not what is read here.
                raise RedisUnavailableError(
                    f"Redis at {shown(self._url)}: keys of layout {layout}; ours is {LAYOUT}"
                )
            if (why := damage(meta, positions, progress)) is not None:
                raise DamagedError(why)
            return self._freshness(meta, positions, progress, unreadable)

    def _freshness(
        self,
        meta: Mapping[str, str],
        positions: Mapping[str, str],
        progress: Mapping[str, str],
        unreadable: Mapping[str, str],
    ) -> Freshness:
        lags = [_lag(place, int(at), progress[place]) for place, at in sorted(positions.items())]
        state, shown_ms = State(meta["state"]), None
        if state is State.FOLLOWING:
            shown_ms = shown_until(
                int(meta["at_ms"]),
                (_reach(progress, place, int(at)) for place, at in positions.items()),
            )
        return Freshness(
            state=state,
            shown=None if shown_ms is None else rfc3339(shown_ms),
            age_ms=None if shown_ms is None else max(0, self._now_ms() - shown_ms),
            lag=sum(each.lag for each in lags),
            cluster=meta["cluster"],
            why=meta["why"],
            partitions=lags,
            unreadable={topic: int(count) for topic, count in unreadable.items()},
        )

    async def task(self, task_id: str) -> TaskFound | None:
        """Return everything about a task; None where nothing is known of it."""
        keys = self._keys
        async with self._asking() as ask:
            ask.hget(keys.tasks, task_id.encode())
            ask.hgetall(keys.of_task("executions", task_id))
            for kind in ("decisions", "breaches", "changes"):
                ask.lrange(keys.of_task(kind, task_id), 0, -1)
            ask.smembers(keys.of_task("children", task_id))
            ask.get(keys.of_task("report", task_id))
            raw, executions, decisions, breaches, changes, children, report = await ask.execute()
        if not (raw or executions or decisions or breaches or changes or report):
            return None
        record = _one(_TASK, raw)
        partition = _partition_of(record) if record is not None else None
        return TaskFound(
            task_id=task_id,
            partition=partition,
            state=None if record is None else record.data,
            partition_state=None if partition is None else await self._partition(partition),
            executions=sorted(
                _all(_EXECUTION, executions.values()), key=lambda each: _place(each.id)
            ),
            decisions=_all(_DECISION, decisions),
            breaches=_all(_BREACH, breaches),
            changes=_all(_LIFECYCLE, changes),
            children=await self._known(children),
            report=_one(_REPORT, report),
        )

    async def _partition(self, partition: int) -> PartitionStateData | None:
        with self._answering():
            raw = await self._redis.hget(self._keys.partitions, str(partition))
        found = _one(_PARTITION, raw)
        return None if found is None else found.data

    async def _known(self, tasks: Iterable[bytes]) -> list[str]:
        """Return those of the tasks that the ledger still has."""
        if not (names := sorted(tasks)):
            return []
        with self._answering():
            found = await self._redis.hmget(self._keys.tasks, names)
        return [name.decode() for name, raw in zip(names, found, strict=True) if raw is not None]

    async def below(self, task_id: str) -> list[TaskBelow]:
        """Return all tasks below one, each once, also those that have left the ledger."""
        keys = self._keys
        found: dict[str, None] = {task_id: None}
        waiting = [task_id]
        while waiting:
            some, waiting = waiting[:TASKS_ASKED_FOR], waiting[TASKS_ASKED_FOR:]
            async with self._asking() as ask:
                for each in some:
                    ask.smembers(keys.of_task("children", each))
                answers = await ask.execute()
            names = (name.decode() for children in answers for name in sorted(children))
            new = [name for name in dict.fromkeys(names) if name not in found]
            found.update(dict.fromkeys(new))
            waiting += new
        return await self._told(list(found)[1:])

    async def _told(self, task_ids: list[str]) -> list[TaskBelow]:
        told = []
        for begin in range(0, len(task_ids), TASKS_ASKED_FOR):
            some = task_ids[begin : begin + TASKS_ASKED_FOR]
            async with self._asking() as ask:
                for each in some:
                    ask.lrange(self._keys.of_task("changes", each), 0, -1)
                    ask.hvals(self._keys.of_task("executions", each))
                answers = await ask.execute()
            told += [
                TaskBelow(
                    task_id=each,
                    changes=_all(_LIFECYCLE, answers[2 * index]),
                    executions=_all(_EXECUTION, answers[2 * index + 1]),
                )
                for index, each in enumerate(some)
            ]
        return told

    async def open_tasks(self, first: int = 0, count: int = PAGE_TASKS) -> TasksPage:
        """Return open tasks by share of their token limit, the highest first."""
        return await self._page(self._keys.open, first, count)

    async def ended_tasks(self, first: int = 0, count: int = PAGE_TASKS) -> TasksPage:
        """Return tasks that have ended and that the ledger still has, the highest share first."""
        return await self._page(self._keys.ended, first, count)

    async def _page(self, key: bytes, first: int, count: int) -> TasksPage:
        async with self._asking() as ask:
            ask.zcard(key)
            ask.zrevrange(key, first, first + count - 1, withscores=True)
            total, placed = await ask.execute()
        found = []
        for begin in range(0, len(placed), TASKS_ASKED_FOR):
            some = placed[begin : begin + TASKS_ASKED_FOR]
            with self._answering():
                raws = await self._redis.hmget(self._keys.tasks, [name for name, _ in some])
            for (name, share), raw in zip(some, raws, strict=True):
                if (record := _one(_TASK, raw)) is not None:
                    partition = _partition_of(record)
                    found.append(ListedTask(task_id=name.decode(), share=share, partition=partition, state=record.data))  # fmt: skip
        return TasksPage(total=total, first=first, tasks=found)

    async def partitions(self) -> dict[int, PartitionStateData]:
        """Return where each partition of the ledger stands."""
        with self._answering():
            found = await self._redis.hgetall(self._keys.partitions)
            states = {int(number): _one(_PARTITION, raw) for number, raw in found.items()}
        return {number: state.data for number, state in sorted(states.items()) if state is not None}

    async def policies(self) -> dict[str, PolicyStateData]:
        """Return the policies that tasks refer to, by hash."""
        with self._answering():
            found = await self._redis.hvals(self._keys.policies)
        return {each.data.hash: each.data for each in _all(_POLICY, found)}

    async def heartbeats(self) -> list[Beat]:
        """Return the last heartbeat of each partition."""
        with self._answering():
            found = await self._redis.hgetall(self._keys.heartbeats)
            beats = {int(number): _one(_HEARTBEAT, raw) for number, raw in found.items()}
        return [
            Beat(
                partition=number,
                time=beat.time,
                mode=beat.data.mode,
                next_offset=beat.data.next_offset,
            )
            for number, beat in sorted(beats.items())
            if beat is not None
        ]

    async def decisions(
        self, count: int = FEED_RECORDS, first: int = 0
    ) -> list[Envelope[Decision]]:
        """Return the last decisions of all tasks, the newest first."""
        return _all(_DECISION, await self._feed("decisions", first, count))

    async def breaches(self, count: int = FEED_RECORDS, first: int = 0) -> list[Envelope[Breach]]:
        """Return the last breaches of all tasks, the newest first."""
        return _all(_BREACH, await self._feed("breaches", first, count))

    async def _feed(self, name: str, first: int, count: int) -> list[bytes]:
        with self._answering():
            found: list[bytes] = await self._redis.zrevrange(
                self._keys.feed(name), first, first + count - 1
            )
        return found

    async def health(self, hours: int = 1) -> HealthAnswer:
        """Return how enforcers and ledgers are: queue depth, transitions, commits, by source.

        Args:
            hours: of which the quantiles are; 1 is the hour that runs, at most 25 are kept.
        """
        keys = self._keys
        async with self._asking() as ask:
            ask.zrevrange(keys.sources, 0, -1)
            ask.hgetall(keys.health)
            names, raws = await ask.execute()
        names = [name for name in names if name in raws]
        said = {name: _one(_HEALTH, raws[name]) for name in names}
        transitions = await self._histograms(TRANSITIONS, hours, names)
        commits = await self._histograms(COMMITS, hours, names)
        sources = [
            SourceHealth(
                source=name.decode(),
                time=record.time,
                health=record.data,
                transition_ms=_quantiles([transitions[name]]),
                commit_ms=_quantiles([commits[name]]),
            )
            for name, record in said.items()
            if record is not None
        ]
        return HealthAnswer(
            sources=sources,
            transition_ms=_quantiles(transitions.values()),
            commit_ms=_quantiles(commits.values()),
        )

    async def _histograms(
        self, kind: str, hours: int, sources: list[bytes]
    ) -> dict[bytes, Counter[bytes]]:
        names = hours_back(self._now(), hours)
        async with self._asking() as ask:
            for source in sources:
                for hour in names:
                    ask.hgetall(self._keys.sketch(kind, hour, source.decode()))
            sums: dict[bytes, Counter[bytes]] = {source: Counter() for source in sources}
            for index, part in enumerate(await ask.execute()):
                counts = {bucket: int(count) for bucket, count in part.items()}
                sums[sources[index // hours]].update(counts)
        return sums

    async def utilisation(self, days: int = 7) -> Utilisation:
        """Return how far limits are used, in tenths; executions are those of the last days."""
        async with self._asking() as ask:
            for key in (self._keys.open, self._keys.ended):
                for index in range(BINS):
                    high = "+inf" if index == BINS - 1 else f"({(index + 1) / 10}"
                    ask.zcount(key, "-inf" if index == 0 else index / 10, high)
            for day in days_back(self._now().date(), days):
                ask.hgetall(self._keys.totals(day, UTILISATION))
            found = await ask.execute()
            executions: Counter[int] = Counter()
            for part in found[2 * BINS :]:
                executions.update({int(place): int(count) for place, count in part.items()})
        return Utilisation(
            open_tasks=_shares(found[:BINS]),
            ended_tasks=_shares(found[BINS : 2 * BINS]),
            executions=_shares([executions[index] for index in range(BINS)]),
        )

    async def totals(self, by: Dimension, days: int = KEPT_DAYS) -> list[Total]:
        """Return what was used in the last days, today included, by task type, owner, ….

        The most tokens first. Days are those of the ledger's clock, in UTC.
        """
        async with self._asking() as ask:
            for day in days_back(self._now().date(), days):
                ask.hgetall(self._keys.totals(day, by))
            sums: dict[str, Counter[str]] = {}
            for part in await ask.execute():
                for field, amount in _texts(part).items():
                    name, _, value = field.partition("/")
                    sums.setdefault(value, Counter())[name] += int(amount)
        totals = [_total(value, amounts) for value, amounts in sums.items()]
        return sorted(totals, key=lambda each: (-each.metered_milli_tokens, each.value or ""))

    async def alerts(self, recent: int = 50) -> AlertsAnswer:
        """Return what fires now, the longest first, and the last edges."""
        async with self._asking() as ask:
            ask.hvals(self._keys.alerts)
            ask.zrevrange(self._keys.feed("alerts"), 0, recent - 1)
            firing, edges = await ask.execute()
        by_time = sorted(_all(_ALERT, firing), key=lambda each: (each.data.since, each.subject))
        return AlertsAnswer(firing=by_time, recent=_all(_ALERT, edges))

    async def report(self, task_id: str) -> Envelope[Report] | None:
        """Return the last report of a task."""
        with self._answering():
            return _one(_REPORT, await self._redis.get(self._keys.of_task("report", task_id)))

    async def baselines(self) -> dict[str, Baseline]:
        """Return what finished executions use, by phase/complexity/importance."""
        with self._answering():
            found = await self._redis.hgetall(self._keys.baselines)
        all_of_them = {key.decode(): _one(_BASELINE, raw) for key, raw in sorted(found.items())}
        return {key: each.data for key, each in all_of_them.items() if each is not None}

    async def audit(self, task_id: str | None = None) -> AuditAnswer:
        """Return who changed what of a task, or lately of everything.

        A task has entries of its own; what names no task is found under its subject. As long as the
        feed has room it has everything that was ever noted.
        """
        feed, now_ms = self._keys.feed("audit"), self._now_ms()
        async with self._asking() as ask:
            ask.zrange(feed, 0, -1)
            if task_id is not None:
                ask.lrange(self._keys.of_task("audit", task_id), 0, -1)
            raws, *of_task = await ask.execute()
        entries = _all(_AUDIT, raws)
        if len(raws) < FEED_RECORDS:
            mine = [each for each in entries if task_id in (None, _about(each))]
            return AuditAnswer(entries=mine)
        if not of_task:
            return AuditAnswer(entries=entries, all_since_ms=_since_ms(entries))
        mine, is_cut = _all(_AUDIT, of_task[0]), len(of_task[0]) >= TASK_RECORDS
        return AuditAnswer(
            entries=mine, all_since_ms=_since_ms(mine) if is_cut else now_ms - REPORT_DAYS * DAY_MS
        )

    async def feedback(self, task_id: str) -> list[Envelope[Feedback]]:
        """Return what was answered about a task's blocks, the last answer last."""
        with self._answering():
            found = await self._redis.lrange(self._keys.of_task("feedback", task_id), 0, -1)
        return _all(_FEEDBACK, found)

    async def dead_letters(self, days: int = 7) -> dict[str, int]:
        """Return how many records were refused in the last days, by reason."""
        async with self._asking() as ask:
            for day in days_back(self._now().date(), days):
                ask.hgetall(self._keys.dead_letters(day))
            counts: Counter[str] = Counter()
            for part in await ask.execute():
                counts.update({reason: int(count) for reason, count in _texts(part).items()})
        return dict(counts)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC)

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        """Give a pipeline: what is asked in it is answered as of one moment."""
        with self._answering():
            async with self._redis.pipeline() as ask:
                yield ask

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Have what Redis does not answer, and what no view has written, raise what we know."""
        try:
            with answering(self._url), damaged():
                yield
        except DamagedError as error:
            raise DamagedViewError(
                f"Redis at {shown(self._url)}: the view there is damaged: {error}"
            ) from error


@contextlib.asynccontextmanager
async def opened(url: str, prefix: str, now_ms: Callable[[], int]) -> AsyncIterator[Queries]:
    """Give the queries on one system's view; see `Queries`."""
    queries = Queries(url, prefix, now_ms)
    try:
        yield queries
    finally:
        await queries.close()


def _one(
    decoder: "msgspec.json.Decoder[Envelope[Data]]", raw: bytes | None
) -> Envelope[Data] | None:
    try:
        return None if raw is None else decoder.decode(raw)
    except UNREADABLE:
        return None


def _all(
    decoder: "msgspec.json.Decoder[Envelope[Data]]", raws: Iterable[bytes]
) -> list[Envelope[Data]]:
    found = (_one(decoder, raw) for raw in raws)
    return [each for each in found if each is not None]


def _about(entry: Envelope[Audit]) -> str:
    """Return the task of an entry, else what it is about."""
    return entry.data.task_id or entry.data.subject


def _since_ms(entries: Iterable[Envelope[Audit]]) -> int:
    """Return since when all are there, where some were cut off: those of the oldest time may be."""
    return min((epoch_ms_of(each.time) for each in entries), default=0) + 1


def _place(record_id: str) -> tuple[int, ...]:
    """Return partition, offset and index of what caused a record of the ledger."""
    return tuple(int(part) for part in record_id.split("-"))


def _partition_of(record: Envelope[TaskStateData]) -> int:
    return _place(record.id)[0]


def _texts(found: Mapping[bytes, bytes]) -> dict[str, str]:
    return {field.decode(): value.decode() for field, value in found.items()}


def _reach(progress: Mapping[str, str], place: str, next_offset: int) -> tuple[int, int, int]:
    told = progress[place]
    return next_offset, int(told.partition(" ")[0]), told_newest_ms(told)


def _lag(place: str, next_offset: int, told: str) -> PartitionLag:
    topic, _, partition = place.rpartition("/")
    newest_ms = told_newest_ms(told)
    return PartitionLag(
        topic=topic,
        partition=int(partition),
        next_offset=next_offset,
        lag=int(told.partition(" ")[0]) - next_offset,
        newest=rfc3339(newest_ms) if newest_ms else None,
    )


def _quantiles(parts: Iterable[Mapping[bytes, int]]) -> Quantiles:
    buckets: Counter[bytes] = Counter()
    for part in parts:
        buckets.update(part)
    zeros = buckets.pop(ZEROS, 0)
    return quantiles_of(
        Histogram(zeros=zeros, buckets={int(index): count for index, count in buckets.items()})
    )


def _shares(counts: list[int]) -> list[Share]:
    return [
        Share(low=index / 10, high=None if index == BINS - 1 else (index + 1) / 10, count=count)
        for index, count in enumerate(counts)
    ]


def _total(value: str, amounts: Counter[str]) -> Total:
    tasks, executions, milli_tokens, nano_usd, latency_ms, *counters = (
        amounts[name] for name in (TASKS, *ALL_MEASURES[1:])
    )
    (model_calls, input_tokens, cache_read, cache_write, output_tokens, unknown_usage) = counters
    return Total(
        value=value or None,
        tasks=tasks,
        executions=executions,
        metered_milli_tokens=milli_tokens,
        cost_nano_usd=nano_usd,
        latency_ms=latency_ms,
        model_calls=model_calls,
        input_tokens=input_tokens,
        cache_read_tokens=cache_read,
        cache_write_tokens=cache_write,
        output_tokens=output_tokens,
        unknown_usage=unknown_usage,
    )


assert ALL_MEASURES[0] == TASKS
