"""What was decided, kept fresh in memory: reading it is a dictionary look-up.

How soon a block holds: the ledger decides some ten milliseconds after the usage event, the decision
is here a few later, and the enforcer acts when it next looks. What it uses until then is beyond the
limit: a stop that does not wait cannot hold a task to its limit exactly. The overshoot is measured
per block and published in `lifecycle`. So look before each call of a model, and report usage as it
comes, not at the end of a phase.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

from msgspec import Struct, structs

from schemas.envelope import Envelope
from schemas.fields import Fail, Mode, Verdict
from schemas.outputs import Decision, Heartbeat
from streams.client.answers import CONTINUE, TaskVerdict, of_decision, stale, unheld
from streams.client.completions import Completions, OnCompleted
from streams.client.feed import Feed
from streams.client.freshness import STALE_AFTER_S, Freshness
from streams.client.kill_switch import KillSwitch
from streams.client.quiet import THREAD_PREFIX, quieten_aiokafka
from streams.kafka.settings import Settings
from streams.kafka.topics import partition_for

log = logging.getLogger(__name__)

TICK_S = 1.0
RESTART_S = 5.0
TASKS_MAX = 1_000_000  # then only what holds a task is kept of those that are new
# The decision on a task's last events comes after its end, and much later where Kafka was away. Whoever
# begins a task anew under the same id so soon gets no other decisions from the ledger than of an ended one.
FORGOTTEN_FOR_S, FORGOTTEN_MAX = 600.0, 4_096

Argument = TypeVar("Argument")
OnChange = Callable[[TaskVerdict], object]
OnStale = Callable[[bool], object]


class VerdictsStats(Struct, frozen=True):
    """Tasks known now, and counts since the start.

    `unreadable` records were no decision, no heartbeat and no report; `overflowed` decisions found no
    room; of `completed` tasks the end was told to callbacks.
    """

    tasks: int
    decisions: int
    heartbeats: int
    unreadable: int
    callback_errors: int
    stale_episodes: int
    overflowed: int
    completed: int = 0


class Regime(Struct, frozen=True):
    """What stands between a decision and the answer; looked at every second, off the hot path.

    `stale_partitions` None: not even their number is known.
    """

    killed_by: str | None = None
    stale_partitions: frozenset[int] | None = frozenset()
    fail: Fail = Fail.OPEN
    mode: Mode | None = None

    @property
    def is_stale(self) -> bool:
        """Whether some partition is not heard of."""
        return self.stale_partitions is None or bool(self.stale_partitions)

    @property
    def is_plain(self) -> bool:
        """Whether a decision is the answer."""
        return self.killed_by is None and not self.is_stale

    def answer(self, decided: TaskVerdict, partition: int | None) -> TaskVerdict:
        """Return what the enforcer is told.

        Args:
            partition: the task's, where it is known; else any stale one counts.
        """
        of_stale = (
            self.is_stale
            if partition is None or self.stale_partitions is None
            else partition in self.stale_partitions
        )
        told = stale(decided, self.fail, self.mode) if of_stale else decided
        return told if self.killed_by is None else unheld(told)


class Verdicts:
    """The verdict of every task, for any thread. No method raises; only `wait_ready` waits.

    No decision means continue, also while decisions are still being read: `wait_ready` first. A
    ledger is not called silent before it was for 30 s, counted from the start. From then on the
    answer is what the policy's `fail` says; see `answers.py` for how an answer follows.

    Args:
        settings: where Kafka is; None reads `STOPLOSS_*` and `stoploss.toml`.
        fail: until the first heartbeat says what the policy wants: `open` or `closed`.
        kill_switch_file: disables enforcement as long as it exists; so do the variables
            DISABLE_BUDGET_ENFORCEMENT=1 and STOPLOSS_KILL_SWITCH_FILE, and `disable_enforcement`.
        stale_after_s: how long a ledger may be silent.
        monotonic_s: a clock that never runs backwards.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        fail: Fail | str = Fail.OPEN,
        *,
        kill_switch_file: Path | str | None = None,
        stale_after_s: float = STALE_AFTER_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._fail = Fail.CLOSED if fail == Fail.CLOSED else Fail.OPEN
        self._stale_after_s = stale_after_s
        self._monotonic_s = monotonic_s
        self._switch = KillSwitch(file=kill_switch_file)
        self._completions = Completions(settings)
        self._table: dict[str, TaskVerdict] = {}
        self._loading: dict[str, TaskVerdict] | None = None
        self._partition_count = 1
        # By partition, the last input that a decision was of: what is older, and not known any more,
        # was forgotten, and a feed that connects again does not bring it back.
        self._seen: dict[int, int] = {}
        self._loading_seen: dict[int, int] = {}
        self._has_forgotten = False
        self._forgotten: dict[str, float] = {}  # lately, and when
        self._told: dict[str, tuple[TaskVerdict, TaskVerdict]] = {}
        self._regime = Regime()
        self._on_change: list[OnChange] = []
        self._on_stale: list[OnStale] = []
        self._decisions = self._heartbeats = self._unreadable = self._callback_errors = 0
        self._stale_episodes = self._overflowed = 0
        self._answer: Callable[[str, str | None], TaskVerdict] = self._answer_plainly
        self._prepare()
        self._start()
        _VERDICTS.add(self)

    def __repr__(self) -> str:
        return f"<Verdicts {self.stats} stale={self.stale} killed_by={self.killed_by}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verdict(self, task_id: str, root: str | None = None) -> TaskVerdict:
        """Return what the enforcer is told about a task, from memory.

        Args:
            root: the task family's root; says whose heartbeat counts where the task has no
                decision. Without it, and without a decision, any silent partition counts.
        """
        try:
            return self._answer(task_id, root)
        except Exception:  # noqa: BLE001 - such as a task id that cannot be one
            return self._told_of_none

    def must_stop(self, task_id: str, root: str | None = None) -> bool:
        """Whether the task must stop now."""
        return self.verdict(task_id, root).held

    def forget(self, task_id: str) -> None:
        """Say that a task has ended here and is not asked for again: its verdict leaves memory.

        Without this it leaves with the task itself, when the policy's retention is over (a day). What
        holds a task stays, and is taken in: whoever begins it anew is to be held still. Other decisions
        on it are passed over for ten minutes.
        """
        with contextlib.suppress(TypeError):  # a task id that cannot be one
            self._forgotten[task_id] = self._monotonic_s()
            self._has_forgotten = True
            for table in filter(None, (self._table, self._loading)):
                if table.get(task_id, CONTINUE).held:
                    continue
                gone = table.pop(task_id, None)
                if gone is not None and gone.held:  # it was decided just now
                    table.setdefault(task_id, gone)
            self._told.pop(task_id, None)

    @property
    def ready(self) -> bool:
        """Whether all decisions that were there at the start have been read."""
        return self._ready.is_set()

    @property
    def stale(self) -> bool:
        """Whether some partition's ledger has not been heard of for too long."""
        return self._regime.is_stale

    @property
    def killed_by(self) -> str | None:
        """What disables enforcement here: a variable, a file, a call; None where nothing does."""
        return self._regime.killed_by

    @property
    def stats(self) -> VerdictsStats:
        """Counts since the start."""
        return VerdictsStats(
            tasks=len(self._table),
            decisions=self._decisions,
            heartbeats=self._heartbeats,
            unreadable=self._unreadable + self._completions.unreadable,
            callback_errors=self._callback_errors + self._completions.callback_errors,
            stale_episodes=self._stale_episodes,
            overflowed=self._overflowed,
            completed=self._completions.completed,
        )

    def on_change(self, callback: OnChange) -> None:
        """Call `callback` with each new verdict, on the verdicts' thread: it must not take long.

        After loading it is called once for each task whose verdict is not continue.
        """
        self._on_change.append(callback)

    def on_stale(self, callback: OnStale) -> None:
        """Call `callback` with True when the feed becomes stale, with False when it is fresh."""
        self._on_stale.append(callback)

    def on_completed(self, callback: OnCompleted) -> None:
        """Call `callback(task_id, summary, link)` when a task has ended and its report is there.

        `summary` are the report's three lines; `link` leads to the report, None where no `report_url`
        is set. It is called once for each task of the system that ends from now on, some two seconds
        after its end, on a thread for this alone. `reports` is read from the first callback on.
        """
        self._completions.add(callback)

    def disable_enforcement(self) -> None:
        """Hold nobody in this process from now on; verdicts are still shown."""
        self._switch.call(disabled=True)
        self._apply(structs.replace(self._regime, killed_by=self._switch.by))

    def enable_enforcement(self) -> None:
        """Take `disable_enforcement` back; variable and file still count."""
        self._switch.call(disabled=False)
        self._apply(structs.replace(self._regime, killed_by=self._switch.by))

    def wait_ready(self, timeout_s: float = 10.0) -> bool:
        """Wait until all decisions that were there at the start are known; whether they are."""
        return self._ready.wait(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop reading; the last answers stay."""
        self._closing.set()
        with contextlib.suppress(RuntimeError):  # its loop has ended already
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._completions.close(timeout_s)

    # What follows answers.

    def _answer_plainly(self, task_id: str, _root: str | None) -> TaskVerdict:
        return self._table.get(task_id, CONTINUE)

    def _answer_by_regime(self, task_id: str, root: str | None) -> TaskVerdict:
        decided = self._table.get(task_id)
        regime = self._regime
        if decided is None:
            if root is None or regime.stale_partitions is None:
                return self._told_of_none
            return regime.answer(CONTINUE, partition_for(root.encode(), self._partition_count))
        told = self._told.get(task_id)
        if told is not None and told[0] is decided:
            return told[1]
        answer = regime.answer(decided, decided.partition)
        if regime is self._regime:
            self._told[task_id] = decided, answer
        return answer

    # What follows runs on the verdicts' thread.

    def loading(self, partitions: range) -> None:
        """Part of `feed.Listener`."""
        if self._partition_count != len(partitions):
            self._seen = {}  # tasks are in other partitions now
        self._partition_count = len(partitions)
        self._loading_seen = dict(self._seen)
        self._freshness.expect(partitions)
        self._loading = {}

    def decided(self, decision: Envelope[Decision], partition: int) -> None:
        """Part of `feed.Listener`."""
        self._decisions += 1
        answer = of_decision(decision.data, decision.id, partition)
        table = self._table if self._loading is None else self._loading
        task_id = decision.data.task_id
        seen = self._seen if self._loading is None else self._loading_seen
        seen[partition] = decision.data.input.offset
        if (
            not answer.held
            and task_id not in table
            and self._is_forgotten(decision.data, partition)
        ):
            return
        if len(table) >= TASKS_MAX and task_id not in table and not answer.held:
            self._overflowed += 1
            return
        table[task_id] = answer
        if self._loading is None:
            self._call_on_change(answer)

    def _is_forgotten(self, decision: Decision, partition: int) -> bool:
        """Whether it comes late, or is read again only because the feed has connected again.

        An input may cause several decisions: of the last one that was seen, some may be new.
        """
        return decision.task_id in self._forgotten or (
            self._loading is not None
            and self._has_forgotten
            and decision.task_id not in self._table
            and decision.input.offset < self._seen.get(partition, 0)
        )

    def left(self, task_id: str) -> None:
        """Part of `feed.Listener`."""
        table = self._table if self._loading is None else self._loading
        table.pop(task_id, None)
        self._told.pop(task_id, None)

    def loaded(self) -> None:
        """Part of `feed.Listener`."""
        assert self._loading is not None
        before, self._table, self._loading = self._table, self._loading, None
        self._seen = self._loading_seen
        self._told = {}
        self._ready.set()
        for task_id, answer in self._table.items():
            known = before.get(task_id, CONTINUE)
            if (answer.decision_id, answer.verdict) != (known.decision_id, known.verdict) and (
                answer.verdict is not Verdict.CONTINUE or known is not CONTINUE
            ):
                self._call_on_change(answer)

    def heard(self, partition: int, heartbeat: Heartbeat) -> None:
        """Part of `feed.Listener`."""
        self._freshness.arrived(partition, heartbeat)
        self._heartbeats += 1
        if not self._regime.is_plain:
            self._apply(self._regime_now())

    def unreadable(self, what: str) -> None:
        """Part of `feed.Listener`."""
        self._unreadable += 1
        if self._unreadable == 1:
            log.error("a record that cannot be read is passed over, more are counted: %s", what)

    def _call_on_change(self, decided: TaskVerdict) -> None:
        told = self._regime.answer(decided, decided.partition)
        for callback in self._on_change:
            self._call(callback, told)

    def _call(self, callback: Callable[[Argument], object], argument: Argument) -> None:
        try:
            callback(argument)
        except Exception:  # the enforcer's own, and not to end the feed
            self._callback_errors += 1
            log.exception("a callback of verdicts failed")

    def _regime_now(self) -> Regime:
        freshness = self._freshness
        stale_partitions = freshness.stale_partitions()
        return Regime(self._switch.by, stale_partitions, freshness.fail, freshness.mode)

    def _apply(self, regime: Regime) -> None:
        """Answer by `regime` from now on."""
        with self._applying:
            before = self._regime
            if regime == before:
                return
            self._regime = regime
            self._told = {}
            self._told_of_none = regime.answer(CONTINUE, None)
            self._use_regime()
        if regime.killed_by != before.killed_by:
            state = f"disabled by {regime.killed_by}" if regime.killed_by else "enabled"
            log.warning("budget enforcement is %s", state)
        if regime.is_stale != before.is_stale:
            self._said_stale(regime)

    def _use_regime(self) -> None:
        if self._regime.is_plain:
            self._answer = self._answer_plainly
        else:
            self._answer = self._answer_by_regime

    def _said_stale(self, regime: Regime) -> None:
        if regime.is_stale:
            self._stale_episodes += 1
            silent = regime.stale_partitions
            shown = "all" if silent is None else ", ".join(map(str, sorted(silent)))
            log.warning("no heartbeat of partitions %s: verdicts fail %s", shown, regime.fail.value)
        else:
            log.warning("heartbeats are heard again")
        for callback in self._on_stale:
            self._call(callback, regime.is_stale)

    def _prepare(self) -> None:
        """Have a thread's means anew: at the start, and in a forked child."""
        self._applying = threading.RLock()
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._freshness = Freshness(self._monotonic_s, self._fail, self._stale_after_s)
        self._partition_count = 1
        self._told_of_none = CONTINUE
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        name = f"{THREAD_PREFIX}verdicts"
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._switch.look()
        self._apply(self._regime_now())

    def _start(self) -> None:
        self._thread.start()

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections alone; read anew from the first question on."""
        _LEFT_TO_PARENT.append((self._loop, self._task, *self._completions.after_fork_in_child()))
        self._prepare()
        self._answer = self._answer_after_start

    def _answer_after_start(self, task_id: str, root: str | None) -> TaskVerdict:
        self._use_regime()
        self._start()
        self._completions.start()
        return self._answer(task_id, root)

    def _main(self) -> None:
        quieten_aiokafka()
        while not self._closing.is_set():
            try:
                asyncio.run(self._run())
            except asyncio.CancelledError:
                return
            except Exception:  # a defect of ours, which the enforcer must not notice
                log.exception("the verdicts failed and start again")
                self._loading = None
                self._closing.wait(RESTART_S)

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._closing.is_set():
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            group.create_task(Feed(self._settings, self).run())

    async def _tick(self) -> None:
        while True:
            self._switch.look()
            self._apply(self._regime_now())
            self._trim_forgotten()
            await asyncio.sleep(TICK_S)

    def _trim_forgotten(self) -> None:
        forgotten = list(self._forgotten.copy().items())  # any thread adds to it
        since_s = self._monotonic_s() - FORGOTTEN_FOR_S
        for index, (task_id, at_s) in enumerate(forgotten, FORGOTTEN_MAX - len(forgotten)):
            if index >= 0 and at_s > since_s:
                break
            self._forgotten.pop(task_id, None)


_VERDICTS: weakref.WeakSet[Verdicts] = weakref.WeakSet()
_LEFT_TO_PARENT: list[object] = []  # their finalizers would close what is not ours


def _after_fork() -> None:
    for verdicts in list(_VERDICTS):
        verdicts.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
