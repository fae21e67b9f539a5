"""What the fold gives and how long it takes, in the copy of our packages that is imported here."""

import gc
import hashlib
import sys
import time

import msgspec

from bench.load import Load, of_lives
from schemas.decode import decode_event
from streams.budget import usage
from streams.budget.encode import EffectEncoder
from streams.budget.fold import fold
from streams.budget.policy import builtin_policy
from streams.budget.snapshot import drain_changes
from streams.budget.state import new_partition

LOAD = Load(events=200_000, tasks=250)
FIRST_MS = 1_780_000_000_000
EVENTS_PER_MS = 200
BATCH_EVENTS = 10_000


class Measured(msgspec.Struct, frozen=True):
    """The digest of every byte that would have been published, and the time of an event."""

    digest: str
    fold_us: float
    is_compiled: bool


def measure() -> Measured:
    """Fold the load, and drain what changed after each batch; the bytes are made off the clock."""
    inputs = [value for _, value in of_lives(LOAD)]
    state, encoder = new_partition(0, builtin_policy()), EffectEncoder(0, "events", lambda _: True)
    digest = hashlib.sha256()
    taken_s = 0.0
    for first in range(0, len(inputs), BATCH_EVENTS):
        events = [decode_event(one, ()) for one in inputs[first : first + BATCH_EVENTS]]
        caused = []
        gc.collect()
        started_s = time.process_time()
        for offset, event in enumerate(events, first):
            effects = fold(
                state, event, offset=offset, append_ms=FIRST_MS + offset // EVENTS_PER_MS
            )
            if effects:
                caused.append((effects, state.clock_ms))
        caused.append((drain_changes(state), state.clock_ms))
        taken_s += time.process_time() - started_s
        for effects, clock_ms in caused:
            for effect in effects:
                made = encoder.encode(effect, clock_ms)
                digest.update(b"%b\n%b\n" % (made.key or b"", made.value or b""))
    is_compiled = not str(usage.__file__).endswith(".py")
    return Measured(digest.hexdigest(), taken_s / len(inputs) * 1e6, is_compiled)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure()))
