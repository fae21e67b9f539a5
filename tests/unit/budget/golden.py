"""Writes the golden log anew: `python -m tests.unit.budget.golden`.

The log is a promise: what these events gave once, every later version gives as well, byte for
byte. Write it anew only where the meaning of an event was changed on purpose, and say so.
"""

import base64
from pathlib import Path

import msgspec

from streams.budget.encode import ENCODER
from streams.budget.policy import policy_from_toml
from tests.unit.budget.histories import POLICY
from tests.unit.budget.story import story
from tests.unit.budget.world import World

FOLDER = Path(__file__).parents[2] / "data" / "golden"
INPUTS, OUTPUTS, STATE = (
    FOLDER / name for name in ("events.jsonl", "outputs.jsonl", "tasks.jsonl")
)

HISTORY = """
    policy small
    mode enforce
    start  ROOT planned=A,B,C complexity=large importance=critical why=outage owner=ada team=core
    review ROOT approve                               # the policy asks for it
    start  CHILD parent=ROOT planned=A,X x=0.5 override.A.tokens=40 type=fix seq=1
    begin  ROOT A
    usage  ROOT A 100 read=60 write=10 out=33 thought=20 cost=0.0100000005 ms=900 model=m files=21
    tick   +50s
    begin  CHILD A seq=2
    usage  CHILD A 50 out=1 calls=12 seq=3
    usage  CHILD A 50 out=1 calls=12 seq=3            # twice
    end    CHILD A +40s ms=5_000 seq=4                # the estimate is taken back
    end    ROOT A ms=30_000
    begin  ROOT B
    begin  ROOT C +5s                                 # supersedes
    usage  ROOT C 200
    grant  ROOT ×1.5
    grant  ROOT task.tokens=1000 A.tokens=700
    begin  CHILD A attempt=2
    usage  CHILD A 150 out=9 attempt=2 known=false
    usage  CHILD Y 400 estimated=true                 # a phase beyond the list
    usage  CHILD Y 400
    usage  CHILD task 4                               # refused
    usage  CHILD A 1 read=2                           # refused
    garbage
    mode   observe by=breaker
    reclassify CHILD complexity=tiny importance=low by=bob reason="it is small"
    explain CHILD "it had to read it all" phase=A
    grant-all ×2
    usage  LATE A 300 ms=80_000                       # never started
    start  LATE parent=CHILD importance=critical
    tick   +3m                                        # stuck
    recover ROOT close_phase
    finish ROOT
    usage  CHILD A 4_000 +1m                          # below a task that has ended
    policy other
    start  NEXT
    begin  NEXT THINK own=-10m                        # history
    end    NEXT THINK ms=-5                           # impossible
    recover CHILD refold
    finish CHILD failed
    finish LATE
    usage  LATE A 5
    policy small
    tick   +20m                                       # forgotten; a checkpoint
    usage  LATE A 5                                   # anew
"""


def told() -> World:
    """The history, told to this version."""
    other = policy_from_toml('version = "other"', "other.toml")
    return story(HISTORY, small=POLICY, other=other)


def inputs(world: World) -> bytes:
    """Append time and original bytes of each record, a line each."""
    return b"".join(
        ENCODER.encode({"append_ms": at_ms, "value": base64.b64encode(value).decode()}) + b"\n"
        for value, at_ms in world.inputs
    )


def outputs(world: World) -> bytes:
    """Topic, key and value of each record that was published, a line each."""
    return b"".join(
        ENCODER.encode(
            {
                "topic": topic,
                "key": None if one.key is None else one.key.decode(),
                "value": None if one.value is None else msgspec.Raw(one.value),
            }
        )
        + b"\n"
        for topic, one in world.output
    )


def state(world: World) -> bytes:
    """What `tasks` holds in the end: key and value, a line each."""
    return b"".join(
        ENCODER.encode({"key": key, "value": msgspec.Raw(value)}) + b"\n"
        for key, value in sorted(world.records.items())
    )


def main() -> None:
    """Write the three files."""
    world = told()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (INPUTS, inputs(world)),
        (OUTPUTS, outputs(world)),
        (STATE, state(world)),
    ):
        path.write_bytes(content)


if __name__ == "__main__":
    main()
