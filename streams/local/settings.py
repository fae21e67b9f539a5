"""Settings of the local broker: one node, few resources, on 127.0.0.1 only."""

from pathlib import Path

SERVER_PROPERTIES = """\
# Written anew at each start; changes are lost.
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={node_id}@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=BROKER://{host}:{port}
inter.broker.listener.name=BROKER
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}

# One node: nothing can be replicated.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Few partitions and threads: less to open at each start.
num.partitions=4
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
share.coordinator.state.topic.num.partitions=1
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216

# After a kill -9 the controller refuses the broker until the session of the killed one is over.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
# A dead letter carries a record of 1 MiB in base64.
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
"""

LOG4J2_PROPERTIES = """\
status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %m (%c)%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=2
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
# It says all 300 settings at each start.
logger.config.name=org.apache.kafka.common.config
logger.config.level=warn
"""


def property_value(path: Path) -> str:
    """Return `path` as a Java properties file spells it: in ASCII, the rest escaped by UTF-16."""
    units = str(path).encode("utf-16-be")
    characters = (chr(int.from_bytes(units[at : at + 2])) for at in range(0, len(units), 2))
    return "".join(
        each if each.isascii() and each.isprintable() and each != "\\" else f"\\u{ord(each):04x}"
        for each in characters
    )
