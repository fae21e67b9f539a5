"""A small enforcer: it takes one task through its phases and does what the budget says.

    STOPLOSS_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/enforcer.py TASK-1 --tokens 1500

The work is pretended, the rest is what a real one does: it reports what each call of a model has
used, as soon as it is back, and looks at the verdict before the next one.

    notice  wraps the phase up: its next call is its last
    warn    goes on
    review  goes on, and writes the explanation that is owed
    block   stops, until somebody grants more

With --report it waits for the report of its task, which the agents write some two seconds after the
end, and prints its three lines.
"""

import argparse
import random
import sys
import threading
import time

from schemas.fields import Verdict
from streams.client import Emitter, Verdicts
from streams.client.tasks import Phase, Task

PHASES = ("STRATEGIZE", "SPEC", "PLAN", "THINK", "IMPLEMENT", "VERIFY", "REVIEW", "PR", "MONITOR")
EXIT_DONE, EXIT_BLOCKED = 0, 1


class Blocked(Exception):  # noqa: N818 - not an error
    """The budget ledger says stop."""


class Enforcer:
    """Takes one task through its phases."""

    def __init__(self, emitter: Emitter, verdicts: Verdicts, options: argparse.Namespace) -> None:
        self._emitter = emitter
        self._verdicts = verdicts
        self._options = options
        self._random = random.Random(options.seed)  # noqa: S311 - pretended work
        self._answered: set[str | None] = set()  # ids of decisions

    def run(self) -> int:
        """Work through all phases; return the exit code."""
        options = self._options
        fields = {"complexity": options.complexity, "importance": options.importance}
        with self._emitter.task(options.task, planned_phases=options.phases, **fields) as task:
            try:
                for name in options.phases:
                    with task.phase(name) as phase:
                        self._work(task, phase)
            except Blocked as blocked:
                task.outcome("blocked")
                print(f"stopped: {blocked}")
                return EXIT_BLOCKED
        print("done")
        return EXIT_DONE

    def _work(self, task: Task, phase: Phase) -> None:
        """Call the model until the phase is finished, or its budget nearly."""
        for call in range(1, self._options.calls + 1):
            self._call_model(phase)
            verdict = self._verdicts.verdict(task.task_id, task.root)
            print(f"{phase.phase:10} call {call}: {verdict.verdict.value} {verdict.message}")
            if verdict.held:
                phase.outcome("abandoned")
                raise Blocked(verdict.message)
            if verdict.decision_id in self._answered:
                continue
            self._answered.add(verdict.decision_id)
            if verdict.explanation_owed:
                task.explain(f"{call} calls in {phase.phase}: {verdict.message}", phase=phase.phase)
            if verdict.verdict is Verdict.NOTICE:
                print(f"{phase.phase:10} wraps up")
                return

    def _call_model(self, phase: Phase) -> None:
        """Pretend to call a model, and report what it used."""
        tokens = max(1, int(self._random.gauss(self._options.tokens, self._options.tokens / 10)))
        began_ns = time.monotonic_ns()
        time.sleep(self._options.seconds)  # noqa: TID251 - this is the pretended work
        phase.usage(
            model="pretended",
            input_tokens=tokens * 3 // 4,
            output_tokens=tokens - tokens * 3 // 4,
            duration_ms=(time.monotonic_ns() - began_ns) // 1_000_000,
            files_read=1,
        )


class Report:
    """The three lines about one task, once they are there."""

    def __init__(self, verdicts: Verdicts, task_id: str) -> None:
        self._task_id = task_id
        self._is_there = threading.Event()
        verdicts.on_completed(self._completed)

    def _completed(self, task_id: str, summary: list[str], link: str | None) -> None:
        """Print it; this is called for the tasks of others, too."""
        if task_id == self._task_id:
            print("\n".join([*summary, link or "(no report_url is set)"]))
            self._is_there.set()

    def wait(self, seconds: float) -> None:
        """Wait for it."""
        if not self._is_there.wait(seconds):
            print("no report yet; `stoploss report` shows it later", file=sys.stderr)


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description="takes one pretended task through its phases")
    parser.add_argument("task", help="its id")
    parser.add_argument("--phases", nargs="+", default=list(PHASES), metavar="PHASE")
    parser.add_argument("--calls", type=int, default=3, help="of the model, per phase")
    parser.add_argument("--tokens", type=int, default=800, help="per call, about")
    parser.add_argument("--seconds", type=float, default=0.2, help="per call")
    parser.add_argument("--complexity", default="medium")
    parser.add_argument("--importance", default="medium")
    parser.add_argument("--spool", default=".stoploss/spool", help="where events wait for Kafka")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--report", type=float, metavar="SECONDS", help="wait for it so long")
    return parser.parse_args()


def main() -> int:
    """Run one task."""
    options = arguments()
    with Verdicts() as verdicts, Emitter(source="example", spool_dir=options.spool) as emitter:
        if not verdicts.wait_ready(10):
            print("no verdicts yet: going on without, as the policy's fail says", file=sys.stderr)
        report = None if options.report is None else Report(verdicts, options.task)
        code = Enforcer(emitter, verdicts, options).run()
        if report is not None:
            report.wait(options.report)
        return code


if __name__ == "__main__":
    sys.exit(main())
