"""The same job on faust: sum per task, a record for each level crossed, "exactly_once".

Runs in an environment of its own (`make bench`), with nothing of ours in it. It keeps one sum and
one level per task, in memory, with a changelog. Outputs and offsets are in transactions of their
own for each partition, but not in the same ones: after a crash it is not what its name says.
"""

import sys

import faust
import orjson
from faust.types import StreamT
from mode.loop import use

SHARES = (0.9, 1.5, 2.0)
LIMIT_TOKENS = 6_000


def make(servers: str, prefix: str, state_dir: str, commit_s: float, partitions: int) -> faust.App:
    """Return the app; it processes `{prefix}events` when its worker runs."""
    app = faust.App(
        f"{prefix}faust",
        broker=f"kafka://{servers}",
        processing_guarantee="exactly_once",
        store="memory://",
        datadir=state_dir,
        broker_commit_interval=commit_s,
        broker_max_poll_records=4_000,
        stream_buffer_maxsize=16_384,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        topic_partitions=partitions,
        topic_disable_leader=True,
        web_enabled=False,
    )
    events = app.topic(f"{prefix}events", key_serializer="raw", value_serializer="raw")
    crossings = app.topic(f"{prefix}faust-crossings", key_serializer="raw", value_serializer="raw")
    sums = app.Table("sums", partitions=partitions, key_type=str, value_type=list)

    @app.agent(events)
    async def fold(stream: StreamT[bytes]) -> None:
        async for value in stream:
            event = orjson.loads(value)
            if event["type"] != "stoploss.phase.usage":
                continue
            data, task = event["data"], event["subject"]
            read = data.get("cache_read_tokens", 0)
            metered = data["input_tokens"] - read + 0.1 * read + data["output_tokens"]
            before, standing = sums.get(task) or (0, 0)
            used = before + metered
            level = max(standing, sum(used >= share * LIMIT_TOKENS for share in SHARES))
            sums[task] = [used, level]
            if level > standing:
                crossing = {"task_id": task, "level": level, "used": used, "event_id": event["id"]}
                # Its delivery is the transaction's to wait for.
                _delivery = await crossings.send(key=task.encode(), value=orjson.dumps(crossing))

    return app


def main() -> None:
    """Process `{prefix}events` until ended."""
    servers, prefix, state_dir, commit_s, partitions = sys.argv[1:6]
    use("uvloop")
    app = make(servers, prefix, state_dir, float(commit_s), int(partitions))
    sys.argv[1:] = ["worker", "--loglevel", "warn", "--without-web"]
    app.main()


if __name__ == "__main__":
    main()
