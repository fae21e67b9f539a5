"""aiokafka says the same few lines ten times a second while its broker is away.

An enforcer's log is not ours to fill: the client's threads say themselves, once, that Kafka is away
and that it is back. What aiokafka says on these threads is shown only where `streams.client` is
logged at debug level; what it says on the enforcer's own threads is not touched.
"""

import logging

THREAD_PREFIX = "stoploss-"
_CHATTY = (
    "aiokafka",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.consumer.subscription_state",
    "aiokafka.producer.producer",
    "aiokafka.producer.sender",
)
_OURS = logging.getLogger("streams.client")


def _is_wanted(record: logging.LogRecord) -> bool:
    of_ours = (record.threadName or "").startswith(THREAD_PREFIX)
    return not of_ours or _OURS.isEnabledFor(logging.DEBUG)


def quieten_aiokafka() -> None:
    """Do so; a second call changes nothing."""
    for name in _CHATTY:
        logging.getLogger(name).addFilter(_is_wanted)  # adds the same one only once
