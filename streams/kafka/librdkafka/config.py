"""Our settings by librdkafka's names, and those of its own that its defaults are wrong for."""

import logging
from typing import Any

from schemas.topics import MESSAGE_BYTES_MAX
from streams.kafka.compression import BUILDER_BYTES, LEVEL_ALONE
from streams.kafka.reader import FETCH_BYTES_MAX, FETCH_WAIT_MS
from streams.kafka.settings import Settings

log = logging.getLogger("stoploss.kafka")

# After an outage its own 10 s would be added to the outage.
RECONNECT_BACKOFF_MS = 50
RECONNECT_BACKOFF_MS_MAX = 500
# After a commit the broker answers the next transaction's first request with
# CONCURRENT_TRANSACTIONS while it writes its markers: librdkafka comes again after 20 ms, which it
# cannot be told otherwise; for every other request, after this.
RETRY_BACKOFF_MS = 10
# It reads ahead on its own threads. By default up to 64 MB, and once there it looks again after 1 s.
# More often than a few times in what it has read ahead costs only CPU: 2 ms cost 2.6 µs an event.
READ_AHEAD_KB = 8 * 1024
READ_AHEAD_RECORDS = 20_000
READ_AHEAD_PAUSE_MS = 20
# It checks a record before it is compressed, and the broker after: only the broker's counts.
UNCOMPRESSED_BYTES_MAX = 100 * 1024 * 1024
# What waits to be sent; a batch of more is handed over in parts.
QUEUE_BYTES_MAX = 2 * UNCOMPRESSED_BYTES_MAX
# Whoever commits flushes, and a flush does not wait for company; until then the longer, the fuller.
LINGER_MS = 1_000


class _Said:
    """What it says of connections, in debug lines: what we wait for, we hear of as an error."""

    def log(self, _level: int, message: str, *arguments: object) -> None:
        log.debug(message, *arguments)


def client_config(settings: Settings, role: str) -> dict[str, Any]:
    """Return what a producer and a consumer both take."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": f"{settings.client_id}-{role}",
        "security.protocol": settings.security_protocol,
        "reconnect.backoff.ms": RECONNECT_BACKOFF_MS,
        "reconnect.backoff.max.ms": RECONNECT_BACKOFF_MS_MAX,
        "retry.backoff.ms": RETRY_BACKOFF_MS,
        "socket.connection.setup.timeout.ms": settings.request_timeout_ms,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "logger": _Said(),
    }
    if settings.security_protocol.startswith("SASL"):
        config |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": settings.sasl_password,
        }
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        named = {
            "ssl.ca.location": settings.ssl_cafile,
            "ssl.certificate.location": settings.ssl_certfile,
            # As with Python's own TLS: one file may hold both.
            "ssl.key.location": settings.ssl_keyfile or settings.ssl_certfile,
            "ssl.key.password": settings.ssl_key_password,
        }
        config |= {name: value for name, value in named.items() if value is not None}
    return config


def consumer_config(settings: Settings, role: str) -> dict[str, Any]:
    """Return the configuration of a consumer that is given its partition: committed records only.

    It names the group, since it must name one, and neither joins it nor commits.
    """
    return client_config(settings, role) | {
        "group.id": settings.group_id(),
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "check.crcs": True,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.min.bytes": 1,
        "fetch.message.max.bytes": FETCH_BYTES_MAX,
        "fetch.max.bytes": max(FETCH_BYTES_MAX, MESSAGE_BYTES_MAX),
        "fetch.error.backoff.ms": RECONNECT_BACKOFF_MS,
        "fetch.queue.backoff.ms": READ_AHEAD_PAUSE_MS,
        "queued.max.messages.kbytes": READ_AHEAD_KB,
        "queued.min.messages": READ_AHEAD_RECORDS,
        "socket.timeout.ms": settings.request_timeout_ms,
    }


def producer_config(settings: Settings, partition: int) -> dict[str, Any]:
    """Return the configuration of the producer that fences every other of this input partition."""
    return client_config(settings, f"ledger-{partition}") | {
        "transactional.id": settings.transactional_id(partition),
        "transaction.timeout.ms": settings.transaction_timeout_ms,
        "compression.type": "lz4",
        # Whether a dead letter passes the broker is told beforehand, by this level (`fits`); with the
        # default, one that is nearly too large would be refused, restored and refused for ever.
        "compression.level": LEVEL_ALONE,
        # Less than a record may take, which is no longer than its transaction.
        "linger.ms": min(LINGER_MS, settings.transaction_timeout_ms // 2),
        "batch.size": BUILDER_BYTES,
        "message.max.bytes": UNCOMPRESSED_BYTES_MAX,
        "queue.buffering.max.messages": 0,  # a batch has its own bounds
        "queue.buffering.max.kbytes": QUEUE_BYTES_MAX // 1024,
    }
