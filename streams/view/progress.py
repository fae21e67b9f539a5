"""How far each partition has been read, and how old what Redis shows is. Pure."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from streams.kafka.several import Fetched
from streams.view.meta import State


class Reach(Struct):
    """One partition: `stored` is the position in Redis, None where it has none."""

    next_offset: int
    end_offset: int
    target: int  # where it ended when we began
    stored: int | None
    newest_ms: int = 0  # when the last record that is shown was written
    told: str = ""


class Advance(Struct, frozen=True):
    """What one read moves, and what there is to tell about it."""

    positions: dict[str, int]
    meta: dict[str, str]
    progress: dict[str, str]


def shown_until(at_ms: int, reaches: Iterable[tuple[int, int, int]]) -> int:
    """Return the time up to which everything is shown.

    Args:
        at_ms: when it was last seen where the topics end.
        reaches: of each partition the next offset, its end, and the time of the newest record shown.
    """
    behind = [newest_ms for next_offset, end, newest_ms in reaches if next_offset < end]
    return min([at_ms, *behind])


class Progress:
    """Of all partitions, by topic/partition (the topic without its prefix).

    Args:
        state: what Redis says that the view is doing.
        began_ms: when the last rebuild began.
        at_ms: when Redis was last told how far we are.
    """

    def __init__(
        self, reaches: dict[str, Reach], *, state: State, began_ms: int, at_ms: int
    ) -> None:
        self.reaches, self.state = reaches, state
        self._began_ms, self._at_ms = began_ms, at_ms
        self.rebuilt_in_ms: int | None = None

    def __repr__(self) -> str:
        return f"<Progress {self.state} lag={self.lag}>"

    @property
    def lag(self) -> int:
        """How many records there are that Redis does not show."""
        return sum(reach.end_offset - reach.next_offset for reach in self.reaches.values())

    @property
    def shown_ms(self) -> int | None:
        """The time up to which Redis shows everything; None during a rebuild."""
        if self.state is not State.FOLLOWING:
            return None
        return shown_until(
            self._at_ms,
            ((each.next_offset, each.end_offset, each.newest_ms) for each in self.reaches.values()),
        )

    def advance(self, fetched: Sequence[tuple[str, Fetched]], at_ms: int | None) -> Advance:
        """Take what one request has brought, or a piece of it; `confirm` it once it is in Redis.

        Args:
            fetched: by topic/partition.
            at_ms: every broker has answered then or later, and with this all of it is written; None
                where that cannot be said.
        """
        positions, progress = {}, {}
        for place, each in fetched:
            reach = self.reaches[place]
            if each.next_offset != reach.stored:
                positions[place] = each.next_offset
            reach.next_offset, reach.end_offset = each.next_offset, each.end_offset
            if each.records:
                reach.newest_ms = each.records[-1].timestamp
            told = f"{reach.end_offset} {reach.newest_ms}"
            if told != reach.told:
                progress[place] = told
        return Advance(positions, self._meta(self._at_ms if at_ms is None else at_ms), progress)

    def _meta(self, at_ms: int) -> dict[str, str]:
        meta = {"at_ms": str(at_ms)}
        if self.state is State.REBUILDING and all(
            reach.next_offset >= reach.target for reach in self.reaches.values()
        ):
            meta |= {"state": State.FOLLOWING, "rebuilt_ms": str(at_ms)}
        return meta

    def confirm(self, advance: Advance) -> None:
        """Remember what Redis has now."""
        self._at_ms = int(advance.meta["at_ms"])
        for place, offset in advance.positions.items():
            self.reaches[place].stored = offset
        for place, told in advance.progress.items():
            self.reaches[place].told = told
        if "rebuilt_ms" in advance.meta:
            self.state = State.FOLLOWING
            self.rebuilt_in_ms = int(advance.meta["rebuilt_ms"]) - self._began_ms
