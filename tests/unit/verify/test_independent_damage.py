"""The second judge finds planted damage, and names the input that it comes from."""

import pytest

from streams.verify.independent.judge import first_difference
from tests.unit.verify.planted import KINDS, planted
from tests.unit.verify.random_log import random_inputs

SEEDS = range(3)
EVENTS = 90


@pytest.mark.parametrize("seed", SEEDS, ids="seed-{}".format)
@pytest.mark.parametrize("kind", KINDS)
def test_planted_damage_is_found_at_its_input(kind: str, seed: int) -> None:
    logs = (random_inputs(1_000 * seed + index, EVENTS) for index in range(60))
    damage = planted(kind, seed, logs)
    difference = first_difference(damage.records)
    assert difference is not None, "nobody noticed"
    line = str(difference)
    assert "\n" not in line
    if damage.topic:
        assert difference.topic == damage.topic, line
    if damage.at is not None:
        assert difference.input_offset is not None, line
        if damage.is_exact:
            assert difference.input_offset == damage.at, line
        else:
            assert difference.input_offset >= damage.at, line
