"""A step is whole, or is found out; no number is too large; what somebody else wrote is named."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from schemas.fields import COST_USD_MAX
from schemas.topics import Topic
from streams.local.redis import RedisServer
from streams.view.meta import FIELDS
from streams.view.store import DamagedError, DamagedViewError, OvertakenError, RedisUnavailableError
from streams.view.totals import NANO, Dimension
from tests.integration.view_store import CLUSTER, Shelf, shelf
from tests.integration.view_world import now_ms
from tests.unit.view.records import Kept, execution

pytestmark = pytest.mark.integration

LARGEST = 2**63 - 1  # that Redis counts to


@pytest.fixture
async def view(redis_server: RedisServer, topic_prefix: str) -> AsyncIterator[Shelf]:
    """What a view writes, which has just begun."""
    async with shelf(redis_server.url, topic_prefix) as found:
        yield found


def dear(number: int, usd: int, revision: int = 1) -> tuple[Topic, Kept]:
    """Return a run that has cost so much."""
    record = execution(
        f"TASK-{number}", revision=revision, at_ms=now_ms(), counters={"cost_usd": Decimal(usd)}
    )
    return Topic.EXECUTIONS, record


async def cost_nano_usd(view: Shelf) -> list[int]:
    return [each.cost_nano_usd for each in await view.queries.totals(Dimension.OWNER)]


@pytest.mark.parametrize("pieces", [1, 3], ids=["in one piece", "in three"])
async def test_a_day_that_costs_more_than_redis_counts_to_is_counted(
    view: Shelf, pieces: int
) -> None:
    usd = int(COST_USD_MAX) * 5_000
    assert usd * NANO < LARGEST < 3 * usd * NANO
    runs = [dear(number, usd) for number in range(3)]
    for first in range(0, 3, 3 // pieces):
        await view.show(runs[first : first + 3 // pieces])
    assert await cost_nano_usd(view) == [3 * usd * NANO]
    await view.show([dear(0, 7, revision=2), dear(1, 8, revision=2)])
    await view.show([dear(2, 9, revision=2)])
    assert await cost_nano_usd(view) == [24 * NANO]


@pytest.mark.parametrize(
    "amounts",
    [
        pytest.param([LARGEST, 1], id="just above"),
        pytest.param([-LARGEST, -2, 1], id="just below, and back"),
        pytest.param([10**30, -(10**30) + 1, 5], id="back to a small one"),
        pytest.param([10**14, -(10**14) - 10**21, 10**7], id="parts that are all nought"),
        pytest.param([10**21, -1, 1 - 10**21], id="to nothing"),
    ],
)
async def test_whole_numbers_add_up_whatever_their_length(view: Shelf, amounts: list[int]) -> None:
    key = view.keys.totals("2026-01-01", "owner")
    for count in range(1, len(amounts) + 1):
        await view.write([b"COUNT", key, b"nano_usd/ada", b"%d" % amounts[count - 1]])
        found = await view.redis.hget(key, "nano_usd/ada")
        assert found == (b"%d" % sum(amounts[:count]) if sum(amounts[:count]) else None)


@pytest.mark.parametrize("garbage", [b"a lot", b"007", b"1.5", b"", b"-0"])
async def test_what_is_no_number_of_ours_is_not_added_to(view: Shelf, garbage: bytes) -> None:
    key = view.keys.totals("2026-01-01", "owner")
    await view.redis.hset(key, "nano_usd/ada", garbage)
    with pytest.raises(DamagedError):
        await view.write([b"COUNT", key, b"nano_usd/ada", b"%d" % 10**30])
    assert await view.redis.hget(key, "nano_usd/ada") == garbage


@pytest.mark.parametrize(
    ("command", "error"),
    [
        pytest.param([b"SADD", b"%(root)stasks", b"x"], DamagedError, id="of another type"),
        pytest.param([b"NO-SUCH", b"%(root)stasks"], RedisUnavailableError, id="not allowed"),
    ],
)
async def test_a_step_that_redis_breaks_off_is_not_done_again(
    view: Shelf, command: list[bytes], error: type[Exception]
) -> None:
    root, totals = view.keys.root.encode(), view.keys.totals("2026-01-01", "owner")
    count = [b"COUNT", totals, b"tasks/ada", b"1"]
    await view.write([b"HSET", view.keys.tasks, b"TASK-1", b"{}"], count)
    step = [count, [each.replace(b"%(root)s", root) for each in command]]
    with pytest.raises(error):
        await view.write(*step)
    assert await view.redis.hget(totals, "tasks/ada") == b"2", "the commands before it stay"
    with pytest.raises(DamagedViewError, match="a step was broken off"):
        await view.queries.freshness()
    for _ in range(2):
        await view.begin()  # as after a Redis that was away: nobody knows what has happened
        with pytest.raises(DamagedError, match="a step was broken off"):
            await view.write(*step)
    assert await view.redis.hget(totals, "tasks/ada") == b"2", "and are not done twice"
    await view.begin("a step was broken off")
    await view.write(count)
    assert await view.redis.hget(totals, "tasks/ada") == b"1"
    assert await view.queries.freshness() is not None


@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_of_meta_that_is_gone_is_found_out_at_the_next_write(
    view: Shelf, field: str
) -> None:
    await view.write()
    await view.redis.hdel(view.keys.meta, field)
    with pytest.raises(DamagedViewError, match=f"the view there is damaged: `meta` lacks {field}$"):
        await view.queries.freshness()
    if field == "at_ms":
        await view.write()  # which says it anew
    else:
        with pytest.raises(OvertakenError):
            await view.write()
        await view.begin()
        assert view.standing.rebuilds_because is not None
    assert await view.queries.freshness() is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [("cluster", "another"), ("layout", "99"), ("state", "clearing"), ("why", "who knows")],
)
async def test_another_word_in_meta_is_found_out_at_the_next_write(
    view: Shelf, field: str, value: str
) -> None:
    await view.write()
    await view.redis.hset(view.keys.meta, field, value)
    with pytest.raises(DamagedError, match="`meta` does not say"):
        await view.write()
    await view.begin("`meta` does not say what the view has written")
    found = await view.queries.freshness()
    assert found is not None
    assert found.cluster == CLUSTER


async def test_a_cluster_that_no_view_has_named_is_not_waited_for(view: Shelf) -> None:
    await view.write()
    await view.redis.hset(view.keys.meta, "cluster", "another")
    await view.begin()
    assert view.standing.rebuilds_because == "`meta` names Kafka cluster another"


async def test_positions_that_were_set_back_without_a_sum_count_nothing_twice(view: Shelf) -> None:
    totals = view.keys.totals("2026-01-01", "owner")
    await view.write([b"COUNT", totals, b"tasks/ada", b"1"])
    await view.redis.hdel(view.keys.meta, "read")
    await view.redis.hset(view.keys.positions, "executions/0", 0)
    with pytest.raises(DamagedError, match="the positions are not those"):
        await view.write([b"COUNT", totals, b"tasks/ada", b"1"])
    assert await view.redis.hget(totals, "tasks/ada") == b"1"


async def test_a_turn_after_which_there_is_none_is_begun_anew(view: Shelf) -> None:
    await view.write()
    await view.redis.hset(view.keys.meta, "turn", LARGEST)
    with pytest.raises(OvertakenError):
        await view.write()
    await view.begin()
    await view.write()


@pytest.mark.parametrize(
    ("key", "garbage"),
    [("meta", b"\xff"), ("positions", b"\xff"), ("progress", b"soon"), ("unreadable", b"many")],
)
async def test_a_reader_names_what_is_damaged(view: Shelf, key: str, garbage: bytes) -> None:
    await view.write()
    await view.redis.hset(f"{view.keys.root}{key}", "executions/0", garbage)
    with pytest.raises(DamagedViewError, match="the view there is damaged: "):
        await view.queries.freshness()
    await view.redis.set(f"{view.keys.root}{key}", garbage)
    with pytest.raises(DamagedViewError, match="a key has another type than we gave it"):
        await view.queries.freshness()


async def test_a_sum_that_is_none_is_named_as_well(view: Shelf) -> None:
    await view.show([dear(1, 1)])
    (key,) = [key async for key in view.redis.scan_iter(match=f"{view.keys.root}totals:*:owner")]
    await view.redis.hset(key, "executions/ada", "a lot")
    with pytest.raises(DamagedViewError, match="a key holds what we did not write"):
        await view.queries.totals(Dimension.OWNER)
