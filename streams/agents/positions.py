"""From where each source partition is read on, and up to where it is done. Pure.

The rule that everything rests on: what is committed is never beyond a record that has not been done.
A partition is read from one place on. Each record is noted before it is handed on, and stays
noted until its batch is done; whatever is lost on the way, in whichever queue, is still noted, and
nothing beyond it is committed. What has no record, such as the commit marker of a transaction, is
passed once everything before it is done.

A term is the time between two moves of the group. It begins where the group has committed, and at its
end everything is forgotten: what a batch of an earlier term says then changes nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from faust.types import TP


class Handed(Protocol):
    """A record, as far as its place is concerned."""

    tp: TP
    offset: int


class Positions:
    """The source partitions of a worker."""

    def __init__(self) -> None:
        self.term = 0
        self.is_open = False
        self._next: dict[TP, int | None] = {}  # None: where the group has committed
        self._unfinished: dict[TP, dict[int, Handed]] = {}  # by offset, in order
        self._committed: dict[TP, int] = {}

    def __repr__(self) -> str:
        return f"<Positions {'open' if self.is_open else 'closed'} {self.done()}>"

    def open(self, tps: Iterable[TP]) -> None:
        """Begin a term: these are read from where the group has committed."""
        self.forget()
        self._next = dict.fromkeys(tps)
        self._unfinished = {tp: {} for tp in self._next}
        self.is_open = True

    def close(self) -> None:
        """Hand on nothing more, and begin no batch; the one that is open may still end."""
        self.is_open = False

    def forget(self) -> None:
        """End the term: the group gives partitions anew."""
        self.term += 1
        self.is_open = False
        self._next.clear()
        self._unfinished.clear()
        self._committed.clear()

    def places(self) -> dict[TP, int | None]:
        """Return from where to read on; None is where the group has committed."""
        return dict(self._next) if self.is_open else {}

    def start(self, tp: TP, offset: int) -> None:
        """Read on from `offset`: where the group has committed, or the log begins."""
        assert self.is_open
        assert tp in self._next
        self._next[tp] = offset
        # Nothing that is waiting is there any more: the log was cut, or made anew.
        self._unfinished[tp].clear()

    def hand(self, message: Handed) -> None:
        """A record leaves for its stage; it may get lost on the way."""
        place = self._next[message.tp]
        assert self.is_open
        assert place is not None
        assert message.offset >= place
        self._unfinished[message.tp][message.offset] = message
        self._next[message.tp] = message.offset + 1

    def reach(self, tp: TP, offset: int) -> None:
        """Before `offset` there is nothing that has not been handed on."""
        place = self._next[tp]
        assert self.is_open
        assert place is not None
        assert offset >= place
        self._next[tp] = offset

    def is_current(self, message: Handed) -> bool:
        """Whether a batch may begin with it: it was handed on in this term, and is not done."""
        return self.is_open and self._is_unfinished(message)

    def finish(self, message: Handed) -> None:
        """A record is done; one of an earlier term changes nothing."""
        if self._is_unfinished(message):
            del self._unfinished[message.tp][message.offset]

    def _is_unfinished(self, message: Handed) -> bool:
        # The same offset may have been handed on in an earlier term as well: it is that very record.
        return self._unfinished.get(message.tp, {}).get(message.offset) is message

    def done(self) -> dict[TP, int]:
        """Return before which offset everything is done."""
        found = {}
        for tp, place in self._next.items():
            if place is not None:
                found[tp] = next(iter(self._unfinished[tp]), place)
                assert found[tp] <= place
        return found

    def uncommitted(self) -> dict[TP, int]:
        """Return what `done` says beyond what is committed."""
        return {
            tp: offset for tp, offset in self.done().items() if self._committed.get(tp) != offset
        }

    def committed(self, offsets: Mapping[TP, int], term: int) -> None:
        """The group has committed what `uncommitted` returned in a term."""
        if term == self.term:
            self._committed.update(offsets)
