"""Whatever is said, moved to disk, sent or cut short: what Kafka gets is in order and complete."""

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.client import spool as spool_module
from streams.client.backlog import Backlog
from streams.client.spool import About, Item

ABOUT = About(source="enforcer/1", topic="stoploss.events")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 9)),
        st.tuples(st.just("take"), st.integers(1, 9)),
        st.tuples(st.sampled_from(["move", "acknowledge", "fail", "die", "end"]), st.just(0)),
    ),
    max_size=40,
)


class World:
    """Emitters that follow each other on one folder, and what Kafka got from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 0.0
        self.said = 0
        self.starts = 0
        self.got: list[int] = []
        self.safe = 0  # all up to here were on disk or on Kafka when their emitter died
        self.lost: set[int] = set()
        self.taken: list[Item] = []
        self.backlog = self.start()

    def start(self) -> Backlog:
        self.starts += 1
        backlog = Backlog(
            self.folder, f"{self.starts:04d}-e", ABOUT, monotonic_s=lambda: self.now_s
        )
        backlog.adopt()
        return backlog

    def step(self, step: str, count: int) -> None:
        match step:
            case "say":
                for _ in range(count):
                    self.said += 1
                    value = msgspec.json.encode({"subject": "TASK-1", "data": self.said})
                    self.backlog.append(Item(b"TASK-1", value))
            case "move":
                self.now_s += 2.0
                while self.backlog.spill(older_than_s=1.0):
                    pass
                self.safe = self.said
            case "take":
                self.taken = self.taken or self.backlog.peek(count, 1_000_000)
            case "acknowledge":
                self.got += [msgspec.json.decode(item.value)["data"] for item in self.taken]
                self.backlog.drop(len(self.taken))
                self.taken = []
            case "fail":
                self.taken = []
            case "die":
                self.lost |= set(range(self.safe + 1, self.said + 1)) - set(self.got)
                self.begin_again(in_order=False)
            case "end":
                self.begin_again(in_order=True)
            case _:
                raise AssertionError(step)

    def begin_again(self, *, in_order: bool) -> None:
        self.taken = []
        if in_order:
            self.backlog.close()
        else:
            self.backlog.abandon()
        self.safe = self.said
        self.backlog = self.start()


@given(steps=STEPS, segment_bytes=st.sampled_from([60, 200, 100_000]))
@settings(max_examples=150, deadline=None)
def test_kafka_gets_everything_that_was_safe_in_order(
    steps: list[tuple[str, int]], segment_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "SEGMENT_BYTES_MAX", segment_bytes)
        world = World(Path(folder))
        for step, count in [*steps, ("fail", 0)]:
            world.step(step, count)
        while not world.backlog.is_empty:
            world.step("take", 100)
            world.step("acknowledge", 0)
        world.backlog.close()
        # What is sent again after a death the ledger knows by its sequence, as it does here.
        first_times = list(dict.fromkeys(world.got))
        assert first_times == sorted(first_times)
        assert set(first_times) | world.lost == set(range(1, world.said + 1))
        if not any(step == "die" for step, _ in steps):
            assert world.got == list(range(1, world.said + 1))
        assert list(Path(folder).glob("0*")) == []
