"""What operators write to every partition, said again until it is known to be there."""

import asyncio
import time

import msgspec

from schemas.envelope import Envelope, rfc3339
from schemas.errors import UnavailableError
from schemas.events import PolicySetData, partition_subject
from schemas.topics import Topic
from streams.budget.policy import Policy, policy_json
from streams.kafka.ports import Record
from streams.kafka.settings import Settings
from streams.kafka.together import write_together

WITHIN_S = 20.0
AGAIN_AFTER_S = 0.5
AGAIN = 5


async def set_policy(settings: Settings, policy: Policy) -> None:
    """Have new tasks of all partitions begin by a policy; the event has the same id each time."""
    wall_ms = time.time_ns() // 1_000_000
    data = PolicySetData(
        policy=msgspec.Raw(policy_json(policy)),
        version=policy.version,
        hash=policy.hash,
        by="ada",
    )
    records = []
    for partition in range(settings.partitions):
        subject = partition_subject(partition)
        envelope = Envelope(
            id=f"policy-{wall_ms}-{partition}",
            source="faults/operators",
            type="stoploss.policy.set",
            subject=subject,
            time=rfc3339(wall_ms),
            data=data,
        )
        value = msgspec.json.encode(envelope)
        records.append(Record(settings.topic(Topic.EVENTS), partition, subject.encode(), value))
    for left in range(AGAIN, -1, -1):
        try:
            await write_together(settings, records, "faults-operators", WITHIN_S)
        except UnavailableError:
            if not left:
                raise
            await asyncio.sleep(AGAIN_AFTER_S)
        else:
            return
