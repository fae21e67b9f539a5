"""Which tasks are judged where the first inputs are gone."""

from streams.verify.independent.expected import Expected
from streams.verify.independent.found import Found
from streams.verify.independent.partition import Partition
from streams.verify.independent.wire import Data


class Scope:
    """Which tasks are judged from a checkpoint on: those that began after it, with whole families.

    A child's usage counts in its parents, and a parent's block is its children's. A task began
    afterwards where `lifecycle` says so at the same input at which it is opened here.
    """

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self.judged: set[str] = set()
        self.unjudged: set[str] = set()
        self.judged_count = self.unjudged_count = 0  # of those that are forgotten
        self._leaving: list[str] = []

    @property
    def counts(self) -> tuple[int, int]:
        """How many tasks were judged, and how many met that were not; one of two lives counts twice."""
        return self.judged_count + len(self.judged), self.unjudged_count + len(self.unjudged)

    def learn(self, expected: list[Expected], lifecycle: list[Found]) -> list[Expected]:
        """Look at which tasks an input has opened; return what is judged of what it has caused."""
        self._let_go()
        begun = {record.key for record in lifecycle if _is_beginning(record.data)}
        for one in expected:
            if one.topic == "lifecycle" and one.key is not None and _is_beginning(one.facts):
                (self.judged if one.key in begun else self.unjudged).add(one.key)
        self.unjudged.update(self._partition.unsure)
        if (claimed := self._partition.claimed) is not None and claimed[0] not in self.judged:
            # Its life is not known: it may have become a child also where its start is refused here,
            # or was seen before.
            self.unjudged |= self._partition.family(claimed[1])
        for task_id in [*self._partition.linked, *self._partition.unsure]:
            family = self._partition.family(task_id)
            if family & self.unjudged:
                self.unjudged |= family
        self.judged -= self.unjudged
        return [one for one in expected if self._expects(one)]

    def _let_go(self) -> None:
        """Keep no names of tasks that are forgotten, but those of the last input are still asked for."""
        for task_id in self._leaving:
            if task_id not in self._partition.tasks:
                self.judged_count += task_id in self.judged
                self.unjudged_count += task_id in self.unjudged
                self.judged.discard(task_id)
                self.unjudged.discard(task_id)
        self._leaving, self._partition.forgotten = self._partition.forgotten, []

    def _expects(self, one: Expected) -> bool:
        if one.topic == "dead-letters":
            subject = self._partition.subject
            return subject in {None, self._partition.own_subject} or subject in self.judged
        return one.key in self.judged

    def finds(self, topic: str, record: Found) -> bool:
        """Tell whether a record that is there is judged; what is not ours always is."""
        if topic == "dead-letters":
            task_id = record.data.get("task_id")
            return task_id is None or task_id in self.judged
        return record.place is None or record.key in self.judged


def _is_beginning(data: Data) -> bool:
    return data.get("change") == "started" and data.get("limits_version") == 1
