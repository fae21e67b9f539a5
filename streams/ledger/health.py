"""How the ledger is, as one word, and one log line when that changes."""

import enum
import logging

log = logging.getLogger("stoploss.ledger")


class Health(enum.StrEnum):
    """What the process is doing; its numbers on the wire of metrics are their order."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING_FOR_KAFKA = "waiting_for_kafka"
    STOPPING = "stopping"


class LedgerHealth:
    """The state of the process, from what its parts report."""

    def __init__(self) -> None:
        self.state = Health.STARTING
        self._away: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<LedgerHealth {self.state.value} {self._away}>"

    @property
    def reasons(self) -> dict[str, str]:
        """What is being waited for, by part."""
        return dict(self._away)

    def away(self, part: str, why: object) -> None:
        """`part` cannot reach Kafka; it tries again by itself."""
        self._away[part] = str(why)
        self._turn(Health.WAITING_FOR_KAFKA, str(why))

    def back(self, part: str) -> None:
        """`part` reaches Kafka."""
        self._away.pop(part, None)
        if not self._away:
            self._turn(Health.RUNNING)

    def gone(self, part: str) -> None:
        """`part` has ended: what it waited for is nobody's matter any more."""
        if self._away.pop(part, None) is not None and not self._away:
            self._turn(Health.RUNNING)

    def stopping(self) -> None:
        """No other state comes after this one."""
        self._turn(Health.STOPPING)

    def _turn(self, to: Health, why: str = "") -> None:
        if self.state in (to, Health.STOPPING):
            return
        level = logging.WARNING if to is Health.WAITING_FOR_KAFKA else logging.INFO
        log.log(level, "ledger: %s → %s%s", self.state.value, to.value, f": {why}" if why else "")
        self.state = to
