"""One ledger process: the driver from `streams.ledger.run` down, on the simulated log; and its death."""

import asyncio
from collections.abc import Callable

from streams.budget.policy import Policy
from streams.budget.sleep import Patience
from streams.ledger.health import LedgerHealth
from streams.ledger.metrics import LedgerMetrics, unseen
from streams.ledger.partition import Shared
from streams.ledger.run import serve
from streams.ledger.shares import Held
from tests.simulation.group import Group, Member
from tests.simulation.links import Link, SimulatedAppender
from tests.simulation.network import Sender

# The figures go nowhere; to make the instruments costs more than a history.
METRICS: LedgerMetrics = unseen()


class Process:
    """A ledger from its start to its end; there is another one after it.

    Args:
        link: what it has of the broker; names it.
        wall_ms: the clock of its machine.
    """

    def __init__(
        self, link: Link, group: Group, policy: Policy, wall_ms: Callable[[], int]
    ) -> None:
        self.sender: Sender = link.sender
        self._group = group
        self._shared = Shared(
            settings=link.settings,
            default_policy=policy,
            connect=link,
            appender=SimulatedAppender(link),
            wall_ms=wall_ms,
            metrics=METRICS,
            health=LedgerHealth(),
            patience=Patience(idle_ms=1_000, look_every_ms=100),  # a history is short
            freeze=False,
        )
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.member: Member | None = None

    def __repr__(self) -> str:
        return f"<Process {self.sender.name}>"

    async def run(self) -> None:
        """Serve until `stop` or `crash`."""
        serving = serve(self._shared, self._stop, self._join)
        self._task = asyncio.get_running_loop().create_task(serving)
        try:
            await self._task
        except asyncio.CancelledError:
            if self.sender.is_alive:
                raise

    def _join(self, held: Callable[[], Held]) -> Member:
        self.member = Member(self._group, self.sender, held)
        return self.member

    def stop(self) -> None:
        """Tell it to end."""
        self._stop.set()

    def crash(self) -> None:
        """Kill it: nothing that is left of it reaches anybody any more."""
        self.sender.is_alive = False
        if self.member is not None:
            self.member.die()
        if self._task is not None:
            self._task.cancel()
