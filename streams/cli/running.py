"""`stoploss up`, `ledger`, `agents` and `view`: what runs until it is told to stop."""

import asyncio
import contextlib
import logging
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from schemas.errors import InvalidFieldError
from streams.agents import metrics as agents_metrics
from streams.agents import supervisor as agents_supervisor
from streams.agents.delivery import keeping as delivery
from streams.agents.delivery.sinks import TABLE, Sink, load_sinks
from streams.agents.registry import AGENTS
from streams.cli.exits import Exit, say
from streams.cli.options import DEFAULT_DIR, Dir, Json
from streams.cli.place import Place, kafka_is_named, local_settings
from streams.cli.show import print_json
from streams.cli.values import whole
from streams.kafka.drivers import connect_by
from streams.kafka.settings import Settings, load_settings
from streams.kafka.telemetry import Export
from streams.kafka.topics import create_or_check_topics
from streams.ledger import supervisor
from streams.ledger.metrics import start_metrics
from streams.ledger.run import run_ledger
from streams.local.cluster import LocalCluster
from streams.view import metrics as view_metrics
from streams.view.run import run_process as run_view_process
from streams.view.run import run_view

RUNS = (*AGENTS, delivery.NAME)


class UpAnswer(msgspec.Struct, frozen=True):
    """Where everything is."""

    bootstrap_servers: str
    redis_url: str | None
    dir: str | None
    topic_prefix: str


def up(
    *,
    folder: Dir = DEFAULT_DIR,
    as_json: Json = False,
) -> None:
    """Run everything on this machine until Ctrl-C: Kafka, Redis, topics, ledger, view and agents.

    The data stays in the folder. Other commands find it there. With STOPLOSS_BOOTSTRAP_SERVERS set,
    that Kafka is used and none is started.

    Example: stoploss up --dir ~/stoploss-data
    """
    logs_to_stderr()
    raise typer.Exit(asyncio.run(_up(folder, as_json=as_json)))


def ledger(
    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=whole("--workers", at_least=1, at_most=supervisor.WORKERS_MAX),
            help="Processes that share the partitions; started again when one dies.",
        ),
    ] = 1,
) -> None:
    """Run the ledger for production: it folds events and publishes decisions.

    Where Kafka is stands in STOPLOSS_BOOTSTRAP_SERVERS or stoploss.toml; while it is away the
    ledger waits.

    Example: STOPLOSS_BOOTSTRAP_SERVERS=kafka:9092 stoploss ledger --workers 2
    """
    logs_to_stderr()
    supervisor.main(load_settings(), workers)


def agents(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]", help=f"Which: {', '.join(RUNS)}; all if left out."),
    ] = None,
) -> None:
    """Run agents over what the ledger writes, each in a process of its own, until Ctrl-C.

    While Kafka is away, or its topics are not there yet, they wait. One that ends is started again,
    and so is one that stands still although records wait for it. Where stoploss.toml has tables
    [sinks.NAME], delivery sends alerts and ends of tasks there.

    Example: STOPLOSS_BOOTSTRAP_SERVERS=kafka:9092 stoploss agents baselines
    """
    logs_to_stderr()
    for name in names or ():
        if name not in RUNS:
            raise InvalidFieldError("NAME", name, f"one of {', '.join(RUNS)}")
    sinks = load_sinks() if not names or delivery.NAME in names else []
    if not sinks and delivery.NAME in (names or ()):
        raise InvalidFieldError(TABLE, None, "a table such as [sinks.oncall] in stoploss.toml")
    wanted = [name for name in dict.fromkeys(names or AGENTS) if name != delivery.NAME]
    raise typer.Exit(asyncio.run(_agents(load_settings(), wanted, sinks)))


async def _agents(settings: Settings, names: list[str], sinks: list[Sink]) -> int:
    stopped_by = Signals()
    export = agents_metrics.start_metrics(settings)
    try:
        async with stopped_by.watched():
            await agents_supervisor.supervise(
                settings, names, stopped_by.event, export.metrics, sinks=sinks
            )
    finally:
        export.close()
    return stopped_by.exit_code


def view(
    *,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Delete what is in Redis and read the topics anew."),
    ] = False,
) -> None:
    """Run the view for production: it keeps in Redis what people look at.

    Where Kafka and Redis are stands in STOPLOSS_BOOTSTRAP_SERVERS and STOPLOSS_REDIS_URL, or in
    stoploss.toml; while one of them is away the view waits. Losing Redis loses nothing.

    Example: STOPLOSS_REDIS_URL=redis://redis:6379/0 stoploss view
    """
    logs_to_stderr()
    run_view_process(load_settings(), rebuild=rebuild)


async def _up(folder: Path, *, as_json: bool) -> int:
    stopped_by = Signals()
    sinks = load_sinks()
    async with stopped_by.watched(), everything(folder, sinks=sinks) as place:
        answer = UpAnswer(
            place.settings.bootstrap_servers,
            place.redis_url,
            None if place.folder is None else str(place.folder),
            place.settings.topic_prefix,
        )
        if as_json:
            print_json(answer)
        else:
            _show(answer)
        await stopped_by.event.wait()
        say("stopping …")
    return stopped_by.exit_code


def _show(answer: UpAnswer) -> None:
    print(f"Kafka   {answer.bootstrap_servers}")
    if answer.redis_url is not None:
        print(f"Redis   {answer.redis_url}")
    if answer.dir is not None:
        print(f"data    {answer.dir}")
    print("ledger, view and agents running\n")
    where = "" if answer.dir in (None, str(DEFAULT_DIR)) else f" --dir {shlex.quote(answer.dir)}"
    print("In another terminal:")
    print(f"  stoploss import claude-code ~/.claude/projects{where}")
    print(f"  stoploss watch{where}")
    print("Ctrl-C ends it.", flush=True)


class Signals:
    """Ctrl-C and SIGTERM as an event: what runs ends in order."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.exit_code = Exit.FINE

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watch for them while the block runs; a second one is for Python again."""
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        assert me is not None

        def told(number: signal.Signals) -> None:
            if number is signal.SIGINT:
                self.exit_code = Exit.INTERRUPTED
            if self.event.is_set():
                me.cancel()
            self.event.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def everything(
    folder: Path,
    prefix: str | None = None,
    sinks: Sequence[Sink] = (),
    told: Callable[[str], None] | None = None,
) -> AsyncIterator[Place]:
    """Give a Kafka with topics and a ledger on it, a Redis with the view, agents; they end with the block.

    Args:
        folder: of the local cluster, where no Kafka is named.
        prefix: of the topics; the settings' own where it is left out.
        sinks: where notices go; a demo disturbs nobody.
        told: is told that Redis has gone away, and that it is back; for who shows no log.

    Raises:
        AlreadyRunningError: another process runs this folder.
        InvalidFieldError: a setting or the folder is wrong.
        UnavailableError: a part cannot be started.
    """
    async with contextlib.AsyncExitStack() as stack:
        if kafka_is_named():
            place = Place(settings=load_settings(topic_prefix=prefix))
        else:
            cluster = await stack.enter_async_context(LocalCluster(folder))
            settings = local_settings(cluster.bootstrap_servers)
            place = Place(settings=settings, folder=folder, redis_url=cluster.redis_url)
        await _topics(place.settings)
        await stack.enter_async_context(_ledger(place.settings))
        await stack.enter_async_context(_view(place.settings, place.redis_url, told))
        await stack.enter_async_context(_all_agents(place.settings, sinks))
        yield place


async def _topics(settings: Settings) -> None:
    report = await create_or_check_topics(settings)
    for difference in report.differences:
        say(str(difference))


def _ledger(settings: Settings) -> contextlib.AbstractAsyncContextManager[None]:
    connect_by(settings)  # a driver that is not installed is said here, not out of a group of tasks
    export = start_metrics(settings)
    return _beside(export, lambda stop: run_ledger(settings, stop=stop, metrics=export.metrics))


def _view(
    settings: Settings, redis_url: str | None, told: Callable[[str], None] | None
) -> contextlib.AbstractAsyncContextManager[None]:
    export = view_metrics.start_metrics(settings)
    return _beside(
        export,
        lambda stop: run_view(settings, redis_url, stop, metrics=export.metrics, told=told),
    )


def _all_agents(
    settings: Settings, sinks: Sequence[Sink]
) -> contextlib.AbstractAsyncContextManager[None]:
    export = agents_metrics.start_metrics(settings)
    return _beside(
        export,
        lambda stop: agents_supervisor.supervise(
            settings, list(AGENTS), stop, export.metrics, sinks=sinks
        ),
    )


@contextlib.asynccontextmanager
async def _beside(
    export: Export[Any], run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]
) -> AsyncIterator[None]:
    """Run a part until the block ends; it is told to stop by the event it was given."""
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run(stop))
            try:
                yield
            finally:
                stop.set()
    finally:
        export.close()


def logs_to_stderr() -> None:
    """Show what the ledger says about itself, and of libraries only what is an error."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("stoploss").setLevel(logging.INFO)
