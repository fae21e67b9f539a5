"""What is measured side by side: how each is started, and how far it says it is."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from bench.compiled import sources
from bench.java import streams_command
from bench.place import Place, create_topics
from bench.positions import GroupPosition, LedgerPosition, Position
from bench.processor import Processor, ledger
from streams.kafka.settings import Driver, Settings

PEERS_PYTHON = Path(".venv-peers/bin/python")
PEERS = Path(__file__).with_name("peers")

COMMIT_MS = 100

Started = tuple[Processor, Position]
System = Callable[[Place, int], Awaitable[Started]]
"""Given a place and the commit interval in milliseconds, return a processor that is not started."""


def ours(name: str, driver: Driver, *, is_compiled: bool = False, workers: int = 1) -> System:
    """Return the ledger: the whole budget model. It chooses itself when to commit."""

    async def start(where: Place, _commit_ms: int) -> Started:
        settings = msgspec.structs.replace(where.settings, driver=driver)
        changed = {}
        if is_compiled:
            sources.check()
            changed["PYTHONPATH"] = str(sources.FOLDER)
        processor = ledger(settings, where.folder, workers=workers, name=name, changed=changed)
        return processor, LedgerPosition(settings)

    return start


async def quix(where: Place, commit_ms: int) -> Started:
    """Return quix-streams; its state is RocksDB, with a changelog."""
    return await _python(where, "quix", f"{commit_ms / 1000}")


async def faust(where: Place, commit_ms: int) -> Started:
    """Return faust; its state is a dictionary, with a changelog."""
    return await _python(where, "faust", f"{commit_ms / 1000}", f"{where.settings.partitions}")


async def _python(where: Place, name: str, *arguments: str) -> Started:
    settings = where.settings
    await create_topics(settings, [crossings_topic(settings, name)])
    command = [
        _peers_python(),
        str(PEERS / f"{name}_app.py"),
        settings.bootstrap_servers,
        settings.topic_prefix,
        str(where.folder / f"{name}-state"),
        *arguments,
    ]
    group = GroupPosition(settings, f"{settings.topic_prefix}{name}")
    return Processor(name, command, where.folder / f"{name}.log"), group


def check(names: Iterable[str]) -> None:
    """See that what those systems need is here, before anything is measured.

    Raises:
        SystemExit: it is not; with what to do.
    """
    for name in names:
        if name.startswith("ledger-compiled"):
            sources.check()
        elif name in {"quix-streams", "faust"}:
            _peers_python()


def _peers_python() -> str:
    if not PEERS_PYTHON.exists():
        raise SystemExit(f"{PEERS_PYTHON}: the peers are not installed; run: make bench")
    return str(PEERS_PYTHON)


def crossings_topic(settings: Settings, name: str) -> str:
    """Return where a peer writes what the ledger calls decisions."""
    return f"{settings.topic_prefix}{name}-crossings"


def streams(name: str, changed: Mapping[str, str], options: tuple[str, ...] = ()) -> System:
    """Return Kafka Streams with settings of its own; its state is in memory, with a changelog."""

    async def start(where: Place, commit_ms: int) -> Started:
        settings = where.settings
        application = f"{settings.topic_prefix}{name}"
        # All variants read the same events; what they write is each one's own.
        await create_topics(settings, [crossings_topic(settings, name)])
        properties = {
            "bootstrap.servers": settings.bootstrap_servers,
            "application.id": application,
            "processing.guarantee": "exactly_once_v2",
            "commit.interval.ms": str(commit_ms),
            "num.stream.threads": "1",
            "auto.offset.reset": "earliest",
            "state.dir": str(where.folder / f"{name}-state"),
            "bench.events": f"{settings.topic_prefix}events",
            "bench.crossings": crossings_topic(settings, name),
            "bench.caching": "false",
            **changed,
        }
        command = await streams_command(where.folder / name, properties, options)
        group = GroupPosition(settings, application)
        return Processor(name, command, where.folder / f"{name}.log"), group

    return start


CACHED = {"bench.caching": "true"}
BUFFERED = {
    "max.poll.records": "5000",
    "buffered.records.per.partition": "10000",
    "max.partition.fetch.bytes": "4194304",
    "fetch.max.bytes": "16777216",
}
SERIAL = ("-XX:+UseSerialGC", "-Xmx512m")
PARALLEL = ("-XX:+UseParallelGC", "-Xmx512m")

STREAMS_VARIANTS: dict[str, System] = {
    "cached": streams("cached", CACHED),
    "cached-serial": streams("cached-serial", CACHED, SERIAL),
    "cached-parallel": streams("cached-parallel", CACHED, PARALLEL),
    "two-threads": streams("two-threads", CACHED | {"num.stream.threads": "2"}, SERIAL),
    "four-threads": streams("four-threads", CACHED | {"num.stream.threads": "4"}, SERIAL),
    "buffered": streams("buffered", CACHED | BUFFERED),
    "buffered-serial": streams("buffered-serial", CACHED | BUFFERED, SERIAL),
    "buffered-two-threads": streams(
        "buffered-two-threads", CACHED | BUFFERED | {"num.stream.threads": "2"}, SERIAL
    ),
    "buffered-lz4": streams(
        "buffered-lz4",
        CACHED | BUFFERED | {"producer.compression.type": "lz4", "producer.batch.size": "131072"},
        SERIAL,
    ),
}
"""What was tried; `bench.scaling` measures each, and `bench.throughput --systems …`."""

STREAMS_PLAIN, STREAMS_TUNED = streams("kafka-streams", {}), STREAMS_VARIANTS["buffered-serial"]


def ledgers(workers: int = 1) -> dict[str, System]:
    """Return ours by each driver, from the sources and compiled; each has its own state.

    Each appends events.
    """
    return {
        "ledger-librdkafka": ours("ledger-librdkafka", "librdkafka", workers=workers),
        "ledger-compiled": ours("ledger-compiled", "aiokafka", is_compiled=True, workers=workers),
        "ledger-compiled-librdkafka": ours(
            "ledger-compiled-librdkafka", "librdkafka", is_compiled=True, workers=workers
        ),
        "ledger": ours("ledger", "aiokafka", workers=workers),
    }


LEDGERS = ledgers()

SYSTEMS: dict[str, System] = {
    "quix-streams": quix,
    "faust": faust,
    "kafka-streams": STREAMS_PLAIN,
    "kafka-streams-tuned": STREAMS_TUNED,
    **LEDGERS,
}
