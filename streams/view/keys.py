"""The keys in Redis: their names, and what bounds each. Described for readers in docs/redis.md.

Every name begins with the topics' prefix, so that several systems share one Redis.
"""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

LAYOUT = 3  # grows with every change of what a key holds: a view of another layout is built anew

# What is counted by day, and the history of a task. `breaches` keeps 30 days: of each day that is
# shown the topics still have everything, so that a rebuild comes to the same numbers.
KEPT_DAYS = 28
# Reports and audit, of which the topics keep 90 days and more: a link in a notification leads there.
REPORT_DAYS = 89
HEALTH_HOURS = 25
HOUR_S = 3_600
DAY_S = 24 * HOUR_S
FEED_RECORDS = 1_000
TASK_RECORDS = 64  # of one kind, of one task: the last ones
SOURCES_MAX = 1_000  # an emitter that restarts is another source


class Keys:
    """The names of one system's keys."""

    def __init__(self, prefix: str) -> None:
        self.root = f"{prefix}view:"
        self.meta = self._named("meta")
        self.positions = self._named("positions")
        self.progress = self._named("progress")
        self.unreadable = self._named("unreadable")
        self.tasks = self._named("tasks")
        self.open = self._named("open")
        self.ended = self._named("ended")
        self.partitions = self._named("partitions")
        self.policies = self._named("policies")
        self.heartbeats = self._named("heartbeats")
        self.alerts = self._named("alerts")
        self.baselines = self._named("baselines")
        self.health = self._named("health")
        self.sources = self._named("sources")

    def __repr__(self) -> str:
        return f"<Keys {self.root}>"

    def _named(self, name: str) -> bytes:
        return f"{self.root}{name}".encode()

    def feed(self, name: str) -> bytes:
        """Return the key of the last records of a kind: decisions, breaches, alerts, audit."""
        return self._named(f"feed:{name}")

    def of_task(self, kind: str, task_id: str) -> bytes:
        """Return the key of what is kept of one task, such as `decisions:TASK-17`."""
        return self._named(f"{kind}:{task_id}")

    def totals(self, day: str, dimension: str) -> bytes:
        """Return the key of a day's totals by a dimension."""
        return self._named(f"totals:{day}:{dimension}")

    def dead_letters(self, day: str) -> bytes:
        """Return the key of a day's dead letters, counted by reason."""
        return self._named(f"dead-letters:{day}")

    def sketch(self, kind: str, hour: str, source: str) -> bytes:
        """Return the key of a histogram of one hour (2026-11-22T21) and source."""
        return self._named(f"{kind}:{hour}:{source}")


@lru_cache(maxsize=1_000)
def day_end_s(day: str, days: int) -> int:
    """Return when what belongs to a day (2026-11-22) expires: `days` after its end, Unix seconds.

    The record's own time decides, not when it was read: a rebuild must not keep for longer.
    """
    start = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    # In seconds: the last days that have a name have no end that has one.
    return int(start.timestamp()) + (days + 1) * DAY_S


@lru_cache(maxsize=1_000)
def hour_end_s(hour: str) -> int:
    """Return when what belongs to an hour (2026-11-22T21) expires, in Unix seconds."""
    start = datetime.fromisoformat(f"{hour}:00:00+00:00")
    return int(start.timestamp()) + (HEALTH_HOURS + 1) * HOUR_S


def days_back(day: date, count: int) -> list[str]:
    """Return `count` days up to `day`, the first one first."""
    return [str(day - timedelta(days=back)) for back in reversed(range(count))]


def hours_back(now: datetime, count: int) -> list[str]:
    """Return the names of `count` hours up to the one of `now`, which is UTC."""
    return [f"{now - timedelta(hours=back):%Y-%m-%dT%H}" for back in reversed(range(count))]
