"""Where the first inputs are gone, the second judge begins at a checkpoint, and says so."""

import functools
from dataclasses import replace

import pytest

from streams.verify.independent.judge import Judge, first_difference
from streams.verify.independent.records import Checkpoint, Records
from streams.verify.independent.times import epoch_ms
from tests.unit.verify.planted import input_of
from tests.unit.verify.random_log import envelope_of, folded, random_inputs

SEEDS = range(30)


@functools.cache
def log_since(seed: int) -> tuple[Records, Checkpoint]:
    """A log without the events before its first checkpoint, and that checkpoint.

    Operators' events do not repeat: whether one was seen before the checkpoint is not told by it.
    """
    for again in range(20):
        records = folded(random_inputs(1_000 * again + seed, 120, repeats=False, of_one_name=30))
        for _, _, value in records.outputs["lifecycle"]:
            assert value is not None
            data = envelope_of(value)["data"]
            if data["change"] == "partition_checkpoint":
                found = Checkpoint(
                    data["next_offset"], epoch_ms(data["clock"]), data["mode"], data["policies"][0]
                )
                events = [event for event in records.events if event[0] >= found.next_offset]
                return replace(records, events=events, checkpoints=[found]), found
    raise AssertionError("no log has a checkpoint")


@pytest.mark.parametrize("seed", SEEDS, ids="seed-{}".format)
def test_what_began_after_a_checkpoint_follows_from_the_inputs_since(seed: int) -> None:
    records, _ = log_since(seed)
    assert [str(one) for one in Judge(records).differences()] == []


def test_some_tasks_are_judged_since_a_checkpoint_and_some_are_not() -> None:
    judges = [Judge(log_since(seed)[0]) for seed in SEEDS]
    assert [list(judge.differences()) for judge in judges] == [[]] * len(judges)
    assert sum(judge.judged_count for judge in judges) > 20
    assert sum(judge.unjudged_count for judge in judges) > 20


@pytest.mark.parametrize("topic", ["breaches", "lifecycle", "executions", "decisions"])
def test_a_record_of_a_judged_task_that_is_missing_is_found_since_a_checkpoint(topic: str) -> None:
    found = 0
    for seed in SEEDS:
        records, checkpoint = log_since(seed)
        *others, last = [one for one in records.outputs[topic] if one[2] is not None]
        cause = input_of(last[2])
        if cause < checkpoint.next_offset:
            continue
        damaged = replace(records, outputs=dict(records.outputs) | {topic: others})
        difference = first_difference(damaged)
        found += difference is not None and difference.input_offset == cause
    assert found > 0


def test_a_dead_letter_that_is_missing_is_found_since_a_checkpoint() -> None:
    found = 0
    for seed in SEEDS:
        records, checkpoint = log_since(seed)
        letters = records.outputs["dead-letters"]
        kept = [
            one
            for one in letters
            if input_of(one[2]) < checkpoint.next_offset
            or "task_id" in envelope_of(one[2] or b"")["data"]
        ]
        if len(kept) == len(list(letters)):
            continue
        damaged = replace(records, outputs=dict(records.outputs) | {"dead-letters": kept})
        judge = Judge(damaged)
        difference = next(judge.differences(), None)
        if judge.not_judged == "policy_gone":
            continue
        assert difference is not None
        assert difference.topic == "dead-letters"
        found += 1
    assert found > 0


def test_without_the_policy_of_a_checkpoint_nothing_is_judged_and_it_says_so() -> None:
    records, checkpoint = log_since(0)
    gone = replace(checkpoint, policy_hash="0" * 16)
    judge = Judge(replace(records, checkpoints=[gone]))
    assert list(judge.differences()) == []
    assert (judge.events, judge.not_judged) == (0, "policy_gone")
    judge = Judge(replace(records, checkpoints=[]))
    assert list(judge.differences()) == []
    assert (judge.events, judge.not_judged) == (0, "no_checkpoint")


def test_it_begins_at_the_first_checkpoint_whose_policy_is_there() -> None:
    records, checkpoint = log_since(1)
    gone = replace(checkpoint, policy_hash="0" * 16, next_offset=checkpoint.next_offset - 1)
    judge = Judge(replace(records, checkpoints=[gone, checkpoint]))
    assert list(judge.differences()) == []
    assert judge.first_offset == checkpoint.next_offset
    assert judge.not_judged is None
    assert judge.events > 0
