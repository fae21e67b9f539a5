"""The same job on quix-streams: sum per task, a record for each level crossed, exactly once.

Runs in an environment of its own (`make bench`), with nothing of ours in it. It keeps one sum and
one level per task: far less than the ledger does for the same event.
"""

import sys
from typing import Any

import orjson
from quixstreams import Application, State
from quixstreams.models.serializers import JSONDeserializer, JSONSerializer

SHARES = (0.9, 1.5, 2.0)
LIMIT_TOKENS = 6_000


def fold(event: dict[str, Any], state: State) -> dict[str, Any] | None:
    """Add an event to its task's sum; return a record when that crosses a level."""
    data = event["data"]
    if event["type"] != "stoploss.phase.usage":
        return None
    read = data.get("cache_read_tokens", 0)
    metered = data["input_tokens"] - read + 0.1 * read + data["output_tokens"]
    used = state.get("used", 0) + metered
    state.set("used", used)
    level = sum(used >= share * LIMIT_TOKENS for share in SHARES)
    if level <= state.get("level", 0):
        return None
    state.set("level", level)
    return {"task_id": event["subject"], "level": level, "used": used, "event_id": event["id"]}


def main() -> None:
    """Process `{prefix}events` until ended."""
    servers, prefix, state_dir, commit_s = sys.argv[1:5]
    app = Application(
        broker_address=servers,
        consumer_group=f"{prefix}quix",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=float(commit_s),
        state_dir=state_dir,
        loglevel="WARNING",
    )
    events = app.topic(f"{prefix}events", value_deserializer=JSONDeserializer(loads=orjson.loads))
    crossings = app.topic(
        f"{prefix}quix-crossings", value_serializer=JSONSerializer(dumps=orjson.dumps)
    )
    frame = app.dataframe(events).apply(fold, stateful=True).filter(lambda found: found is not None)
    frame.to_topic(crossings)
    app.run()


if __name__ == "__main__":
    main()
