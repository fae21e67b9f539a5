"""Which member of the group gets which partitions: evenly, and whoever has one keeps it.

A partition that moves is restored, and nobody decides in it meanwhile. aiokafka's own "sticky" keeps
what it has assigned in its class, for all consumers of a process together; so this is ours.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

Held = Mapping[int, int]
"""Partitions of `events` that a member has, each with the offset that it goes on at."""

_HELD = msgspec.json.Decoder(dict[int, int])
_VERSION = 0  # of the consumer protocol


def share_out(partitions: Sequence[int], held_by: Mapping[str, Held]) -> dict[str, list[int]]:
    """Return the partitions of each member; no two differ by more than one in how many they have.

    Args:
        partitions: all there are.
        held_by: what each member has. Where two have the same one, one of them is a zombie: it is
            the other's, who has come further.
    """
    held: dict[str, list[int]] = {member: [] for member in sorted(held_by)}
    for partition in sorted(partitions):
        claims = [
            (offsets[partition], member)
            for member, offsets in held_by.items()
            if partition in offsets
        ]
        if claims:
            held[max(claims)[1]].append(partition)
    least, more = divmod(len(partitions), len(held))
    # Who has most may keep one more than the others, where it does not come out even.
    by_count = sorted(held, key=lambda member: -len(held[member]))
    shares = {
        member: held[member][: least + (place < more)] for place, member in enumerate(by_count)
    }
    left = sorted(set(partitions).difference(*shares.values()))
    for place, member in enumerate(by_count):
        missing = least + (place < more) - len(shares[member])
        shares[member] += left[:missing]
        left = left[missing:]
    return {member: sorted(share) for member, share in shares.items()}


class Sharing:
    """What aiokafka's consumer calls an assignor; each consumer has one of its own.

    Args:
        topic: `events`, with its prefix.
        held: returns what this process has now.
    """

    # To the broker it is the assignor that ledgers always had: theirs and ours are in one group
    # while ledgers are upgraded. Whoever leads shares out as it can; only we say what we hold.
    name = "roundrobin"

    def __init__(self, topic: str, held: Callable[[], Held]) -> None:
        self._topic, self._held = topic, held

    def metadata(self, topics: Iterable[str]) -> Any:  # noqa: ANN401 - aiokafka has no types
        """Return what this member says of itself when it joins."""
        said = msgspec.json.encode(dict(self._held()))
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), said)

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - aiokafka has no types
        """Return what each member gets, where this one leads; strangers get nothing."""
        partitions = sorted(cluster.partitions_for_topic(self._topic) or ())
        held_by = {
            member: _held(metadata.user_data)
            for member, metadata in members.items()
            if self._topic in metadata.subscription
        }
        shares = share_out(partitions, held_by)
        return {
            member: ConsumerProtocolMemberAssignment(
                _VERSION, [(self._topic, shares.get(member, []))], b""
            )
            for member in members
        }

    def on_assignment(self, assignment: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        """Nothing is kept of it: what we hold we know better."""


def _held(said: bytes) -> Held:
    try:
        return _HELD.decode(said)
    except msgspec.MsgspecError:  # an older ledger says nothing
        return {}
