"""Ledgers, enforcers and operators on one log, with what goes wrong among them; all from one seed.

The end is always calm: what is broken is mended, nothing new comes, and the ledgers must fold what
is left within `DONE_WITHIN_S`.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from schemas.topics import Topic
from streams.budget.policy import Policy
from streams.kafka.ports import RawRecord, Record
from streams.kafka.settings import Settings
from tests.simulation.broker import Broker, BrokerError
from tests.simulation.faults import ANYWHERE, Fault, Met, draw_weather
from tests.simulation.group import Group
from tests.simulation.judge import next_offset
from tests.simulation.links import Link
from tests.simulation.log import Fate, newest
from tests.simulation.loop import StandstillError, VirtualLoop
from tests.simulation.network import Network, Sender
from tests.simulation.process import Process
from tests.simulation.traffic import POLICY, Traffic, Upstream

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
# In the relations of the real ones, only shorter, as a history is.
SETTINGS = Settings(
    session_timeout_ms=2_000,
    rebalance_timeout_ms=2_000,
    heartbeat_interval_ms=400,
    transaction_timeout_ms=1_500,
    batch_deadline_ms=1_000,
    stop_deadline_ms=2_000,
    request_timeout_ms=3_000,
)
DONE_WITHIN_S = 60.0
ENDED_WITHIN_S = 10.0
LOOK_EVERY_S = 0.1
BURST_S = 0.3
STEPS_MAX = 1_000_000  # a history has some thousands
CLEANINGS_MAX = 8
AGE_MS = 700_000  # longer than tasks live without an event, and than ended ones are kept
ANYWHERE_STEPS = 300  # between two crashes that are anywhere

Tell = Callable[[str], None]


class World:
    """One history. `problems` is empty where all is well.

    Args:
        seed: of everything.
        make_link: the ports that the ledgers get; another one to see that it is found out.
        tell: is told what happens, in lines.
    """

    def __init__(self, seed: int, make_link: type[Link] = Link, tell: Tell | None = None) -> None:
        self.seed, self._make_link, self._tell_on = seed, make_link, tell
        self.met = Met()
        self.problems: list[str] = []
        self.events = 0
        self.simulated_s = 0.0
        self._trace = hashlib.sha256()
        # A stream of chance for each part, so that more of one does not change the others.
        chance = random.Random(seed)
        streams = (random.Random(chance.getrandbits(64)) for _ in range(5))
        self._chance, self._of_links, self._of_network, self._of_broker, of_traffic = streams
        self.weather = draw_weather(chance)
        self._crashes = dict(enumerate(self.weather.crashes))
        self._until_anywhere = chance.randint(1, ANYWHERE_STEPS)
        self._process_count = chance.choice((1, 2, 2, 3))
        self._event_count = chance.choice((5, 15, 40))
        self._span_s = chance.choice((1.0, 3.0, 6.0))
        self.settings = replace(SETTINGS, partitions=chance.choice((1, 1, 2, 3)))
        self._traffic = Traffic(of_traffic, self.settings.partitions)
        self._steps = self._started_count = 0
        self._jumped_ms = 0
        self._is_over = False
        self._serving: dict[Sender, Process] = {}

    @property
    def digest(self) -> str:
        """Two runs with the same one went the same way."""
        return self._trace.hexdigest()

    # What a judge sees: see `judge.WrittenLog`.

    @property
    def partitions(self) -> int:
        return self.settings.partitions

    @property
    def default_policy(self) -> Policy:
        return POLICY

    def topic(self, topic: Topic) -> str:
        return self.settings.topic(topic)

    def committed(self, topic: Topic, partition: int) -> Sequence[RawRecord]:
        return self._broker.partition(self.topic(topic), partition).ever_committed()

    # What happens.

    async def live(self) -> None:
        """Let everything happen, to the end."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._loop = loop
        loop.on_step(self._step)
        loop.set_exception_handler(self._mistake)
        self._broker = Broker(loop, self._of_broker, self._append_ms, self.tell)
        self._broker.on_append = self._check_heartbeat
        self._group = Group(self.settings, self.topic(Topic.EVENTS), self._of_network, self.tell)
        self._network = Network(self._of_network, self.weather, self.met, self._at)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            serving = [tasks.create_task(self._serve()) for _ in range(self._process_count)]
            self._plan_events()
            self._plan_trouble()
            self._plan_compaction()
            # Zombies make the span longer while it is waited for.
            while (left_s := self._span_s - loop.time()) > 0:  # noqa: ASYNC110 - not for a condition
                await asyncio.sleep(left_s)
            self._calm_down()
            await self._until_done()
            self._end()
            _, late = await asyncio.wait(serving, timeout=ENDED_WITHIN_S)
            if late:
                self.problems.append(f"{len(late)} ledgers did not end in {ENDED_WITHIN_S} s")
            for task in late:
                task.cancel()
        self._network.close()
        self._check_cleaned()
        loop.on_step(lambda: None)
        self.simulated_s = loop.time()
        self.met.fenced = self._broker.fenced

    def tell(self, line: str) -> None:
        """Note what happened; the trace of a seed is always the same."""
        line = f"{self._loop.time():9.4f} {line}"
        self._trace.update(line.encode())
        if self._tell_on is not None:
            self._tell_on(line)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise StandstillError(f"no end after {STEPS_MAX} steps")
        if self._until_anywhere > 0:
            self._until_anywhere -= 1
            return
        self._until_anywhere = self._chance.randint(1, ANYWHERE_STEPS)
        for index, (place, _) in self._crashes.items():
            if place == ANYWHERE and self._serving and not self._network.is_calm:
                del self._crashes[index]
                self._crash(self._chance.choice(list(self._serving.values())), place)
                return

    def _at(self, sender: Sender, place: str) -> None:
        """Let a process die where it was to die."""
        if place == "fence sent":
            self._check_fence(sender)
        if self._network.is_calm or sender not in self._serving:
            return
        for index, (where, passes) in self._crashes.items():
            if where != place:
                continue
            self._crashes[index] = where, passes - 1
            if passes == 1:
                del self._crashes[index]
                self._crash(self._serving[sender], place)
            return

    def _check_fence(self, sender: Sender) -> None:
        """Whoever waits for the group fences nobody: it may be who the group decides for."""
        process = self._serving.get(sender)
        member = None if process is None else process.member
        if member is not None and member.is_undecided:
            self.problems.append(f"{sender.name} fences before the group has decided")

    def _crash(self, process: Process, place: str) -> None:
        self.met.faults[Fault.CRASH] += 1
        self.met.crashes[place] += 1
        self.tell(f"crash {process.sender.name} at {place}")
        del self._serving[process.sender]
        process.crash()

    async def _serve(self) -> None:
        """Run a ledger, and the next one when it has ended, to the end of the history."""
        skew_ms = 0
        if self.weather.has(Fault.CLOCK_SKEW):
            self.met.faults[Fault.CLOCK_SKEW] += 1
            skew_ms = self._chance.randint(-5_000, 5_000)
        while not self._is_over:
            self._started_count += 1
            sender = Sender(f"ledger-{self._started_count}")
            link = self._make_link(
                sender, self._broker, self._network, self.settings, self._of_links
            )
            process = Process(
                link, self._group, self.default_policy, lambda: self._wall_ms() + skew_ms
            )
            self._serving[sender] = process
            self.tell(f"start {sender.name}")
            try:
                await process.run()
            except Exception as error:  # noqa: BLE001 - whatever it is, the history has found it
                self.problems.append(f"{sender.name} failed: {error!r}")
            self._serving.pop(sender, None)
            self.tell(f"ended {sender.name}")
            if not self._is_over:
                await asyncio.sleep(self._chance.choice((0.01, 0.3, 1.0)))

    def _plan_events(self) -> None:
        """Let events come evenly, or in bursts: then more is open when something goes wrong."""
        bursts_s = [self._chance.uniform(0, self._span_s) for _ in range(3)]
        is_even = self._chance.random() < 0.4
        for _ in range(self._event_count):
            if is_even:
                at_s = self._chance.uniform(0, self._span_s)
            else:
                at_s = self._chance.choice(bursts_s) + self._chance.uniform(0, BURST_S)
            self._loop.call_later(at_s, self._write)

    def _write(self) -> None:
        """Let one event come, or what comes instead of it."""
        chance, has = self._chance, self.weather.has
        own_ms = self._wall_ms() - chance.choice((0, 0, 5, 5_000, 400_000))
        partition = chance.randrange(self.settings.partitions)
        roll = chance.random()
        if roll < 0.06:
            self._tasks.create_task(self._operate(own_ms))
            return
        if roll < 0.15 and has(Fault.BAD_EVENT):
            self.met.faults[Fault.BAD_EVENT] += 1
            event = self._traffic.bad(partition, own_ms)
        elif roll < 0.2 and has(Fault.STRAY_TICK):
            self.met.faults[Fault.STRAY_TICK] += 1
            event = self._traffic.tick(partition, own_ms)
        else:
            event = self._traffic.event(partition, own_ms)
        if roll > 0.9 and has(Fault.LATE_EVENT):
            self.met.faults[Fault.LATE_EVENT] += 1
            self._loop.call_later(chance.uniform(0, 2), self._append, partition, event)
        else:
            self._append(partition, event)
        if 0.7 < roll < 0.85 and has(Fault.DUPLICATE):
            self.met.faults[Fault.DUPLICATE] += 1
            self._loop.call_later(chance.uniform(0, 1), self._append, partition, event)

    def _append(self, partition: int, event: Upstream) -> None:
        self.events += 1
        record = Record(self.topic(Topic.EVENTS), partition, event.key, event.value)
        self._broker.append(record, event.headers)

    async def _operate(self, own_ms: int) -> None:
        """Write an operator's change to every partition, in one transaction."""
        self._started_count += 1
        name = f"operator-{self._started_count}"
        topic = self.topic(Topic.EVENTS)
        records = []
        for partition in range(self.settings.partitions):
            event = self._traffic.for_partition(partition, own_ms)
            records.append(Record(topic, partition, event.key, event.value))
        chance = self._chance
        epoch = await self._broker.begin_epoch(name)
        places = [(topic, record.partition) for record in records]
        await self._broker.begin(name, epoch, places, 1.0)
        for record in records:
            await asyncio.sleep(chance.choice((0, 0.01, 0.2)))
            try:
                self._broker.produce(name, epoch, [record])
            except BrokerError:
                return
        if self._meets(Fault.LEFT_OPEN):
            return
        await asyncio.sleep(chance.choice((0, 0.01, 0.2)))
        fate = Fate.ABORTED if self._meets(Fault.ABORTED) else Fate.COMMITTED
        try:
            self._broker.end(name, epoch, fate)
        except BrokerError:
            return
        self.events += len(records) if fate is Fate.COMMITTED else 0

    def _meets(self, fault: Fault) -> bool:
        if not self.weather.has(fault) or self._chance.random() < 0.5:
            return False
        self.met.faults[fault] += 1
        return True

    def _plan_trouble(self) -> None:
        """Plan what does not depend on a single request."""
        trouble: dict[Fault, Callable[[], None]] = {
            Fault.REBALANCE: self._group.rebalance,
            Fault.ZOMBIE: self._cut_off,
            Fault.RESTART: self._restart,
            Fault.GROUP_ERROR: self._fail_group,
            Fault.OUTAGE: self._go_out,
            Fault.CLOCK_JUMP: self._jump,
        }
        for fault, happen in trouble.items():
            if self.weather.has(fault):
                for _ in range(self._chance.randint(1, 3)):
                    at_s = self._chance.uniform(0, self._span_s)
                    self._loop.call_later(at_s, self._trouble, fault, happen)

    def _plan_compaction(self) -> None:
        """Plan when the cleaner comes; what it does is no trouble, so it comes after the calm too."""
        if self.weather.has(Fault.COMPACTION):
            for _ in range(self._chance.randint(1, CLEANINGS_MAX)):
                at_s = self._chance.uniform(0, 2 * self._span_s)
                kept = self._chance.choice((0, 0, 3, 20))
                self._loop.call_later(at_s, self._compact, kept)
        if self.weather.has(Fault.DELETION_GONE):
            # What is alive is abandoned after the first age, and forgotten after the second; then
            # deletions are seen by one cleaning, and gone with another.
            for share in (0.2, 0.4):
                self._loop.call_later(share * self._span_s, self._pass_an_age)
            for share in (0.5, 0.6, 0.7):
                self._loop.call_later(share * self._span_s, self._compact, 0)

    def _compact(self, newest_kept: int) -> None:
        may_forget = self.weather.has(Fault.DELETION_GONE)
        for partition in range(self.settings.partitions):
            cleaner = self._broker.cleaner(self.topic(Topic.TASKS), partition)
            cleaned = cleaner.clean(newest_kept=newest_kept, may_forget=may_forget)
            self.met.faults[Fault.COMPACTION] += bool(cleaned.superseded)
            self.met.faults[Fault.DELETION_GONE] += bool(cleaned.deletions)
            self.tell(f"compaction {partition}: {len(cleaned.superseded)} records are gone")

    def _trouble(self, fault: Fault, happen: Callable[[], None]) -> None:
        if not self._network.is_calm:
            self.met.faults[fault] += 1
            self.tell(fault.value)
            happen()

    def _cut_off(self) -> None:
        """Make a zombie, and let events come while there are two owners."""
        members = [process.member for process in self._serving.values()]
        owners = [member for member in members if member is not None and member.partitions]
        if not owners:
            return
        session_s = self.settings.session_timeout_ms / 1000
        for_s = session_s * self._chance.choice((0.5, 2, 4))
        self._group.cut_off(self._chance.choice(owners), for_s)
        for _ in range(5):
            self._loop.call_later(session_s * self._chance.uniform(1, 2), self._write)
        self._span_s = max(self._span_s, self._loop.time() + 2 * session_s)

    def _restart(self) -> None:
        if self._serving:
            self._chance.choice(list(self._serving.values())).stop()

    def _fail_group(self) -> None:
        for process in self._serving.values():
            if process.member is not None and self._chance.random() < 0.7:
                process.member.fail()

    def _go_out(self) -> None:
        self._network.is_out = True
        self._loop.call_later(self._chance.uniform(0.05, 2), self._come_back)

    def _come_back(self) -> None:
        self._network.is_out = False

    def _jump(self) -> None:
        self._jumped_ms += self._chance.choice((1_000, 30_000, 200_000, 700_000))

    def _pass_an_age(self) -> None:
        self._jumped_ms += AGE_MS

    def _calm_down(self) -> None:
        self.tell("calm")
        self._network.is_calm = True
        self._come_back()

    async def _until_done(self) -> None:
        """Wait until everything is folded."""
        try:
            async with asyncio.timeout(DONE_WITHIN_S):
                while not self._is_done():  # noqa: ASYNC110 - in simulated time it costs nothing
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            self.problems.append(f"not everything is folded {DONE_WITHIN_S} s after the last fault")

    def _is_done(self) -> bool:
        if not self._broker.is_quiet:
            return False
        for partition in range(self.settings.partitions):
            events = self.committed(Topic.EVENTS, partition)
            end = events[-1].offset + 1 if events else 0
            if not events or self._decided_offset(partition) < end:
                return False  # without any event, its first policy is still to come
        return True

    def _decided_offset(self, partition: int) -> int:
        """Return up to which input the ledger has committed, whether the markers stand or not."""
        log = self._broker.partition(self.topic(Topic.TASKS), partition)
        for record in reversed(log.committed(until=log.end)):
            offset = next_offset(record, partition)
            if offset is not None:
                return offset
        return 0

    def _check_heartbeat(self, record: Record) -> None:
        """Nobody may be told of what can still be taken back."""
        if record.topic != self.topic(Topic.HEARTBEATS):
            return
        assert record.value is not None
        told = _HEARTBEAT.decode(record.value)
        partition = int(told.subject.removeprefix("partition/"))
        decided = self._decided_offset(partition)
        if told.data.next_offset > decided:
            self.problems.append(
                f"a heartbeat of partition {partition} tells of offset {told.data.next_offset}; "
                f"committed is {decided}"
            )

    def _check_cleaned(self) -> None:
        """Whoever reads what compaction has left knows what a reader of everything knows."""
        for partition in range(self.settings.partitions):
            log = self._broker.partition(self.topic(Topic.TASKS), partition)
            if newest(log.committed()) != newest(log.ever_committed()):
                self.problems.append(f"compaction of partition {partition} has lost something")

    def _end(self) -> None:
        self._is_over = True
        for process in self._serving.values():
            process.stop()

    def _wall_ms(self) -> int:
        return START_MS + self._jumped_ms + int(self._loop.time() * 1000)

    def _append_ms(self) -> int:
        back_ms = 0
        if self.weather.has(Fault.CLOCK_BACK) and self._of_broker.random() < 0.1:
            self.met.faults[Fault.CLOCK_BACK] += 1
            back_ms = self._of_broker.randint(1, 3_000)
        return self._wall_ms() - back_ms

    def _mistake(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.problems.append(f"{context.get('message')}: {error!r}")


class _HeartbeatData(msgspec.Struct):
    next_offset: int


class _Heartbeat(msgspec.Struct):
    subject: str
    data: _HeartbeatData


_HEARTBEAT = msgspec.json.Decoder(_Heartbeat)
