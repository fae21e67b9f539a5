"""The second judge accepts what the ledger's fold writes, whatever came in."""

import pytest

from bench.load import Load, of_lives
from schemas.encode import encode_event
from schemas.envelope import epoch_ms
from schemas.topics import Topic
from streams.budget.policy import builtin_policy, policy_from_toml
from streams.cli.demo import recorded_sessions
from streams.importers.demo import demo_policy_path
from streams.verify.independent.judge import Judge
from streams.verify.independent.records import Output, Records
from tests.unit.budget import golden
from tests.unit.budget.world import OWN_SUBJECT, PARTITION, START_MS, World, record
from tests.unit.verify.random_log import Inputs, folded, policy_data, random_inputs


def differences(records: Records) -> list[str]:
    return [str(difference) for difference in Judge(records).differences()]


def written(world: World) -> Records:
    """What the ledger wrote in a story."""
    outputs: dict[str, list[Output]] = {
        "tasks": [
            (offset, key.encode(), value)
            for offset, (key, value) in enumerate(world.records.items())
        ]
    }
    for topic, one in world.output:
        if topic is not Topic.TASKS:
            found = outputs.setdefault(topic.value, [])
            found.append((len(found), one.key, one.value))
    events = [
        (offset, at_ms, None, value, ()) for offset, (value, at_ms) in enumerate(world.inputs)
    ]
    return Records(PARTITION, events, outputs)


def test_the_golden_log_follows_from_its_inputs() -> None:
    assert differences(written(golden.told())) == []


@pytest.mark.parametrize("seed", range(60), ids="seed-{}".format)
def test_what_the_fold_writes_for_a_random_history_follows_from_it(seed: int) -> None:
    assert differences(folded(random_inputs(seed, 60))) == []


def demo_inputs() -> Inputs:
    """The recorded sessions of the demo, as they are played, under their own policy."""
    policy = policy_from_toml(demo_policy_path().read_text(), "demo-policy.toml")
    played = recorded_sessions()
    start_ms = epoch_ms(played[0].event.time)
    inputs = [(record("policy.set", OWN_SUBJECT, "p", policy_data(policy), start_ms), start_ms)]
    inputs += [(encode_event(one.event), start_ms + int(one.at_s * 1000)) for one in played]
    return inputs


def test_the_recorded_sessions_of_the_demo_follow_from_their_events() -> None:
    records = folded(demo_inputs())
    assert differences(records) == []
    assert len(list(records.outputs["decisions"])) > 30, "else little was judged"


def test_an_operators_policy_stays_when_the_ledgers_built_in_one_comes_later() -> None:
    policies = [
        (policy_from_toml('version = "own"\n', "own.toml"), "ops"),
        (builtin_policy(), "stoploss/ledger"),
    ]
    inputs = [
        (record("policy.set", OWN_SUBJECT, "p", policy_data(one), START_MS, source=by), START_MS)
        for one, by in policies
    ]
    inputs += [(value, START_MS) for _, value in of_lives(Load(10, 2))]
    assert differences(folded(inputs)) == []


def test_a_load_of_many_tasks_follows_from_its_events() -> None:
    inputs = [
        (value, START_MS + index // 10)
        for index, (_, value) in enumerate(of_lives(Load(9_000, 20)))
    ]
    records = folded(inputs)
    assert differences(records) == []
    assert len(list(records.outputs["breaches"])) > 50, "else little was judged"
