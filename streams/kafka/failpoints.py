"""Named places of the commit sequence at which a test may have the process die, as a power cut would.

`STOPLOSS_FAILPOINT=before_commit:3` kills the process with SIGKILL when it comes to `before_commit`
for the third time, and says so in the log; `before_commit:3:stop` stops it there with SIGSTOP, until
somebody continues it. Without the variable each place calls a function that does nothing. It is read
once, at import: a process that runs cannot be armed.

Here and not in the ledger, since half of the places are inside the transaction.
"""

import asyncio
import itertools
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

from schemas.errors import InvalidFieldError

log = logging.getLogger("stoploss.failpoint")

VARIABLE = "STOPLOSS_FAILPOINT"
LEDGER_POINTS = (
    "after_init_transactions",  # the predecessor is fenced
    "while_restoring",  # a part of `tasks` is read
    "after_restore",
    "after_fold",  # of one chunk; nothing of it has left
    "after_begin",  # the transaction has no record yet
    "after_outputs_sent",  # the broker has all of them, and no state
    "after_state_sent",  # given to the producer: on its way, or not yet
    "before_commit",  # the broker has everything
    "in_commit",  # the commit is on its way, its answer is not here
    "after_commit",  # the answer is here
    "before_advance",  # in memory, nothing is known of the commit yet
    "after_memory",  # everything is done
    "in_revocation",  # the group takes the partitions back, batches are open
)
OPERATOR_POINTS = (  # the same for what operators write together
    "operator_before_commit",
    "operator_after_commit",
)
AGENT_POINTS = (
    "agent_after_fold",  # of an agent's batch; nothing of it has left
    "agent_in_outputs",  # the broker has the first of what it causes
    "agent_after_outputs",  # the broker has all of it, which is something, and nothing of the entries
    "agent_in_table",  # the broker has the first record of what becomes of the entries
    "agent_after_announcement",  # the broker knows all of them together, and none by itself
    "agent_after_table",  # the broker has everything, and the offsets are not committed
    "agent_before_commit",
    "agent_after_commit",
    "agent_after_restore",  # the entries are read, and no record yet
)
COMMIT_POINTS = LEDGER_POINTS + OPERATOR_POINTS
POINTS = COMMIT_POINTS + AGENT_POINTS
# Enough turns of the event loop that a request is written, too few for its answer to come.
TURNS_TO_WRITE = 20


DEEDS = {"kill": "killed", "stop": "stopped"}


class Armed:
    """One point, and how often it is still passed unharmed."""

    def __init__(self, value: str, do: Callable[[str], None]) -> None:
        """Arm.

        Raises:
            InvalidFieldError: `value` is not point:count or point:count:stop.
        """
        self.point, _, rest = value.partition(":")
        times, _, deed = rest.partition(":")
        known = self.point in POINTS and deed in (*DEEDS, "")
        if not known or not times.isdecimal() or int(times) < 1:
            allowed = f"point:count or point:count:stop, the point one of {', '.join(POINTS)}"
            raise InvalidFieldError(VARIABLE, value, allowed)
        self._left = int(times)
        self.deed = deed or "kill"
        self._do = do

    def hit(self, point: str) -> None:
        """Die here, if it is the point and the time."""
        if point != self.point:
            return
        self._left -= 1
        if self._left == 0:
            log.warning("failpoint: %s: %s", point, DEEDS[self.deed])
            self._do(self.deed)

    async def delivered(
        self, point: str, deliveries: Sequence[Awaitable[object]], topic: str
    ) -> None:
        """As `hit`, once what has been queued is on the broker, and `topic`, the state's, is next."""
        if point == self.point and deliveries and topic.endswith("tasks"):
            await asyncio.gather(*deliveries)
            self.hit(point)

    def on_the_way(self, point: str) -> None:
        """As `hit`, when the request that is made next has been written."""
        if point == self.point:
            self._turn(itertools.repeat(point, TURNS_TO_WRITE))

    def is_armed(self, point: str) -> bool:
        """Whether this place is the one: where it has to be made, not only come by."""
        return point == self.point

    def _turn(self, left: "itertools.repeat[str]") -> None:
        if next(left, None) is None:
            self.hit(self.point)
        else:
            asyncio.get_running_loop().call_soon(self._turn, left)


def _hit(_point: str) -> None:
    pass


async def _delivered(_point: str, _deliveries: Sequence[Awaitable[object]], _topic: str) -> None:
    pass


def _is_armed(_point: str) -> bool:
    return False


def _do(deed: str) -> None:
    for handler in logging.root.handlers:
        handler.flush()
    os.kill(os.getpid(), signal.SIGKILL if deed == "kill" else signal.SIGSTOP)


hit: Callable[[str], None] = _hit
on_the_way: Callable[[str], None] = _hit
is_armed: Callable[[str], bool] = _is_armed
delivered: Callable[[str, Sequence[Awaitable[object]], str], Awaitable[None]] = _delivered
if _value := os.environ.get(VARIABLE):
    try:
        _armed = Armed(_value, _do)
    except InvalidFieldError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    hit, on_the_way, delivered = _armed.hit, _armed.on_the_way, _armed.delivered
    is_armed = _armed.is_armed
    # The log is not set up yet when modules are imported; this line must not get lost.
    sys.stderr.write(
        f"failpoint: armed by {VARIABLE}={_value}: this process will {_armed.deed} itself\n"
    )
