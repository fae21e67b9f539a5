"""Who gets which partitions: evenly, and as few of them move as can be."""

from types import SimpleNamespace

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from streams.ledger.shares import Held, Sharing, share_out

HELD_BY = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.dictionaries(st.integers(0, 14), st.integers(0, 5)),
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
        pytest.param(
            2,
            {"a": {0: 9}, "b": {0: 12}},
            {"a": [1], "b": [0]},
            id="of two who say they have it, who has come further",
        ),
        pytest.param(1, {"a": {}, "b": {0: 0}}, {"a": [], "b": [0]}, id="more members than work"),
        pytest.param(2, {"a": {7: 9}}, {"a": [0, 1]}, id="what is no partition any more"),
    ],
)
def test_what_can_stay_stays(
    partitions: int, held_by: dict[str, Held], shares: dict[str, list[int]]
) -> None:
    assert share_out(range(partitions), held_by) == shares


@given(partitions=st.integers(0, 12), held_by=HELD_BY)
def test_every_partition_has_one_owner_and_nobody_has_two_more_than_another(
    partitions: int, held_by: dict[str, dict[int, int]]
) -> None:
    shares = share_out(range(partitions), held_by)
    assert shares.keys() == held_by.keys()
    assert sorted(one for share in shares.values() for one in share) == list(range(partitions))
    counts = [len(share) for share in shares.values()]
    assert max(counts) - min(counts) <= 1


@given(partitions=st.integers(0, 12), members=st.integers(1, 6))
def test_who_shares_out_again_moves_nothing(partitions: int, members: int) -> None:
    first = share_out(range(partitions), {str(member): {} for member in range(members)})
    held_by = {member: dict.fromkeys(share, 0) for member, share in first.items()}
    assert share_out(range(partitions), held_by) == first


def test_the_leader_hears_what_each_member_has_and_an_older_one_says_nothing() -> None:
    ours = Sharing("events", lambda: {1: 70}).metadata({"events"})
    older = ConsumerProtocolMemberMetadata(0, ["events"], b"")
    stranger = ConsumerProtocolMemberMetadata(0, ["decisions"], b"")
    members = {
        "a-older": ConsumerProtocolMemberMetadata.decode(older.encode()),
        "ours": ConsumerProtocolMemberMetadata.decode(ours.encode()),
        "stranger": stranger,
    }
    cluster = SimpleNamespace(partitions_for_topic={"events": {0, 1}}.get)
    found = Sharing("events", dict).assign(cluster, members)
    assert {name: [tp.partition for tp in one.partitions()] for name, one in found.items()} == {
        "a-older": [0],
        "ours": [1],
        "stranger": [],
    }
