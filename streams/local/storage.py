"""A formatted data folder for the broker.

Kafka's own StorageTool does it in 0.5 to 0.9 s, a Java start of its own. What it writes is one
file that is the same for every folder, the features of this version of Kafka, and one of four
lines with the folder's ids. So it runs once per machine; then its file is copied.
"""

import base64
import subprocess
import tempfile
import uuid
from pathlib import Path

from schemas.errors import UnavailableError
from streams.local.jars import KAFKA_VERSION
from streams.local.private import FOLDER_MODE, write_private
from streams.local.runtime import KafkaRuntime

FORMATTED_WITHIN_S = 60.0

NODE_ID = 1

FEATURES = "bootstrap.checkpoint"
IDS = "meta.properties"

# As much as the tool needs to know of a broker: that it is its own controller.
TOOL_PROPERTIES = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={node_id}@127.0.0.1:9093
controller.listener.names=CONTROLLER
listeners=BROKER://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
inter.broker.listener.name=BROKER
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
"""


def format_storage(runtime: KafkaRuntime, data: Path, *, log4j2: Path) -> None:
    """Make `data` the data folder of a new broker, unless it is one. Blocks, for up to a second.

    Raises:
        UnavailableError: Kafka's tool does not do it.
    """
    if (data / IDS).exists():
        return
    features = runtime.cache / f"kafka-{KAFKA_VERSION}-{FEATURES}"
    if not features.exists():
        _write_features(runtime, features, log4j2)
    data.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    write_private(data / FEATURES, features.read_bytes())
    # A cluster has an id of its own: who keeps something about it elsewhere tells it from others.
    ids = f"node.id={NODE_ID}\ncluster.id={_new_id()}\ndirectory.id={_new_id()}\n"
    write_private(data / IDS, f"version=1\n{ids}")  # last: a folder with ids is a formatted one


def _new_id() -> str:
    """Return a new id as Kafka writes them: 16 bytes in base64, never beginning with a minus."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith(
        "-"
    ):
        pass
    return text


def _write_features(runtime: KafkaRuntime, features: Path, log4j2: Path) -> None:
    with tempfile.TemporaryDirectory(dir=features.parent, prefix="format-") as scratch:
        data, properties = Path(scratch, "data"), Path(scratch, "server.properties")
        properties.write_text(TOOL_PROPERTIES.format(node_id=NODE_ID, data=data))
        arguments = ["format", "--config", str(properties), "--cluster-id", _new_id()]
        done = subprocess.run(  # noqa: S603 - our own Java
            runtime.command(
                "kafka.tools.StorageTool", *arguments, temporary=Path(scratch), log4j2=log4j2
            ),
            capture_output=True,
            text=True,
            timeout=FORMATTED_WITHIN_S,
            check=False,
        )
        if done.returncode:
            said = " | ".join(done.stderr.splitlines()[-3:])
            raise UnavailableError(f"kafka cannot format a data folder: {said}")
        write_private(features, (data / FEATURES).read_bytes())
