"""What must hold whatever comes in; each target breaks some input and says what became of it.

An answer is a reason in a few words, to be counted. Whatever is raised is a defect.
"""

import gzip
import json
import random
from pathlib import Path

import msgspec

from schemas.decode import Refusal, decode_event
from schemas.encode import encode_event
from schemas.errors import InvalidFieldError
from schemas.letters import original_bytes
from schemas.outputs import DeadLetter
from schemas.topics import Topic
from streams.budget.effects import Refused
from streams.budget.encode import EffectEncoder
from streams.budget.fold import fold
from streams.budget.policy import InvalidPolicyError, Policy, policy_from_json, policy_json
from streams.budget.restore import restore
from streams.budget.snapshot import drain_changes, partition_state
from streams.budget.state import new_partition
from streams.cli.policies import policy_of_file
from streams.importers.base import import_events
from streams.importers.lines import LogFileError
from streams.insight.policy_text import toml
from streams.kafka.producers import fits
from streams.replay.logs import EVENTS, read_events
from tests.fuzz import corpus
from tests.fuzz.mutate import Broken, Mutator
from tests.unit.budget.histories import POLICY
from tests.unit.budget.world import (
    OWN_SUBJECT,
    PARTITION,
    START_MS,
    TICK,
    Cause,
    is_refused,
    record,
    snapshot,
)

GOOD_TASK = "GOOD"
# What costs too much to look at each time is looked at by chance; each as often as it may cost.
GOOD_SHARE = 1 / 20
WHOLE_STATE_SHARE = 1 / 300
RESTORE_SHARE = 1 / 1_000
TICK_SHARE = 1 / 100


class PartitionTarget:
    """One partition, from the bytes of a record to those that are published and stored."""

    def __init__(self, chance: random.Random, policy: Policy = POLICY) -> None:
        self._chance, self._policy = chance, policy
        self._state = new_partition(PARTITION, policy)
        self._encoder = EffectEncoder(PARTITION, "stoploss.events", fits)
        self._offset = 0
        self._clock_ms = START_MS
        self._stored: dict[str, bytes] = {}
        self._good_count = 0
        self._fold(TICK, Broken(None))  # the clock moves from nothing to now once
        self._store()

    def take(self, broken: Broken) -> str:
        """Fold a record, whatever it is; return what became of it."""
        chance = self._chance
        if chance.random() < TICK_SHARE:
            self._clock_ms += chance.choice((1, 1_000, 100_000, 1_000_000))
            self._fold(TICK, Broken(None))
            self._store()
        looks_whole = chance.random() < WHOLE_STATE_SHARE
        before = snapshot(self._state) if looks_whole else None
        own_before = self._own()
        event = decode_event(broken.value, broken.headers)
        reason = self._fold(event, broken)
        if reason.startswith("refused"):
            assert not self._state.changed, "a refused event has changed a task"
            assert self._own() == own_before, "a refused event has changed the partition"
            assert before is None or snapshot(self._state) == before, "a refused event left a trace"
            if chance.random() < GOOD_SHARE:
                self.take_good()
        else:
            self._store()
        if chance.random() < RESTORE_SHARE:
            self.check_restore()
        return reason

    def take_good(self) -> None:
        """Fold an event as it should be, and see that it counts."""
        self._good_count += 1
        task = self._state.tasks.get(GOOD_TASK)
        before = 0 if task is None else task.tokens.used
        policy = self._state.active_policy if task is None else task.policy
        data = {"phase": next(iter(policy.phases)), "input_tokens": 7}
        name = f"good-{self._good_count}"
        value = record("phase.usage", GOOD_TASK, name, data, self._clock_ms, source="good")
        reason = self._fold(decode_event(value), Broken(value))
        assert reason == "folded", f"a good event was {reason}"
        used = self._state.tasks[GOOD_TASK].tokens.used
        assert used == before + 7 * policy.weights_milli[0], "a good event is lost"
        self._store()

    def check_restore(self) -> None:
        """See that a ledger that starts now goes on where this one stands."""
        self._store()
        found = restore(PARTITION, list(self._stored.items()), self._policy)
        assert snapshot(found) == snapshot(self._state), "what is stored is not the state"

    def _fold(self, event: object, broken: Broken) -> str:
        state = self._state
        cause = Cause(self._offset, broken.value, broken.key)
        effects = fold(state, event, offset=self._offset, append_ms=self._clock_ms)  # type: ignore[arg-type]  # as decoded
        self._offset += 1
        assert state.next_offset == self._offset
        letters = []
        for effect in effects:
            made = self._encoder.encode(effect, state.clock_ms, cause)
            if effect.topic is Topic.TASKS:
                self._keep(effect.key, made.value)
            elif isinstance(effect.data, Refused):
                assert made.value is not None
                letters.append(_LETTER.decode(made.value).data)
            elif made.value is not None:
                _JSON.decode(made.value)
        for letter in letters:
            assert original_bytes(letter.original) == (broken.value or b""), "not the original"
            assert letter.input.offset == cause.offset
        assert len(letters) <= 1, "two dead letters of one record"
        assert letters or not isinstance(event, Refusal), "a refusal without a dead letter"
        if letters and is_refused(effects):
            assert len(effects) == 1, "a refused event has caused something else"
            return f"refused: {letters[0].reason}"
        return "folded" if effects or state.changed else "folded, nothing to change"

    def _own(self) -> bytes:
        own = partition_state(self._state)
        own = msgspec.structs.replace(own, next_offset=0, clock="", clock_ms=0)
        return msgspec.json.encode(own)

    def _store(self) -> None:
        for effect in drain_changes(self._state):
            self._keep(effect.key, self._encoder.encode(effect, self._clock_ms).value)

    def _keep(self, key: str, value: bytes | None) -> None:
        if value is None:
            del self._stored[key]
        else:
            self._stored[key] = value


class _Letter(msgspec.Struct):
    data: DeadLetter


_LETTER = msgspec.json.Decoder(_Letter)
_JSON = msgspec.json.Decoder(msgspec.Raw)


def take_policy_file(mutator: Mutator, chance: random.Random, folder: Path) -> str:
    """Read a broken policy file; what is taken can be written, read again, and folded by."""
    file = folder / "policy.toml"
    file.write_bytes(mutator.text(chance.choice(corpus.policies())))
    try:
        policy = policy_of_file(file)
    except (InvalidPolicyError, InvalidFieldError):
        return "policy file refused"
    document = policy_json(policy)
    assert policy_from_json(document, "again").hash == policy.hash
    file.write_text(toml(json.loads(document)))
    target = PartitionTarget(chance)
    data = {"policy": msgspec.Raw(document), "version": "x", "hash": policy.hash, "by": "ada"}
    value = record("policy.set", OWN_SUBJECT, "p", data, START_MS)
    assert target.take(Broken(value)) in {"folded", "folded, nothing to change"}
    return "policy file taken"


def take_policy_event(mutator: Mutator, chance: random.Random, _folder: Path) -> str:
    """Fold a `policy.set` whose policy is broken."""
    target = PartitionTarget(chance)
    reason = target.take(Broken(policy_event(mutator, chance)))
    target.take_good() if reason.startswith("refused") else target.check_restore()
    return f"policy event {reason}"


def policy_event(mutator: Mutator, chance: random.Random) -> bytes:
    """Return a `policy.set` whose policy is broken; its hash is right wherever it has one."""
    document = policy_json(POLICY)
    document = mutator.odd(document) if chance.random() < 0.8 else mutator.text(document)
    try:
        policy_hash = policy_from_json(document, "broken").hash
    except InvalidPolicyError:
        policy_hash = "none"
    return _POLICY_EVENT.replace(b"HASH", policy_hash.encode()).replace(b"POLICY", document)


_POLICY_EVENT = record(
    "policy.set",
    OWN_SUBJECT,
    "p",
    {"policy": msgspec.Raw(b"POLICY"), "version": "x", "hash": "HASH", "by": "ada"},
    START_MS,
)


def take_log(mutator: Mutator, chance: random.Random, folder: Path) -> str:
    """Import a broken log; what is left of it gives events that can be read back."""
    kind = chance.choice(sorted(corpus.logs()))
    text = mutator.text(corpus.logs()[kind])
    if chance.random() < 0.2:
        packed = gzip.compress(text, 1)
        text = mutator.value(packed) if chance.random() < 0.5 else packed
    file = folder / "log.jsonl"
    file.write_bytes(text)
    try:
        found = read_events([file]) if kind == EVENTS else import_events(kind, [file])
        for event in found:
            again = decode_event(encode_event(event))
            # NaN is equal to nothing, and a signalling one raises where it is compared.
            assert repr(again) == repr(event) or again == event, "not read back as it was"
    except LogFileError:
        return "log not recognised"
    return "log read"
