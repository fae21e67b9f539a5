"""Histories in which some events are broken: the second judge says of each what the ledger has said.

Most events are good, so that there is something for a broken one to change; and most that are broken
are refused.
"""

import random
from pathlib import Path

from streams.verify.independent.judge import first_difference
from streams.verify.independent.records import Input
from tests.fuzz import corpus
from tests.fuzz.mutate import Broken, Mutator
from tests.fuzz.target import policy_event
from tests.unit.verify.random_log import random_inputs, written

EVENTS_COUNT = 60
BROKEN_COUNT = 20
RECORDED_SHARE = 1 / 4  # of the histories have recorded events among the made ones
POLICY_SHARE = 1 / 4  # begin under a policy that was broken, where it is taken
BATCH_ENDS_SHARE = 1 / 10
SHOWN_BYTES_MAX = 1_000


def take_history(mutator: Mutator, chance: random.Random, _folder: Path) -> str:
    """Fold a history, and let the second judge judge what came of it."""
    inputs = broken_history(mutator, chance)
    records = written(inputs, ends_batch=lambda: chance.random() < BATCH_ENDS_SHARE)
    difference = first_difference(records)
    if difference is not None:
        at = difference.input_offset
        cause = b"" if at is None else (inputs[at][3] or b"")[:SHOWN_BYTES_MAX]
        headers = () if at is None else inputs[at][4]
        raise AssertionError(f"{cause!r} {headers!r}: the second judge: {difference}")
    return "a history judged"


def broken_history(mutator: Mutator, chance: random.Random) -> list[Input]:
    """Return records of `events` as a broker would hand them over, with their append times."""
    events = random_inputs(chance.getrandbits(32), EVENTS_COUNT)
    if chance.random() < RECORDED_SHARE:
        recorded = corpus.events()
        begin = chance.randrange(len(recorded))
        for place, value in enumerate(recorded[begin : begin + EVENTS_COUNT // 2]):
            events[2 * place + 1] = value, events[2 * place + 1][1]
    places = frozenset(chance.sample(range(1, EVENTS_COUNT), BROKEN_COUNT))
    if chance.random() < POLICY_SHARE:
        events[0] = policy_event(mutator, chance), events[0][1]
    inputs: list[Input] = []
    for offset, (value, at_ms) in enumerate(events):
        one = mutator.broken(value) if offset in places else Broken(value)
        inputs.append((offset, at_ms, one.key, one.value, one.headers))
    return inputs
