"""What goes wrong in a history, and where: drawn from its seed before it begins.

Each history has some kinds of faults only, each with a rate of its own: a mixture of everything, always
the same, meets fewer combinations.
"""

import enum
import random
from collections import Counter

from msgspec import Struct


class Fault(enum.StrEnum):
    """What can go wrong, or be awkward."""

    CRASH = "crash"
    RESTART = "restart"  # told to end, as in a rolling upgrade
    REBALANCE = "rebalance"
    ZOMBIE = "zombie"  # cut off from the group, not from the log
    GROUP_ERROR = "group error"  # and everything begins anew in the same process
    UNAVAILABLE = "unavailable"  # a request does not arrive
    LOST_ANSWER = "lost answer"  # it arrives, is done, and nobody hears of it
    SLOW = "slow"  # it takes longer than anybody waits
    OUTAGE = "outage"  # no request arrives for a while
    REFUSED = "refused"  # the broker refuses a record batch
    DUPLICATE = "duplicate"  # a producer sends an event again
    BAD_EVENT = "bad event"
    LATE_EVENT = "late event"
    STRAY_TICK = "stray tick"
    ABORTED = "aborted transaction"  # of an operator, among the events
    LEFT_OPEN = "transaction left open"
    CLOCK_JUMP = "clock jump"
    CLOCK_BACK = "clock back"  # the broker's, when another one leads
    CLOCK_SKEW = "clock skew"  # of the ledgers' machines
    COMPACTION = "compaction"  # has removed records of `tasks`
    COMPACTION_AHEAD = "compaction ahead of a restore"  # of what it had not read yet
    DELETION_GONE = "deletion gone"  # with the last sign that its key was ever there


# Kinds of requests, in the order in which an owner makes them, and where in each a process can die.
REQUESTS = (
    "connect",
    "fence",
    "offsets",
    "restore",
    "read",
    "begin",
    "produce",
    "commit",
    "abort",
    "append",
)
MOMENTS = ("sent", "arrived", "answered")
PLACES = tuple(f"{request} {moment}" for request in REQUESTS for moment in MOMENTS)
ANYWHERE = "anywhere"
# Where a batch is in doubt: looked at more often than the rest.
IN_DOUBT = tuple(place for place in PLACES if place.split()[0] in {"begin", "produce", "commit"})


class Weather(Struct):
    """How likely each fault is in one history; `crashes` are places and how often to pass them."""

    faults: frozenset[Fault]
    rate: float
    latency_s: float
    crashes: list[tuple[str, int]]

    def has(self, fault: Fault) -> bool:
        return fault in self.faults


def draw_weather(chance: random.Random) -> Weather:
    """Return the weather of one history."""
    share = chance.choice((0.15, 0.4, 0.7))
    faults = frozenset(fault for fault in Fault if chance.random() < share)
    crashes = []
    if Fault.CRASH in faults:
        for _ in range(chance.randint(1, 4)):
            places = chance.choice((PLACES, IN_DOUBT, (ANYWHERE,)))
            crashes.append((chance.choice(places), chance.choice((1, 1, 2, 3, 5, 8))))
    return Weather(
        faults=faults,
        rate=chance.choice((0.01, 0.05, 0.2)),
        latency_s=chance.choice((0.0005, 0.005, 0.03)),
        crashes=crashes,
    )


class Met:
    """What has really happened: a fault that never came has shown nothing."""

    def __init__(self) -> None:
        self.faults: Counter[Fault] = Counter()
        self.crashes: Counter[str] = Counter()
        self.fenced = 0  # requests of an owner that had been replaced

    def add(self, other: "Met") -> None:
        self.faults += other.faults
        self.crashes += other.crashes
        self.fenced += other.fenced
