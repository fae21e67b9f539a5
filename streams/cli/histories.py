"""Where a history comes from: files, or the topics of a system that runs."""

import enum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from schemas.baselines import Baseline
from schemas.envelope import Envelope, epoch_ms_of
from schemas.errors import InvalidFieldError
from schemas.outputs import ExecutionRecord, Lifecycle
from schemas.topics import Topic
from streams.budget.policy import Policy, policy_from_json
from streams.cli.policies import ShowAnswer, running_policy
from streams.cli.progress import progress
from streams.cli.reading import Log, opened
from streams.cli.shot import ask_place
from streams.cli.values import choice
from streams.insight.history import Histories
from streams.kafka.settings import Settings
from streams.replay.history import History, read_history
from streams.replay.logs import read_events, source_names

TOPICS = (Topic.TASKS, Topic.EXECUTIONS, Topic.LIFECYCLE, Topic.BASELINES)
RECORDS_SHOWN_EVERY = 1_000

_EXACT = msgspec.json.Encoder(decimal_format="number")
_EXECUTION = msgspec.json.Decoder(Envelope[ExecutionRecord])
_LIFECYCLE = msgspec.json.Decoder(Envelope[Lifecycle])
_BASELINE = msgspec.json.Decoder(Envelope[Baseline])


class Live(enum.StrEnum):
    """What else a history may come from."""

    LIVE = "live"


HistoryFiles = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE", help="Events as JSON lines, or agents' logs, or folders."),
]
FromLive = Annotated[
    Live | None,
    typer.Option(
        "--from",
        metavar="live",
        parser=choice("--from", Live),
        help="live: what the topics tell of tasks that have ended, instead of files.",
    ),
]
SourceKind = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="KIND",
        help=f"What the files are, where it is not recognised: {', '.join(source_names())}.",
    ),
]


def check_origin(files: list[Path] | None, live: Live | None, source: str | None) -> None:
    """Refuse a command line that names no history, or two.

    Raises:
        InvalidFieldError: names the option.
    """
    if live is None and not files:
        raise InvalidFieldError("FILE", "", "at least one file, or --from live")
    if live is not None and files:
        raise InvalidFieldError("--from", live.value, "either files or --from live")
    if source is not None and source not in source_names():
        raise InvalidFieldError("--source", source, f"one of {', '.join(source_names())}")


def history_of_files(
    files: list[Path], policy: Policy | None = None, source: str | None = None
) -> History:
    """Return what files tell, with a bar while it takes; as `read_events` and `read_history`."""
    with progress("folding", in_bytes=True) as advance:
        log = read_events(files, source=source, on_progress=lambda done: advance(done, None))
        advance(0, log.bytes_total)
        return read_history(log, policy)


def history_of_topics(folder: Path, timeout_s: float) -> tuple[History, Policy]:
    """Return what the topics tell, and the policy that runs.

    Raises:
        UnavailableError: Kafka or a topic cannot be reached in time.
    """

    async def question(settings: Settings) -> tuple[History, Policy]:
        async with opened(settings, TOPICS) as log:
            policy = checked_policy(await running_policy(log))
            return await live_history(log, policy), policy

    return ask_place(folder, timeout_s, question)


def checked_policy(shown: ShowAnswer) -> Policy:
    """Return the policy that runs, as the fold has it."""
    return policy_from_json(_EXACT.encode(shown.policy), "the running policy")


async def live_history(log: Log, policy: Policy) -> History:
    """Return what the topics tell; records that cannot be read are counted. `log` has `TOPICS`."""
    histories = Histories(policy.explanations)
    baselines: dict[bytes, Baseline] = {}
    count = unreadable = 0
    with progress("reading topics", in_bytes=False) as advance:
        for topic, partitions in (
            (Topic.LIFECYCLE, log.partitions),
            (Topic.EXECUTIONS, log.partitions),
            (Topic.BASELINES, range(1)),
        ):
            for partition in partitions:
                async for record in log.records(topic, partition):
                    count += 1
                    if count % RECORDS_SHOWN_EVERY == 0:
                        advance(count, None)
                    try:
                        _take(histories, baselines, topic, record.key or b"", record.value)
                    except (msgspec.MsgspecError, ValueError):
                        unreadable += 1
    return History(
        tasks=histories.tasks(),
        baselines=list(baselines.values()),
        coverage=histories.coverage(),
        open_tasks=histories.open_count,
        unreadable=unreadable,
    )


def _take(
    histories: Histories,
    baselines: dict[bytes, Baseline],
    topic: Topic,
    key: bytes,
    value: bytes | None,
) -> None:
    if value is None:
        if topic is Topic.BASELINES:
            baselines.pop(key, None)
    elif topic is Topic.LIFECYCLE:
        envelope = _LIFECYCLE.decode(value)
        histories.tell_lifecycle(envelope.data, epoch_ms_of(envelope.time))
    elif topic is Topic.EXECUTIONS:
        histories.tell_execution(_EXECUTION.decode(value).data)
    else:
        baselines[key] = _BASELINE.decode(value).data
