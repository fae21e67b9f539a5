"""A small enforcer: it takes one task through its phases and does what the budget says.

    STOPLOSS_BOOTSTRAP_SERVERS=127.0.0.1:9092 python examples/enforcer.py TASK-1 --tokens 1500

The work is pretended, the rest is what a real one does: it reports what each call of a model has
used, as soon as it is back, and looks at the verdict before the next one.

    notice  wraps the phase up: its next call is its last
    warn    goes on
    review  goes on, and writes the explanation that is owed
    block   stops, until somebody grants more
"""

import argparse
import random
import sys
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
    return parser.parse_args()


def main() -> int:
    """Run one task."""
    options = arguments()
    with Verdicts() as verdicts, Emitter(source="example", spool_dir=options.spool) as emitter:
        if not verdicts.wait_ready(10):
            print("no verdicts yet: going on without, as the policy's fail says", file=sys.stderr)
        return Enforcer(emitter, verdicts, options).run()


if __name__ == "__main__":
    sys.exit(main())
