"""What a run of faults has shown, as it is kept in docs/reliability/."""

from collections.abc import Sequence

from msgspec import Struct

from streams.kafka.settings import Driver


class Gaps(Struct, frozen=True):
    """How long input waited at most, after each of `count` faults, in milliseconds."""

    count: int
    p50: int
    p99: int
    max: int


class Events(Struct, frozen=True):
    """What was sent. `records` stand in `events` at least once, `distinct` of them count once."""

    records: int
    distinct: int
    twice: int
    overtaken: int
    held_back: int
    binary: int
    bad: int
    tasks: int
    emitted: int
    emitter_dropped: int
    sent_again_after_failures: int


class Enforced(Struct, frozen=True):
    """What enforcers said that were killed again and again.

    `arrived` stand in `events` and count once, `repeated` stand there once more, and `on_disk` were
    found in the spool of a dead one.
    """

    said: int
    arrived: int
    repeated: int
    on_disk: int


class Told(Struct, frozen=True):
    """What agents have written that were killed again and again, by topic.

    `distinct` ids stand there, and so many records more, `repeated`, say once more what was said.
    """

    distinct: dict[str, int]
    repeated: dict[str, int]


class Viewed(Struct, frozen=True):
    """What the view shows in the end: so many keys hold what one made anew holds.

    `rebuilds` is how often it began anew, by itself or by command. `damaged` keys held something else
    before the last one: somebody had written there what nothing finds out.
    """

    keys: int
    rebuilds: int
    damaged: int


class Result(Struct, frozen=True, kw_only=True):
    """One run; `faults` are those that were seen to have happened, `attempted` all."""

    commit: str
    seed: int
    minutes: float
    cores: int
    session_ms: int
    driver: Driver = "aiokafka"
    faults: dict[str, int]
    attempted: dict[str, int]
    zombies_fenced: int
    events: Events
    enforced: Enforced | None = None  # older runs had none
    told: Told | None = None  # nor these
    viewed: Viewed | None = None
    model_calls: int
    gaps_ms: Gaps
    gaps_ms_by_fault: dict[str, Gaps]
    verify: dict[str, str]
    differences: list[str]

    @property
    def clean(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def gaps(longest_ms: Sequence[int]) -> Gaps:
    """Sum up what was measured, once for each fault; percentiles are values that occurred."""
    if not longest_ms:
        return Gaps(0, 0, 0, 0)
    ordered = sorted(longest_ms)
    count = len(ordered)
    return Gaps(
        count=count,
        p50=ordered[(count - 1) * 50 // 100],
        p99=ordered[-(-(count - 1) * 99 // 100)],
        max=ordered[-1],
    )
