"""Decisions and heartbeats, said by a test instead of a ledger that would have to decide them."""

from types import TracebackType
from typing import Self

import aiokafka
import msgspec

from schemas.envelope import Envelope
from schemas.fields import Fail, Mode, UnenforcedReason, Verdict
from schemas.outputs import Decision, Heartbeat, InputRef, PolicyRef
from schemas.topics import Topic
from streams.kafka.settings import Settings

TIME = "2026-01-01T00:00:00.000Z"


class Ledger:
    """Writes as the ledger does: decisions in transactions, heartbeats outside."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._number = 0
        self._transactional = aiokafka.AIOKafkaProducer(
            **settings.producer_kwargs(), transactional_id=settings.transactional_id(0)
        )
        self._plain = aiokafka.AIOKafkaProducer(**settings.producer_kwargs())

    async def __aenter__(self) -> Self:
        await self._transactional.start()
        await self._plain.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._transactional.stop()
        await self._plain.stop()

    async def decide(self, *verdicts: tuple[str, Verdict], abort: bool = False) -> None:
        await self._transactional.begin_transaction()
        for task_id, verdict in verdicts:
            await self._send(task_id, msgspec.json.encode(self._decision(task_id, verdict)))
        if abort:
            await self._transactional.abort_transaction()
        else:
            await self._transactional.commit_transaction()

    async def forget(self, task_id: str) -> None:
        async with self._transactional.transaction():
            await self._send(task_id, None)

    async def write(self, task_id: str, value: bytes) -> None:
        async with self._transactional.transaction():
            await self._send(task_id, value)

    async def beat(
        self, *partitions: int, fail: Fail = Fail.OPEN, mode: Mode = Mode.ENFORCE
    ) -> None:
        for partition in partitions:
            heartbeat = Heartbeat(mode=mode, fail=fail, clock=TIME, next_offset=1)
            subject = f"partition/{partition}"
            envelope = Envelope(
                id=f"{partition}-1-0",
                source="ledger",
                type="stoploss.heartbeat",
                subject=subject,
                time=TIME,
                data=heartbeat,
            )
            await self._plain.send_and_wait(
                self._settings.topic(Topic.HEARTBEATS),
                msgspec.json.encode(envelope),
                subject.encode(),
            )

    def _decision(self, task_id: str, verdict: Verdict) -> Envelope[Decision]:
        self._number += 1
        decision = Decision(
            task_id=task_id,
            number=self._number,
            verdict=verdict,
            previous=Verdict.CONTINUE,
            enforced=task_id != "OBSERVED",
            unenforced_reason=UnenforcedReason.OBSERVE if task_id == "OBSERVED" else None,
            message=f"{verdict.value}: THINK",
            mode=Mode.ENFORCE,
            policy=PolicyRef("1", "abc"),
            limits_version=1,
            input=InputRef(0, self._number),
        )
        return Envelope(
            id=f"0-{self._number}-0",
            source="ledger",
            type="stoploss.decision",
            subject=task_id,
            time=TIME,
            data=decision,
        )

    async def _send(self, task_id: str, value: bytes | None) -> None:
        await self._transactional.send_and_wait(
            self._settings.topic(Topic.DECISIONS), value, task_id.encode()
        )
