"""What producers sent twice is dropped, per task (and per partition for what concerns all of it).

With a `sequence`: by source, at or below the highest seen. Without: by source and id among the
last few, kept as 64-bit hashes. Source: budget model, "Duplicates".
"""

import hashlib

from msgspec import Struct

from schemas.errors import InvalidFieldError
from schemas.events import Event
from streams.budget.state import PartitionState, Task

SEQUENCE_MAX = 2**63 - 1
SOURCES_MAX = 256  # of one task; every restart of an emitter brings a new one


class Mark(Struct, frozen=True, gc=False):
    """What identifies an event among those of its task: a sequence, else a hash."""

    source: str
    sequence: int | None
    hashed: int = 0


def mark_of(event: Event) -> Mark:
    """Return what identifies an event.

    Raises:
        InvalidFieldError: `sequence` is not a number of digits of 63 bits.
    """
    text = event.sequence
    if text is None:
        digest = hashlib.blake2b(f"{event.source}\n{event.id}".encode(), digest_size=8).digest()
        return Mark(event.source, None, int.from_bytes(digest))
    if not (text.isascii() and text.isdigit()) or (sequence := int(text)) > SEQUENCE_MAX:
        raise InvalidFieldError("sequence", text, f"digits, at most {SEQUENCE_MAX}")
    return Mark(event.source, sequence)


def is_seen(owner: Task | PartitionState, mark: Mark) -> bool:
    """Tell whether an event with this mark was folded already."""
    if mark.sequence is not None:
        return mark.sequence <= owner.sequences.get(mark.source, -1)
    return owner.recent is not None and mark.hashed in owner.recent


def remember(owner: Task | PartitionState, mark: Mark, recent_max: int) -> None:
    """Note that the event with this mark is folded."""
    if mark.sequence is not None:
        if mark.source not in owner.sequences and len(owner.sequences) >= SOURCES_MAX:
            del owner.sequences[next(iter(owner.sequences))]
        owner.sequences[mark.source] = mark.sequence
        return
    if owner.recent is None:
        owner.recent = []
    owner.recent.append(mark.hashed)
    if len(owner.recent) > recent_max:
        del owner.recent[0]
