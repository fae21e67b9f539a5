"""What a view does about the keys that it finds."""

import pytest

from streams.view.keys import LAYOUT
from streams.view.meta import (
    ALIVE_WITHIN_MS,
    FIELDS,
    STALE_AFTER_MS,
    WRITING,
    Step,
    begun,
    damage,
    is_readable,
    judge,
)

NOW_MS = 1_795_000_000_000
OURS = {
    "fence": "17", "cluster": "a", "layout": str(LAYOUT), "at_ms": str(NOW_MS - 1),
    "began_ms": "5", "read": "10/2", "state": "following", "turn": "3", "why": "asked for",
}  # fmt: skip


def without(name: str) -> dict[str, str]:
    return {field: value for field, value in OURS.items() if field != name}


@pytest.mark.parametrize(
    ("found", "wanted", "step"),
    [
        pytest.param({}, None, Step.REBUILD, id="an empty Redis"),
        *(
            pytest.param(without(name), None, Step.REBUILD, id=f"somebody has taken away {name}")
            for name in FIELDS
        ),
        pytest.param(OURS, None, Step.FOLLOW, id="ours"),
        pytest.param(OURS, "asked for", Step.REBUILD, id="ours, and somebody wants a rebuild"),
        pytest.param(OURS | {"layout": "0"}, None, Step.REBUILD, id="of another version"),
        pytest.param(OURS | {"fence": "clearing 17"}, None, Step.CLEAR, id="half deleted"),
        pytest.param(
            OURS | {"at_ms": str(NOW_MS - STALE_AFTER_MS - 1)}, None, Step.REBUILD,
            id="so old that topics have forgotten what left meanwhile",
        ),
        pytest.param(
            OURS | {"at_ms": str(NOW_MS - STALE_AFTER_MS)}, None, Step.FOLLOW, id="just not so old"
        ),
        pytest.param(
            OURS | {"cluster": "b", "at_ms": str(NOW_MS - ALIVE_WITHIN_MS)}, None, Step.REBUILD,
            id="another cluster's, and nobody is at work there",
        ),
        pytest.param(
            OURS | {"cluster": "b"}, None, Step.LEAVE, id="another cluster's, and a view is at work"
        ),
        pytest.param(
            OURS | {"cluster": "b"}, "asked for", Step.LEAVE, id="which no wish takes away"
        ),
    ],
)  # fmt: skip
def test_a_view_takes_what_is_its_own(
    found: dict[str, str], wanted: str | None, step: Step
) -> None:
    assert judge(found, "a", NOW_MS, wanted).step is step


@pytest.mark.parametrize("fence", [str(NOW_MS + 5), f"clearing {NOW_MS + 5}"])
def test_a_rebuild_has_a_fence_that_nobody_has_seen(fence: str) -> None:
    assert begun({"fence": fence}, "a", NOW_MS, "why")["fence"] == f"clearing {NOW_MS + 6}"


def test_a_rebuild_of_an_emptied_redis_has_one_as_well() -> None:
    assert begun({}, "a", NOW_MS, "why")["fence"] == f"clearing {NOW_MS}"


@pytest.mark.parametrize(
    ("found", "is_one"),
    [
        pytest.param({}, True, id="an empty Redis"),
        pytest.param(OURS | {"turn": "3", "state": "rebuilding"}, True, id="ours"),
        pytest.param(OURS | {"fence": "clearing 17"}, True, id="half deleted"),
        pytest.param(OURS | {"at_ms": "soon"}, False, id="a time that is none"),
        pytest.param(OURS | {"turn": "-3"}, False, id="a turn that nobody counts to"),
        pytest.param(OURS | {"turn": str(2**63 - 1)}, False, id="a turn after which there is none"),
        pytest.param(OURS | {"fence": "closed"}, False, id="a fence that nobody has put up"),
        pytest.param(OURS | {"state": "asleep"}, False, id="a state that there is not"),
    ],
)
def test_what_no_view_has_written_is_not_read(found: dict[str, str], *, is_one: bool) -> None:
    assert is_readable(found) == is_one


@pytest.mark.parametrize(
    ("meta", "offsets", "says"),
    [
        pytest.param(OURS, ("3", "7"), None, id="nothing was changed"),
        pytest.param(OURS, ("3", "6"), "positions are not", id="a position was set back"),
        pytest.param(OURS | {"read": WRITING}, ("3", "7"), "broken off", id="half a step is there"),
        pytest.param(without("cluster"), ("3", "7"), "`meta` lacks cluster", id="a field is gone"),
    ],
)
def test_a_reader_is_told_what_is_damaged(
    meta: dict[str, str], offsets: tuple[str, str], says: str | None
) -> None:
    positions = dict(zip(("a/0", "b/0"), offsets, strict=True))
    found = damage(meta, positions, {"a/0": "3 1", "b/0": "7 1"})
    assert found is None if says is None else says in str(found)
