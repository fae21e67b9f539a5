"""One ledger process: the driver as `run_ledger` starts it, on the simulated log; and its death."""

import asyncio
from collections.abc import Callable

from streams.budget.policy import Policy
from streams.ledger.assignment import Assignment
from streams.ledger.health import LedgerHealth
from streams.ledger.metrics import LedgerMetrics, MetricsExport
from streams.ledger.partition import Shared
from tests.simulation.group import Group, Member
from tests.simulation.links import Link, SimulatedAppender
from tests.simulation.network import Sender

# The figures go nowhere; to make the instruments costs more than a history.
METRICS: LedgerMetrics = MetricsExport([], lambda: None).metrics


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
        self.member = Member(group, self.sender)
        self._group, self._settings = group, link.settings
        self._shared = Shared(
            settings=self._settings,
            default_policy=policy,
            connect=link,
            appender=SimulatedAppender(link),
            wall_ms=wall_ms,
            metrics=METRICS,
            health=LedgerHealth(),
            freeze=False,
        )
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Process {self.sender.name}>"

    async def run(self) -> None:
        """Serve until `stop` or `crash`, as `streams.ledger.run` does."""
        self._task = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                assignment = Assignment(self._shared, group, self.member)
                await assignment.start()
                beside = [
                    group.create_task(self.member.take_part()),
                    group.create_task(assignment.watch()),
                ]
                await self._stop.wait()
                beside[1].cancel()
                await assignment.close(self._settings.stop_deadline_ms / 1000)
                beside[0].cancel()
        except asyncio.CancelledError:
            if self.sender.is_alive:
                raise

    def stop(self) -> None:
        """Tell it to end."""
        self._stop.set()

    def crash(self) -> None:
        """Kill it: nothing that is left of it reaches anybody any more."""
        self.sender.is_alive = False
        self._group.lose(self.member)
        if self._task is not None:
            self._task.cancel()
