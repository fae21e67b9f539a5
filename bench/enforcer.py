"""The process under stress: fifty tasks at once, one thread each, with the client or without it.

Started by `bench.client_stress`. The work is pretended, by sleeping; how long is drawn from the
task's number, so that both kinds of run do the same.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import statistics
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

import msgspec
import psutil

from streams.client import Emitter, Verdicts
from streams.client.tasks import Phase
from streams.kafka.settings import load_settings

PHASES = ("STRATEGIZE", "SPEC", "PLAN", "THINK", "IMPLEMENT", "VERIFY", "REVIEW", "PR", "MONITOR")
CALLS_OF_A_PHASE = 3
CALL_S = (0.02, 0.06)
SAMPLE_EVERY_S = 0.1
DRAINED_WITHIN_S = 120.0
READY_WITHIN_S = 30.0
PACE_S = 0.05  # of each thread of a run that is to be killed


class Enforced(msgspec.Struct):
    """One run of so many seconds. Transitions are from the end of a phase's work to the beginning of the next one's.

    `stretch` is the time of all tasks, as a multiple of what their calls alone take. Memory in MB:
    after a quarter of the time, at the end of the work, and the highest. `verdicts`: tasks whose
    verdict is in memory, after a quarter and at the end.
    """

    client: bool
    seconds: float
    tasks: int
    reports: int
    transitions: int
    transition_p50_us: float
    transition_p95_us: float
    transition_p99_us: float
    transition_p999_us: float
    task_p50_s: float
    stretch: float
    cpu_s: float
    queued_max: int
    spooled_max: int
    drained_s: float
    drained: bool
    sent: int
    dropped: int
    invalid: int
    rss_mb_quarter: float
    rss_mb_end: float
    rss_mb_max: float
    verdicts_quarter: int
    verdicts_end: int


class Depth:
    """Queue, verdicts and memory, looked at ten times a second."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.queued_max = self.spooled_max = 0
        # Arrays: what a run notes for itself must not pass for what the client keeps.
        self.rss_mb = array("d")
        self.verdicts = array("q")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.rss_mb.append(self._process.memory_info().rss / 1e6)
            kept = self._client.kept()
            self.verdicts.append(kept.verdicts)
            self.queued_max = max(self.queued_max, kept.queued)
            self.spooled_max = max(self.spooled_max, kept.spooled)


class Slot(threading.Thread):
    """Works on one task after the other until the time is over."""

    def __init__(
        self, number: int, until_s: float, client: "Client", reports: Iterator[int]
    ) -> None:
        super().__init__(daemon=True)
        self._number, self._until_s, self._client = number, until_s, client
        self._reports = reports
        self.transitions_ns = array("q")
        self.tasks_s = array("d")
        self.pretended_s = 0.0
        self.said = 0

    def run(self) -> None:
        """Take tasks; the last one is finished."""
        turn = 0
        while time.monotonic() < self._until_s:
            began_s = time.perf_counter()
            self._task(f"TASK-{self._number}-{turn}")
            self.tasks_s.append(time.perf_counter() - began_s)
            turn += 1

    def _task(self, task: str) -> None:
        drawn = random.Random(task)
        left_ns: int | None = None
        with self._client.task(task) as working:
            for name in PHASES:
                with working.phase(name) as phase:
                    if left_ns is not None:
                        self.transitions_ns.append(time.perf_counter_ns() - left_ns)
                    for _ in range(CALLS_OF_A_PHASE):
                        self._call(drawn, phase)
                        working.look()
                    left_ns = time.perf_counter_ns()

    def _call(self, drawn: random.Random, phase: "Reporting") -> None:
        call_s = drawn.uniform(*CALL_S)
        time.sleep(call_s)  # noqa: TID251 - this is the pretended work
        self.pretended_s += call_s
        self.said += 1
        phase.usage(
            model="pretended",
            input_tokens=next(self._reports),  # each its own: it tells which ones arrived
            output_tokens=20,
            duration_ms=int(call_s * 1_000),
        )


class Reporting(Protocol):
    """What a call does with its phase."""

    def usage(self, *, model: str, input_tokens: int, output_tokens: int, duration_ms: int) -> None:
        """Say what was used."""


class Working(Protocol):
    """What a slot does with its task."""

    def phase(self, name: str) -> contextlib.AbstractContextManager[Reporting]:
        """Work in a phase."""

    def look(self) -> None:
        """See whether to go on."""


class Kept(msgspec.Struct, frozen=True):
    """What a client keeps now: events in memory and on disk, and verdicts."""

    queued: int = 0
    spooled: int = 0
    verdicts: int = 0


class Client(Protocol):
    """What a slot does."""

    def task(self, task: str) -> contextlib.AbstractContextManager[Working]:
        """Work on a task."""

    def kept(self) -> Kept:
        """Say what is kept."""


class Real:
    """With the client."""

    def __init__(self, emitter: Emitter, verdicts: Verdicts) -> None:
        self._emitter, self._verdicts = emitter, verdicts

    @contextlib.contextmanager
    def task(self, task: str) -> Iterator["RealTask"]:
        """See `Client.task`."""
        with self._emitter.task(task, planned_phases=list(PHASES)) as begun:
            yield RealTask(begun.phase, self._verdicts, task)
        self._verdicts.forget(task)

    def kept(self) -> Kept:
        """See `Client.kept`."""
        stats = self._emitter.stats
        return Kept(stats.queued, stats.spooled, self._verdicts.stats.tasks)


class RealTask:
    """A task that is reported."""

    def __init__(self, phase: "PhaseOf", verdicts: Verdicts, task: str) -> None:
        self.phase = phase
        self._verdicts, self._task = verdicts, task

    def look(self) -> None:
        """See `Working.look`; whatever the answer is, it goes on."""
        self._verdicts.verdict(self._task)


class PhaseOf(Protocol):
    """`Task.phase`."""

    def __call__(self, name: str, /) -> Phase:
        """Return a phase."""


class Silent:
    """Without the client: the same calls, which do nothing."""

    @contextlib.contextmanager
    def task(self, task: str) -> Iterator["Silent"]:
        """See `Client.task`."""
        del task
        yield self

    def kept(self) -> Kept:
        """See `Client.kept`."""
        return Kept()

    def phase(self, name: str) -> "contextlib.AbstractContextManager[Silent]":
        """See `Working.phase`."""
        del name
        return contextlib.nullcontext(self)

    def look(self) -> None:
        """See `Working.look`."""

    def usage(self, *, model: str, input_tokens: int, output_tokens: int, duration_ms: int) -> None:
        """See `Reporting.usage`."""


def enforce(seconds: float, tasks: int, emitter: Emitter | None, client: Client) -> Enforced:
    """Work with so many tasks at once; then wait until Kafka has what was said."""
    until_s, reports = time.monotonic() + seconds, itertools.count(1)
    slots = [Slot(number, until_s, client, reports) for number in range(tasks)]
    with Depth(client) as depth:
        for slot in slots:
            slot.start()
        for slot in slots:
            slot.join()
    cpu = psutil.Process().cpu_times()
    began_s = time.perf_counter()
    drained = emitter is None or emitter.flush(DRAINED_WITHIN_S)
    drained_s = time.perf_counter() - began_s
    took_s = sorted(itertools.chain.from_iterable(slot.tasks_s for slot in slots))
    transitions_ns = list(itertools.chain.from_iterable(slot.transitions_ns for slot in slots))
    cuts = statistics.quantiles(transitions_ns, n=1000, method="inclusive")
    stats = None if emitter is None else emitter.stats
    return Enforced(
        client=emitter is not None,
        seconds=seconds,
        tasks=len(took_s),
        reports=sum(slot.said for slot in slots),
        transitions=len(transitions_ns),
        transition_p50_us=round(cuts[499] / 1_000, 2),
        transition_p95_us=round(cuts[949] / 1_000, 2),
        transition_p99_us=round(cuts[989] / 1_000, 2),
        transition_p999_us=round(cuts[998] / 1_000, 2),
        task_p50_s=round(statistics.median(took_s), 4),
        stretch=round(sum(took_s) / sum(slot.pretended_s for slot in slots), 5),
        cpu_s=round(cpu.user + cpu.system, 2),
        queued_max=depth.queued_max,
        spooled_max=depth.spooled_max,
        drained_s=round(drained_s, 2),
        drained=drained,
        sent=0 if stats is None else stats.sent,
        dropped=0 if stats is None else stats.dropped,
        invalid=0 if stats is None else stats.invalid,
        rss_mb_quarter=round(depth.rss_mb[len(depth.rss_mb) // 4], 1),
        rss_mb_end=round(depth.rss_mb[-1], 1),
        rss_mb_max=round(max(depth.rss_mb), 1),
        verdicts_quarter=depth.verdicts[len(depth.verdicts) // 4],
        verdicts_end=depth.verdicts[-1],
    )


def report_until_killed(tasks: int, emitter: Emitter, noted: Path) -> None:
    """Report from so many threads; note each report when it was accepted: its number, and when."""
    reports = itertools.count(1)
    descriptor = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def work(slot: int) -> None:
        while True:
            number = next(reports)
            emitter.usage(f"TASK-{slot}", "THINK", input_tokens=number, output_tokens=1)
            os.write(descriptor, b"%d %d\n" % (number, time.time_ns()))
            time.sleep(PACE_S)  # noqa: TID251 - this is the pretended work

    threads = [threading.Thread(target=work, args=(slot,), daemon=True) for slot in range(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Do what the arguments say; the result goes to a file."""
    parser = argparse.ArgumentParser(prog="python -m bench.enforcer", description=__doc__)
    parser.add_argument("kind", choices=["with", "without", "killed"])
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    settings = load_settings()
    if asked.kind == "without":
        found = enforce(asked.seconds, asked.tasks, None, Silent())
    elif asked.kind == "with":
        with Verdicts(settings) as verdicts, Emitter(settings, "bench", asked.spool) as emitter:
            verdicts.wait_ready(READY_WITHIN_S)
            found = enforce(asked.seconds, asked.tasks, emitter, Real(emitter, verdicts))
    else:
        with Emitter(settings, "bench", asked.spool) as emitter:
            report_until_killed(asked.tasks, emitter, asked.out)
        return
    asked.out.write_text(json.dumps(msgspec.to_builtins(found)))


if __name__ == "__main__":
    main()
