"""A consumer group as the ledgers see it: eager, and as late with its news as Kafka's.

The coordinator waits for every member it knows, for as long as a rebalance may take; who has not come
by then is out, and hears of it later. A member that is cut off, or dead, is out when its session is
over. Until it hears of that, it goes on with what it had: a zombie.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import aiokafka.errors
from aiokafka.structs import TopicPartition

from streams.kafka.settings import Settings
from streams.ledger.shares import UNKNOWN, Claim, Held, share_out
from tests.simulation.network import Sender

STAYING = 0.5


class Listener(Protocol):
    """What the group calls; `Assignment` is one."""

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None: ...

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None: ...


class Member:
    """A member, on its process's side: the consumer that `Assignment` is given."""

    def __init__(self, group: "Group", sender: Sender, held: Callable[[], Held]) -> None:
        self._group, self.sender, self.held = group, sender, held
        self.must_rejoin = asyncio.Event()
        self._has_subscribed = asyncio.Event()
        self._has_failed = asyncio.Event()
        self._listener: Listener | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_cut_off = False
        self.is_undecided = False  # and knows it: it has been asked to join again
        self.partitions: list[int] = []
        self.given_in = UNKNOWN  # which generation of the group they were given in

    async def start(self) -> None:
        self.sender.must_live()
        self._task = asyncio.get_running_loop().create_task(self._take_part())

    def subscribe(self, _topics: list[str], listener: Listener) -> None:
        self._listener = listener
        self._has_subscribed.set()

    def pause(self, *_partitions: TopicPartition) -> None:
        pass

    async def getmany(self, timeout_ms: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                await self._has_failed.wait()
                raise aiokafka.errors.UnknownError("the group")

    async def commit(self, _offsets: Mapping[TopicPartition, int]) -> None:
        """Nothing depends on it."""

    async def stop(self) -> None:
        self.sender.must_live()
        self._end()
        self._group.leave(self)

    def fail(self) -> None:
        """Let the next look at the group say that something is wrong with it."""
        self._has_failed.set()

    def die(self) -> None:
        """Do nothing any more, without a word to anybody."""
        self._end()
        self._group.lose(self)

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _take_part(self) -> None:
        """Join, be told what is ours, give it back, and join again; until cancelled."""
        await self._has_subscribed.wait()
        listener = self._listener
        assert listener is not None
        while True:
            self.must_rejoin.clear()
            self.partitions = await self._group.join(self)
            owned = [TopicPartition(self._group.topic, number) for number in self.partitions]
            self.is_undecided = False
            await listener.on_partitions_assigned(owned)
            await self.must_rejoin.wait()
            await listener.on_partitions_revoked(owned)
            self.is_undecided = True


class Group:
    """The coordinator."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        chance: random.Random,
        tell: Callable[[str], None],
    ) -> None:
        self._settings, self.topic, self._chance, self._tell = settings, topic, chance, tell
        self._members: list[Member] = []
        self._joining: dict[Member, asyncio.Future[list[int]]] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._generation = 0
        self._loop = asyncio.get_running_loop()

    async def join(self, member: Member) -> list[int]:
        """Return the partitions of a member, when all others have come as well."""
        if member not in self._members:
            self._members.append(member)
        joined: asyncio.Future[list[int]] = self._loop.create_future()
        self._joining[member] = joined
        self.rebalance()
        if len(self._joining) == len(self._members):
            # The others may not have asked yet, when the first one of all begins.
            self._loop.call_later(self._chance.uniform(0.001, 0.05), self._complete_if_all)
        return await joined

    def rebalance(self) -> None:
        """Begin a rebalance, where none is on its way: every member must come again."""
        if self._deadline is not None or not self._members:
            return
        limit_s = self._settings.rebalance_timeout_ms / 1000
        self._deadline = self._loop.call_later(limit_s, self._complete)
        for member in self._members:
            if member not in self._joining:
                self._tell_later(member)

    def leave(self, member: Member) -> None:
        """Let a member go, and share out what it had."""
        self._joining.pop(member, None)
        if member in self._members:
            self._members.remove(member)
            self.rebalance()
            self._complete_if_all()

    def lose(self, member: Member) -> None:
        """No sign comes from a member any more; it is out when its session is over."""
        self._loop.call_later(self._settings.session_timeout_ms / 1000, self._expire, member)

    def cut_off(self, member: Member, for_s: float) -> None:
        """Let a member hear nothing of the group for a while, and the group nothing of it."""
        if not member.is_cut_off and member not in self._joining:
            member.is_cut_off = True
            self.lose(member)
            self._loop.call_later(for_s, self._connect, member)

    def _connect(self, member: Member) -> None:
        member.is_cut_off = False
        member.must_rejoin.set()  # it is out, or a rebalance goes on without it

    def _expire(self, member: Member) -> None:
        if member.is_cut_off or not member.sender.is_alive:
            self.leave(member)

    def _tell_later(self, member: Member) -> None:
        within_s = self._settings.heartbeat_interval_ms / 1000
        self._loop.call_later(self._chance.uniform(0, within_s), self._hear, member)

    def _hear(self, member: Member) -> None:
        if not member.is_cut_off:
            member.must_rejoin.set()

    def _complete_if_all(self) -> None:
        if self._deadline is not None and len(self._joining) == len(self._members):
            self._complete()

    def _complete(self) -> None:
        """Share the partitions out among those who have come; the others are out."""
        assert self._deadline is not None
        self._deadline.cancel()
        self._deadline = None
        late = [member for member in self._members if member not in self._joining]
        for member in late:
            self._members.remove(member)
            self._tell_later(member)
        joined = [pair for pair in self._joining.items() if not pair[1].done()]
        self._joining = {}
        self._generation += 1
        for (member, future), share in zip(joined, self._shares(joined), strict=True):
            self._tell(f"assign {member.sender.name} {share}")
            member.given_in = self._generation
            future.set_result(share)

    def _shares(self, joined: list[tuple[Member, asyncio.Future[list[int]]]]) -> list[list[int]]:
        """Share out as ledgers do, or, for once, as it happens: then more moves than has to."""
        partitions = range(self._settings.partitions)
        self._chance.shuffle(joined)
        if self._chance.random() < STAYING:
            claims = {
                str(place): Claim(member.held(), member.given_in)
                for place, (member, _) in enumerate(joined)
            }
            shares = share_out(partitions, claims) if joined else {}
            return [shares[name] for name in claims]
        return [list(partitions[place :: len(joined)]) for place, _ in enumerate(joined)]
