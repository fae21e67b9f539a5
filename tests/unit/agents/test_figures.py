"""What a worker tells, its supervisor reads; what its predecessors counted is not lost."""

from streams.agents.figures import BATCHES, BEAT, DROPPED, RECORDS, RESTORED, Figures, plain, shared
from streams.agents.metrics import AgentFigures

SOURCES = [("in", 2), ("signals", 1)]


def test_what_is_written_on_one_side_is_read_on_the_other() -> None:
    values, seen = shared(SOURCES)
    told = Figures(values, SOURCES)
    told.beat({("in", 1), ("signals", 0), ("changelog", 7)}, restored=3)
    told.batch(records=10, outputs=2, refused=1, dropped=4, took_ms=5)
    assert seen.owned() == {("in", 1), ("signals", 0)}
    assert [seen[place] for place in (BEAT, RESTORED, RECORDS, BATCHES)] == [1, 3, 10, 1]
    told.beat(set(), restored=3)
    assert seen.owned() == set()


def test_a_next_worker_counts_on() -> None:
    agent = AgentFigures()
    assert (agent.counted(RECORDS), agent.took_ms) == (0, 0)
    for _ in range(2):
        worker = plain(SOURCES)
        agent.begins(worker)
        worker.batch(records=10, outputs=2, refused=1, dropped=4, took_ms=5)
    assert (agent.counted(RECORDS), agent.counted(BATCHES), agent.took_ms) == (20, 2, 5)
    assert agent.counted(DROPPED) == 8
