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
from msgspec import Struct

from schemas.refusal import UNREADABLE

Held = Mapping[int, int]
"""Partitions of `events` that a member has, each with the offset that it goes on at."""

_SAID = msgspec.json.Decoder(dict[int, int])
_VERSION = 0  # of the consumer protocol
UNKNOWN = -1  # a generation, where a ledger is too old to say it, or was never given anything
# Where the number of a partition would be: an older ledger that leads finds no such partition, and
# everything else as it knows it.
_GENERATION_KEY = -1


class Claim(Struct, frozen=True):
    """What a member says when it joins; `generation`: the group's that gave it what it has."""

    held: Held
    generation: int = UNKNOWN


def share_out(partitions: Sequence[int], claims: Mapping[str, Claim]) -> dict[str, list[int]]:
    """Return the partitions of each member; no two differ by more than one in how many they have.

    Args:
        partitions: all there are.
        claims: what each member has. Where two have the same one, one of them is a zombie: it is the
            other's, whom the group gave it later. Kafka's own protocol has the generation for the
            same reason, in a version that aiokafka does not speak: KIP-792.
    """
    held: dict[str, list[int]] = {member: [] for member in sorted(claims)}
    for partition in sorted(partitions):
        claiming = {member: claim for member, claim in claims.items() if partition in claim.held}
        if claiming:
            held[_last_owner(partition, claiming)].append(partition)
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


def _last_owner(partition: int, claims: Mapping[str, Claim]) -> str:
    """Return whom the group gave a partition last: the offset does not say it.

    Whoever fences and restores has none yet, and a partition may stand still.
    """
    # While one of them is too old to say when that was, who has come further is the best guess.
    all_known = all(claim.generation > UNKNOWN for claim in claims.values())

    def place(member: str) -> tuple[int, int, str]:
        claim = claims[member]
        return claim.generation if all_known else UNKNOWN, claim.held[partition], member

    return max(claims, key=place)


class Sharing:
    """What aiokafka's consumer calls an assignor; each consumer has one of its own.

    Args:
        topic: `events`, with its prefix.
        held: returns what this process has now.
        generation: returns that of the group which this process has joined last.
    """

    # To the broker it is the assignor that ledgers always had: theirs and ours are in one group
    # while ledgers are upgraded. Whoever leads shares out as it can; only we say what we hold.
    name = "roundrobin"

    def __init__(self, topic: str, held: Callable[[], Held], generation: Callable[[], int]) -> None:
        self._topic, self._held, self._joined = topic, held, generation
        self._given_in = UNKNOWN

    def metadata(self, topics: Iterable[str]) -> Any:  # noqa: ANN401 - aiokafka has no types
        """Return what this member says of itself when it joins."""
        said = _encode(Claim(self._held(), self._given_in))
        return ConsumerProtocolMemberMetadata(_VERSION, sorted(topics), said)

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - aiokafka has no types
        """Return what each member gets, where this one leads; strangers get nothing."""
        partitions = sorted(cluster.partitions_for_topic(self._topic) or ())
        claims = {
            member: _decode(metadata.user_data)
            for member, metadata in members.items()
            if self._topic in metadata.subscription
        }
        shares = share_out(partitions, claims)
        return {
            member: ConsumerProtocolMemberAssignment(
                _VERSION, [(self._topic, shares.get(member, []))], b""
            )
            for member in members
        }

    def on_assignment(self, assignment: Any) -> None:  # noqa: ANN401, ARG002 - as aiokafka calls it
        """Note when that was; what we hold we know better.

        When we join again is too late: whoever is out of the group is in no generation by then.
        """
        self._given_in = self._joined()


def _encode(claim: Claim) -> bytes:
    said = dict(claim.held)
    if claim.generation > UNKNOWN:
        said[_GENERATION_KEY] = claim.generation
    return msgspec.json.encode(said)


def _decode(said: bytes | None) -> Claim:
    try:
        held = _SAID.decode(said or b"")
    except UNREADABLE:  # who says nothing, or something else, is in the group as well
        return Claim({})
    return Claim(held, held.pop(_GENERATION_KEY, UNKNOWN))
