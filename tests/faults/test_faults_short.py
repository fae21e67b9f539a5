"""A short run of faults: each kind of fault that there is at least once.

All named places of the batch of one stage, and what comes out: `integration/test_agents.py`.
"""

import logging
from itertools import zip_longest
from pathlib import Path

import pytest

from streams.kafka import failpoints
from streams.kafka.settings import Driver
from tests.faults.arena import RECOVERED_WITHIN_S
from tests.faults.faults import KINDS
from tests.faults.run import (
    BEGIN_WITHIN_S,
    QUIET_WITHIN_S,
    SHOWN_WITHIN_S,
    TOLD_WITHIN_S,
    Step,
    run,
)

# Whatever hangs is named by the run: each wait of it ends before the test would.
TIMEOUT_S = 1_800
assert TIMEOUT_S > (
    BEGIN_WITHIN_S + RECOVERED_WITHIN_S + 2 * QUIET_WITHIN_S + TOLD_WITHIN_S + SHOWN_WITHIN_S
)

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(TIMEOUT_S)]

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
# Never two of an agent more than there are agents. What is overwritten is found out at any time, or never,
# and whatever is found out mends what was deleted: so that comes last.
OF_ONLOOKERS: list[Step] = [
    ("kill agent_after_outputs", "kill agent_after_fold", "redis kill"),
    ("kill agent_in_outputs", "kill agent_in_table", "kill view"),
    ("kill agent_after_announcement", "kill agent_after_table", "redis positions back"),
    ("kill agent_before_commit", "kill agent_after_commit", "redis keys overwritten"),
    ("kill agent_after_restore", "kill agent", "redis turn back"),
    ("redis meta overwritten",),
    ("kill agents", "redis flush"),
    ("redis keys deleted",),
]
OF_LEDGERS: list[Step] = [
    *PAIRS[: len(PAIRS) // 2],
    ("zombie after_outputs_sent",),
    ("zombie before_commit", "kill emitter unanswered"),
    ("policy change",),
]
PLANS: dict[int, list[Step]] = {
    WITH_ONLOOKERS: [
        ledgers + others for ledgers, others in zip_longest(OF_LEDGERS, OF_ONLOOKERS, fillvalue=())
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
        ("cut short",),
        ("cut long",),
        ("rebalance add", "mode change"),
    ],
}


def test_the_plans_have_every_kind_of_fault() -> None:
    assert {name for plan in PLANS.values() for step in plan for name in step} == KINDS.keys()


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
