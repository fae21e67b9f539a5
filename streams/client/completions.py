"""Ends of tasks, from `reports` to whoever asked for them: three lines and a link each.

On a thread of its own, with its own connection: whatever a callback does there, verdicts stay fresh.
What was written before the first one asked is not told, and nothing after it is left out: who had to
connect again goes on where it was.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import aiokafka
import msgspec

from schemas.envelope import Envelope
from schemas.refusal import UNREADABLE
from schemas.reports import Report
from schemas.topics import Topic
from streams.client.ending import end
from streams.client.quiet import THREAD_PREFIX, quieten_aiokafka
from streams.client.reconnecting import Reconnecting
from streams.kafka.settings import Settings, load_settings

log = logging.getLogger(__name__)

OnCompleted = Callable[[str, list[str], str | None], object]

CONNECT_TIMEOUT_S = 15.0
POLL_MS = 500
RECORDS_AT_ONCE = 100
RESTART_S = 5.0
TOLD_MAX = 1_000  # a report that is written twice has the same id

_REPORT = msgspec.json.Decoder(Envelope[Report])


class Completions:
    """Tells the ends of tasks to callbacks; begins with the first of them. No method raises.

    Args:
        settings: where Kafka is; None reads `STOPLOSS_*` and `stoploss.toml`.
    """

    _thread: threading.Thread | None
    _loop: asyncio.AbstractEventLoop | None
    _task: asyncio.Task[None] | None
    _offset: int | None  # None: the end, whenever it is reached first

    def __init__(self, settings: Settings | None) -> None:
        self.completed = self.unreadable = self.callback_errors = 0
        self._settings = settings
        self._callbacks: list[OnCompleted] = []
        self._told: dict[str, None] = {}
        self._prepare()

    def __repr__(self) -> str:
        return f"<Completions {self.completed} told to {len(self._callbacks)}>"

    def add(self, callback: OnCompleted) -> None:
        """Tell it every end from now on."""
        with self._adding:
            self._callbacks.append(callback)
            self.start()

    def start(self) -> None:
        """Begin to read where somebody has asked for it, and nobody reads yet."""
        if self._callbacks and self._thread is None and not self._closing.is_set():
            name = f"{THREAD_PREFIX}completions"
            self._thread = threading.Thread(target=self._main, name=name, daemon=True)
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop reading."""
        self._closing.set()
        with contextlib.suppress(RuntimeError):  # its loop has ended already
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def after_fork_in_child(self) -> list[object]:
        """Have a thread's means anew; return the parent's, which nobody may close."""
        left: list[object] = [self._loop, self._task]
        self._prepare()
        return left

    def _prepare(self) -> None:
        self._adding = threading.Lock()
        self._closing = threading.Event()
        self._thread = self._loop = self._task = self._offset = None
        self._reconnecting = Reconnecting("ends of tasks", log)

    def _main(self) -> None:
        quieten_aiokafka()
        while not self._closing.is_set():
            try:
                asyncio.run(self._run())
            except asyncio.CancelledError:
                return
            except Exception:  # a defect of ours, which the enforcer must not notice
                log.exception("reading the ends of tasks failed and starts again")
                self._closing.wait(RESTART_S)

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._closing.is_set():
            return  # whoever closed found no task yet to cancel
        await self._reconnecting.run(self._connect_and_read)

    async def _connect_and_read(self) -> None:
        if self._settings is None:
            self._settings = load_settings()
        tasks_before = asyncio.all_tasks()
        consumer = aiokafka.AIOKafkaConsumer(**self._settings.consumer_kwargs("completions"))
        try:
            tp = aiokafka.TopicPartition(self._settings.topic(Topic.REPORTS), 0)
            consumer.assign([tp])
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await consumer.start()
                if self._offset is None:
                    self._offset = (await consumer.end_offsets([tp]))[tp]
                consumer.seek(tp, self._offset)
            self._reconnecting.is_up()
            await self._read_on(consumer, tp)
        finally:
            await end(consumer, tasks_before, at_once=False)

    async def _read_on(self, consumer: Any, tp: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_AT_ONCE)
            for record in found.get(tp, ()):
                self._offset = record.offset + 1
                if record.value is not None:
                    self._take(record.value)

    def _take(self, value: bytes) -> None:
        try:
            record = _REPORT.decode(value)
        except UNREADABLE as error:
            self.unreadable += 1
            if self.unreadable == 1:
                log.error("a report that cannot be read is passed over: %s", error)  # noqa: TRY400 - one line
            return
        report = record.data
        if not report.final or report.revision > 1 or record.id in self._told:
            return
        self._told[record.id] = None
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        self.completed += 1
        for callback in list(self._callbacks):
            try:
                callback(report.task_id, list(report.summary), report.link)
            except Exception:  # the enforcer's own, and not to end the reading
                self.callback_errors += 1
                log.exception("a callback of ends failed")
