"""A short run of faults: each named place of a commit once, and of everything else a little.

All named places of an agent's batch: `integration/test_agents.py`.
"""

import logging
from pathlib import Path

import pytest

from streams.kafka import failpoints
from streams.kafka.settings import Driver
from tests.faults.run import Step, run

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]

SESSION_MS = 4_000
RATE_PER_S = 400
# Two at a time: each of four ledgers has a partition, and comes to its point.
ALONE = "in_revocation"
PAIRED = [point for point in failpoints.LEDGER_POINTS if point != ALONE]
PAIRS: list[Step] = [
    tuple(f"kill {point}" for point in PAIRED[first : first + 2])
    for first in range(0, len(PAIRED), 2)
]
# With agents and a view beside the ledgers: they cost as much to start as all the rest.
WITH_ONLOOKERS = 1
OF_ONLOOKERS: list[Step] = [
    ("kill agent_after_outputs", "redis kill"),
    ("kill view",),
    ("kill agent", "redis positions back"),
    ("redis keys deleted",),
]
PLANS: dict[int, list[Step]] = {
    WITH_ONLOOKERS: [
        *(
            pair + others
            for pair, others in zip(PAIRS[: len(PAIRS) // 2], OF_ONLOOKERS, strict=False)
        ),
        ("zombie before_commit", "kill emitter unanswered", *OF_ONLOOKERS[-1]),
        ("policy change",),
    ],
    2: [
        *PAIRS[len(PAIRS) // 2 :],
        (f"kill {ALONE}",),
        ("rebalance remove", "kill emitter cut off"),
        ("zombie",),
    ],
    3: [
        ("kill", "kill emitter"),
        ("broker kill",),
        *((f"kill {point}",) for point in failpoints.OPERATOR_POINTS),
        ("broker restart", "spool full"),
        ("cut long",),
        ("rebalance add", "mode change"),
    ],
}


def test_the_plans_have_every_point() -> None:
    planned = {name for plan in PLANS.values() for step in plan for name in step}
    assert {f"kill {point}" for point in failpoints.COMMIT_POINTS} <= planned


# A minute each. What the drivers do differently, the second half of a commit and a zombie have all of;
# the other plans by librdkafka: `python -m tests.faults --driver librdkafka`.
@pytest.mark.parametrize(
    ("seed", "driver"), [*((seed, "aiokafka") for seed in PLANS), (2, "librdkafka")]
)
async def test_nothing_is_lost_and_nothing_is_counted_twice(
    seed: int, driver: Driver, tmp_path: Path
) -> None:
    plan = PLANS[seed]
    logging.getLogger("faults").setLevel(logging.INFO)
    result = await run(
        seed,
        tmp_path / "run",
        plan=plan,
        rate_per_s=RATE_PER_S,
        session_ms=SESSION_MS,
        driver=driver,
        with_onlookers=seed == WITH_ONLOOKERS,
    )
    assert result.differences == []
    assert result.faults == result.attempted  # else this run has shown nothing
    assert result.events.distinct > 0
    if seed == WITH_ONLOOKERS:
        told, viewed = result.told, result.viewed
        assert told is not None
        assert min(told.distinct.values()) > 0
        assert viewed is not None
        assert viewed.damaged > 0
    enforced = result.enforced
    assert enforced is not None
    assert enforced.arrived > 0
    if "kill emitter unanswered" in result.faults:
        assert enforced.repeated > 0
