"""Whether a worker has stopped moving, from what can be seen of it from outside. Pure.

faust is known to stop: after a rebalance during a rebalance, in the restore of a table, with a consumer
that no longer fetches. Then nothing fails, and nobody says anything. So somebody else looks: what
waits for the worker in its topics, and whether it moves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Place = tuple[str, int]  # topic without the prefix, partition

STALL_S = 30.0
STALL_MAX_S = 240.0


def next_stall_s(stall_s: float, usual_s: float = STALL_S, *, got_going: bool) -> float:
    """Return how long the successor of a worker that was replaced may stand still.

    Twice as long, where that one never got going: on a machine that has too much else to do it may
    take longer than usual to begin, and the next one would be killed at the same place, for ever. How
    long it lived does not tell: the restore of a table takes its time before, and is no beginning.

    Args:
        stall_s: how long the one that was replaced was allowed to.
        usual_s: where there is no reason to wait longer.
        got_going: whether that one had done anything of what waits: `Watchdog.got_going`.
    """
    if got_going:
        return usual_s
    return min(2 * stall_s, max(STALL_MAX_S, usual_s))


@dataclass(frozen=True)
class Standing:
    """A source partition: the next offset to be done, and where committed records end."""

    next_offset: int
    end_offset: int

    @property
    def lag(self) -> int:
        """How many offsets wait."""
        return max(self.end_offset - self.next_offset, 0)


@dataclass(frozen=True)
class Signs:
    """What a worker shows of itself: `beat` changes while it lives, `restored` while it restores."""

    beat: int
    restored: int
    owned: frozenset[Place]


class Watchdog:
    """Judges one worker, from its start on.

    `got_going`: a source of its own has moved since.
    """

    def __init__(self, now_s: float, stall_s: float = STALL_S) -> None:
        self.got_going = False
        self._stall_s = stall_s
        self._beat, self._beat_s = -1, now_s
        self._restored, self._restored_s = -1, now_s
        self._waiting: dict[Place, tuple[int, float]] = {}  # next offset, since when it is that
        self._begun_at: dict[Place, int] = {}  # next offset, when it was first seen

    def look(
        self, now_s: float, signs: Signs, standings: Mapping[Place, Standing] | None
    ) -> str | None:
        """Return why the worker has to be replaced; None where it need not.

        Args:
            now_s: of a clock that only goes forward.
            signs: of the worker.
            standings: of its sources; None where Kafka does not answer, which is nobody's fault.
        """
        if signs.beat != self._beat:
            self._beat, self._beat_s = signs.beat, now_s
        if signs.restored != self._restored:
            self._restored, self._restored_s = signs.restored, now_s
        if now_s - self._beat_s > self._stall_s:
            return f"does not answer for {self._stall_s:g} s"
        self._note(now_s, standings or {})
        self.got_going |= any(
            standing.next_offset > self._begun_at.setdefault(place, standing.next_offset)
            and place in signs.owned
            for place, standing in (standings or {}).items()
        )
        return self._stalled(now_s, signs, standings or {})

    def _note(self, now_s: float, standings: Mapping[Place, Standing]) -> None:
        for place, standing in standings.items():
            known = self._waiting.get(place)
            if not standing.lag:
                self._waiting.pop(place, None)
            elif known is None or known[0] != standing.next_offset:
                self._waiting[place] = standing.next_offset, now_s
        for place in self._waiting.keys() - standings.keys():
            del self._waiting[place]

    def _stalled(
        self, now_s: float, signs: Signs, standings: Mapping[Place, Standing]
    ) -> str | None:
        if now_s - self._restored_s <= self._stall_s:
            return None
        for place, (_, since_s) in sorted(self._waiting.items()):
            if now_s - since_s <= self._stall_s or (signs.owned and place not in signs.owned):
                continue
            topic, partition = place
            standing = standings[place]
            return (
                f"does not move: {topic} partition {partition} stands at {standing.next_offset}, "
                f"{standing.lag} behind, for {self._stall_s:g} s"
            )
        return None
