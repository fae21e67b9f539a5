"""How the ledger is, as one word, and one log line when that changes."""

import enum
import logging

log = logging.getLogger("stoploss.ledger")


class Health(enum.StrEnum):
    """What the process is doing; its numbers on the wire of metrics are their order."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING_FOR_KAFKA = "waiting_for_kafka"
    STANDING_STILL = "standing_still"  # a partition fails again and again: somebody has to look
    STOPPING = "stopping"


class LedgerHealth:
    """The state of the process, from what its parts report."""

    def __init__(self) -> None:
        self.state = Health.STARTING
        self._away: dict[str, str] = {}
        self._still: dict[str, str] = {}
        self._parts: dict[str, Part] = {}

    def __repr__(self) -> str:
        return f"<LedgerHealth {self.state.value} {self.reasons}>"

    @property
    def reasons(self) -> dict[str, str]:
        """What is being waited for, or wrong, by part."""
        return self._away | self._still

    def part(self, name: str) -> "Part":
        """Return who reports for a part; whoever did before is not listened to any more."""
        self.gone(name)
        self._parts[name] = part = Part(self, name)
        return part

    def listens_to(self, part: "Part") -> bool:
        """Whether nobody else reports for it by now."""
        return self._parts.get(part.name) is part

    def away(self, part: str, why: object) -> None:
        """`part` cannot reach Kafka; it tries again by itself."""
        self._away[part] = str(why)
        self._judge()

    def back(self, part: str) -> None:
        """`part` reaches Kafka."""
        self._away.pop(part, None)
        self._judge()

    def still(self, part: str, why: object) -> None:
        """`part` cannot go on although Kafka is there; it tries again by itself."""
        self._still[part] = str(why)
        self._judge()

    def moving(self, part: str) -> None:
        """`part` goes on: it has committed something."""
        if self._still.pop(part, None) is not None:
            self._judge()

    def gone(self, part: str) -> None:
        """`part` has ended: what it waited for is nobody's matter any more."""
        if self._away.pop(part, None) is not None or self._still.pop(part, None) is not None:
            self._still.pop(part, None)
            self._judge()

    def stopping(self) -> None:
        """No other state comes after this one."""
        self._turn(Health.STOPPING)

    def _judge(self) -> None:
        if self._still:
            self._turn(Health.STANDING_STILL, next(iter(self._still.values())))
        elif self._away:
            self._turn(Health.WAITING_FOR_KAFKA, next(iter(self._away.values())))
        else:
            self._turn(Health.RUNNING)

    def _turn(self, to: Health, why: str = "") -> None:
        if self.state in (to, Health.STOPPING):
            return
        level = logging.WARNING if why else logging.INFO
        log.log(level, "ledger: %s → %s%s", self.state.value, to.value, f": {why}" if why else "")
        self.state = to


class Part:
    """Reports for one part, as long as no other one does: what it waits for is its own matter then."""

    def __init__(self, health: LedgerHealth, name: str) -> None:
        self._health, self.name = health, name

    def __repr__(self) -> str:
        return f"<Part {self.name} of {self._health}>"

    def away(self, why: object) -> None:
        """See `LedgerHealth.away`."""
        if self._health.listens_to(self):
            self._health.away(self.name, why)

    def back(self) -> None:
        """See `LedgerHealth.back`."""
        if self._health.listens_to(self):
            self._health.back(self.name)

    def still(self, why: object) -> None:
        """See `LedgerHealth.still`."""
        if self._health.listens_to(self):
            self._health.still(self.name, why)

    def moving(self) -> None:
        """See `LedgerHealth.moving`."""
        if self._health.listens_to(self):
            self._health.moving(self.name)

    def gone(self) -> None:
        """See `LedgerHealth.gone`."""
        if self._health.listens_to(self):
            self._health.gone(self.name)
