"""Who gets which partitions: evenly, and as few of them move as can be."""

from collections.abc import Mapping
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from streams.ledger.shares import UNKNOWN, Claim, Held, Sharing, share_out

CLAIMS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.builds(
        Claim, st.dictionaries(st.integers(0, 14), st.integers(0, 5)), st.integers(UNKNOWN, 3)
    ),
    min_size=1,
)


@pytest.mark.parametrize(
    ("partitions", "held_by", "shares"),
    [
        pytest.param(4, {"a": {}, "b": {}}, {"a": [0, 1], "b": [2, 3]}, id="nobody has anything"),
        pytest.param(
            4, {"b": {1: 9, 3: 9}}, {"b": [0, 1, 2, 3]}, id="one is left and has what the dead had"
        ),
        pytest.param(
            6,
            {"a": {0: 9, 3: 9}, "b": {1: 9, 4: 9}},
            {"a": [0, 2, 3], "b": [1, 4, 5]},
            id="of three one has died: only what it had moves",
        ),
        pytest.param(
            4,
            {"a": {}, "b": {0: 9, 1: 9, 2: 9, 3: 9}},
            {"a": [2, 3], "b": [0, 1]},
            id="one joins and gets its half",
        ),
        pytest.param(
            3,
            {"a": {0: 9}, "b": {1: 9, 2: 9}},
            {"a": [0], "b": [1, 2]},
            id="what does not come out even stays where it is",
        ),
        pytest.param(1, {"a": {}, "b": {0: 0}}, {"a": [], "b": [0]}, id="more members than work"),
        pytest.param(2, {"a": {7: 9}}, {"a": [0, 1]}, id="what is no partition any more"),
    ],
)
def test_what_can_stay_stays(
    partitions: int, held_by: dict[str, Held], shares: dict[str, list[int]]
) -> None:
    claims = {member: Claim(held, 1) for member, held in held_by.items()}
    assert share_out(range(partitions), claims) == shares


@pytest.mark.parametrize(
    ("claims", "owner"),
    [
        pytest.param(
            {"heir": Claim({0: 0}, 8), "zombie": Claim({0: 900}, 7)},
            "heir",
            id="who restores it still, not the zombie that has come further",
        ),
        pytest.param(
            {"heir": Claim({0: 900}, 8), "zombie": Claim({0: 900}, 7)},
            "heir",
            id="where nothing happens: not whose name is higher",
        ),
        pytest.param(
            {"a": Claim({0: 12}), "b": Claim({0: 9})},
            "a",
            id="of two older ledgers who has come further",
        ),
        pytest.param(
            {"older": Claim({0: 12}), "zombie": Claim({0: 9}, 7)},
            "older",
            id="beside an older ledger who has come further",
        ),
    ],
)
def test_of_two_who_say_they_have_it_it_is_the_one_whom_the_group_gave_it_last(
    claims: dict[str, Claim], owner: str
) -> None:
    shares = share_out(range(len(claims)), claims)
    assert [member for member, share in shares.items() if 0 in share] == [owner]


@given(partitions=st.integers(0, 12), claims=CLAIMS)
def test_every_partition_has_one_owner_and_nobody_has_two_more_than_another(
    partitions: int, claims: dict[str, Claim]
) -> None:
    shares = share_out(range(partitions), claims)
    assert shares.keys() == claims.keys()
    assert sorted(one for share in shares.values() for one in share) == list(range(partitions))
    counts = [len(share) for share in shares.values()]
    assert max(counts) - min(counts) <= 1


@given(partitions=st.integers(0, 12), members=st.integers(1, 6))
def test_who_shares_out_again_moves_nothing(partitions: int, members: int) -> None:
    first = share_out(range(partitions), {str(member): Claim({}) for member in range(members)})
    claims = {member: Claim(dict.fromkeys(share, 0), 1) for member, share in first.items()}
    assert share_out(range(partitions), claims) == first


def sharing(held: Held, generation: int) -> Sharing:
    return Sharing("events", lambda: held, lambda: generation)


def said(user_data: bytes | None) -> ConsumerProtocolMemberMetadata:
    """Return what the leader is told by a member that says this of itself."""
    metadata = ConsumerProtocolMemberMetadata(0, ["events"], user_data)
    return ConsumerProtocolMemberMetadata.decode(metadata.encode())


def assigned(members: Mapping[str, object], partitions: int = 2) -> dict[str, list[int]]:
    cluster = SimpleNamespace(partitions_for_topic={"events": set(range(partitions))}.get)
    found = sharing({}, 1).assign(cluster, members)
    return {name: [tp.partition for tp in one.partitions()] for name, one in found.items()}


def test_the_leader_hears_what_each_member_has_and_strangers_get_nothing() -> None:
    members = {
        "a-silent": said(b""),
        "ours": sharing({1: 70}, 3).metadata({"events"}),
        "stranger": ConsumerProtocolMemberMetadata(0, ["decisions"], b""),
    }
    assert assigned(members) == {"a-silent": [0], "ours": [1], "stranger": []}


def test_the_leader_hears_in_which_generation_a_member_was_given_what_it_has() -> None:
    zombie, heir = sharing({0: 900}, 7), sharing({0: 0}, 8)
    members: dict[str, object] = {}
    for name, member in (("zombie", zombie), ("heir", heir)):
        member.on_assignment(None)
        members[name] = member.metadata({"events"})
    assert assigned(members, partitions=1) == {"zombie": [], "heir": [0]}


def test_what_a_member_was_given_is_of_that_generation_and_not_of_the_one_it_is_out_of() -> None:
    joined = [7]
    member = Sharing("events", lambda: {0: 5}, lambda: joined[-1])
    member.on_assignment(None)
    before = member.metadata({"events"})
    joined.append(UNKNOWN)
    assert member.metadata({"events"}) == before


def test_a_ledger_before_generations_and_one_with_them_understand_each_other() -> None:
    """While ledgers are upgraded the leader may be either; theirs is a number for each partition."""
    members = {"a": said(b'{"1":70}'), "b": said(b"{}")}
    assert assigned(members) == {"a": [1], "b": [0]}
    ours = sharing({1: 70}, 3)
    ours.on_assignment(None)
    older = msgspec.json.decode(ours.metadata({"events"}).user_data, type=dict[int, int])
    assert {number: older[number] for number in range(2) if number in older} == {1: 70}


@pytest.mark.parametrize("broken", [None, b"", b"{", b"\xff", b"[1]", b'{"a":1}', b'{"1":"x"}'])
def test_what_nobody_understands_claims_nothing(broken: bytes | None) -> None:
    members = {"a-broken": said(broken), "ours": sharing({0: 70}, 3).metadata({"events"})}
    assert assigned(members) == {"a-broken": [1], "ours": [0]}
