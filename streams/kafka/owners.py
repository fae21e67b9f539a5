"""Who may own partitions of `events`: the consumer groups that are at work on them."""

from typing import Any

import aiokafka.errors
from aiokafka.admin import AIOKafkaAdminClient

from schemas.errors import UnavailableError
from schemas.topics import Topic
from streams.kafka.settings import Settings

NOT_AT_WORK = frozenset({"Empty", "Dead"})


async def groups_at_work(settings: Settings) -> set[str]:
    """Return the groups of our prefix that have members now and have read `events`.

    Two ledgers in two groups would not fence each other: the transactional id has the group in it.

    Raises:
        UnavailableError: the broker does not answer.
    """
    admin: Any = AIOKafkaAdminClient(**settings.admin_kwargs("owners"))
    try:
        await admin.start()
        names = [name for name, *_ in await admin.list_consumer_groups()]
        return {
            name
            for name in sorted(set(names))
            if name.startswith(settings.topic_prefix)
            and await _is_at_work(admin, name)
            and await _reads_events(admin, settings, name)
        }
    except (aiokafka.errors.KafkaError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Kafka at {settings.bootstrap_servers}: {error!r}") from error
    finally:
        await admin.close()


async def _is_at_work(admin: Any, group: str) -> bool:  # noqa: ANN401 - aiokafka has no types
    for response in await admin.describe_consumer_groups([group]):
        for _, name, state, *_ in response.groups:
            if name == group:
                return state not in NOT_AT_WORK
    return False


async def _reads_events(admin: Any, settings: Settings, group: str) -> bool:  # noqa: ANN401 - aiokafka has no types
    events = settings.topic(Topic.EVENTS)
    offsets = await admin.list_consumer_group_offsets(group)
    return any(tp.topic == events for tp in offsets)
