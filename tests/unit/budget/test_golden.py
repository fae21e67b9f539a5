"""The golden log: what these events gave once, every later version has to give, byte for byte."""

import base64

import msgspec

from schemas.events import EVENT_TYPES
from schemas.topics import Topic
from tests.unit.budget import golden
from tests.unit.budget.world import World


class Line(msgspec.Struct):
    append_ms: int
    value: str


def replayed() -> World:
    world = World()
    for text in golden.INPUTS.read_bytes().splitlines():
        line = msgspec.json.decode(text, type=Line)
        world.take(base64.b64decode(line.value), line.append_ms)
    return world


def test_the_golden_log_gives_the_bytes_it_gave() -> None:
    world = replayed()
    wanted, found = golden.OUTPUTS.read_bytes().splitlines(), golden.outputs(world).splitlines()
    for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
        assert other == one, f"line {number + 1} of {golden.OUTPUTS.name}"
    assert len(found) == len(wanted)
    assert golden.state(world) == golden.STATE.read_bytes()


def test_the_golden_log_has_every_event_and_every_output() -> None:
    text = golden.INPUTS.read_bytes().splitlines()
    values = b"".join(base64.b64decode(msgspec.json.decode(line, type=Line).value) for line in text)
    assert [kind for kind in EVENT_TYPES if f'"{kind}"'.encode() not in values] == []
    found = golden.OUTPUTS.read_bytes()
    ledgers = {*["tasks", "decisions", "breaches", "executions", "lifecycle", "dead-letters"]}
    assert {topic for topic in Topic if f'"topic":"{topic}"'.encode() in found} == ledgers
    changes = "started granted reclassified explained reviewed recovered stuck ended"
    for change in [*changes.split(), "partition_checkpoint"]:
        assert f'"change":"{change}"'.encode() in found, change
    for word in ("withdrawn", "inherited_from", "overshoot", '"unenforced_reason":"ended"'):
        assert word.encode() in found, word
