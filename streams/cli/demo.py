"""`stoploss demo`: real recorded sessions through a real Kafka, and what was decided."""

import asyncio
import shlex
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct
from rich.live import Live
from rich.text import Text

from schemas.events import Event
from schemas.fields import Mode, Verdict
from streams.budget.policy import Policy
from streams.cli.exits import say
from streams.cli.facts import TasksAnswer, tasks_answer
from streams.cli.following import Followed, follow
from streams.cli.operating import until_started
from streams.cli.options import DEFAULT_DIR, Dir, Json, user
from streams.cli.place import Place, kafka_is_named
from streams.cli.policies import policy_of_file, set_policy
from streams.cli.publishing import publisher
from streams.cli.reading import Log, opened
from streams.cli.running import Signals, everything
from streams.cli.show import LEVEL_STYLES, MODE_STYLES, console, print_json, table
from streams.cli.tables import TasksTable
from streams.cli.values import number
from streams.cli.watching import REFRESH_PER_S, live_view
from streams.importers.base import import_events
from streams.importers.demo import DEMO_KIND, demo_path, demo_policy_path
from streams.insight.numbers import counted
from streams.local.folder import DataFolder

# The sessions take 2 h 15 m of recorded time: about a minute.
SPEED = 140.0
FIRST_POLICY_WITHIN_S = 60.0
PROGRESS_EVERY_S = 5.0
POLL_S = 0.05
TOP_TASKS = 12


class DemoAnswer(Struct, frozen=True):
    """What `demo --once --json` prints; `decisions` counts them by verdict."""

    tasks: int
    events: int
    decisions: dict[Verdict, int]
    seconds: float
    dir: str


class Recorded(Struct, frozen=True):
    """An event, and when it is played: seconds of recorded time after the first."""

    at_s: float
    event: Event


class Playing:
    """How far the demo is."""

    def __init__(self, recorded: list[Recorded], speed: float, clock_s: float) -> None:
        self.recorded = recorded
        self.speed = speed
        self.began_s = clock_s
        self.sent = 0
        self.all_decided = False
        self.seconds = 0.0


def demo(
    speed: Annotated[
        float,
        typer.Option(
            metavar="X",
            parser=number("--speed", at_least=0.01, at_most=1_000_000),
            help="How many times faster than it was recorded.",
        ),
    ] = SPEED,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End when all is decided, with a summary.")
    ] = False,
    folder: Dir = DEFAULT_DIR,
    as_json: Json = False,
) -> None:
    """Play recorded sessions of coding agents, and watch what is decided.

    Kafka, Redis and the ledger start on a fresh folder below --dir, and end with Ctrl-C. The
    sessions are real: tokens, dollars and the order of calls are as they were recorded.

    Example: stoploss demo --speed 500 --once
    """
    raise typer.Exit(asyncio.run(_demo(folder, speed, once=once, as_json=as_json)))


async def _demo(folder: Path, speed: float, *, once: bool, as_json: bool) -> int:
    recorded = recorded_sessions()
    policy = policy_of_file(demo_policy_path())
    name = f"demo-{datetime.fromtimestamp(time.time_ns() / 1e9, UTC):%Y%m%d-%H%M%S}"
    run = folder / name
    prefix = f"stoploss-{name}." if kafka_is_named() else None
    if prefix is None:
        DataFolder(folder).make()
        say(f"starting Kafka in {run}")
    signals = Signals()
    async with (
        signals.watched(),
        everything(run, prefix, told=say) as place,
        opened(place.settings) as log,
    ):
        await _set_policy(log, policy)
        say(
            "policy: calibrated for these sessions, the built-in limits would block most of them; "
            "mode: observe, decisions hold nobody"
        )
        followed = Followed()
        playing = Playing(recorded, speed, _clock_s())
        async with asyncio.TaskGroup() as group:
            play = group.create_task(_play(place, playing, followed))
            told = group.create_task(signals.event.wait())
            others = [
                group.create_task(follow(place.settings, log, followed)),
                group.create_task(_screen(playing, followed, as_json=as_json)),
            ]
            await asyncio.wait([play, told], return_when=asyncio.FIRST_COMPLETED)
            for each in (play, told, *others):
                each.cancel()
        if playing.all_decided:
            _summarise(place, playing, followed, as_json=as_json)
            if not once:
                _show_next(folder, place, followed, as_json=as_json)
                await signals.event.wait()
                say("stopping …")
    return signals.exit_code


def recorded_sessions() -> list[Recorded]:
    """Return the events of the bundled sessions in the order in which they are played.

    A family's events stay in the importer's order, a parent's end after its last child's.
    """
    events = list(import_events(DEMO_KIND, [demo_path()]))
    first = min(event.time for event in events)
    latest: dict[str, float] = {}
    recorded = []
    for event in events:
        family = event.partitionkey or event.subject
        at_s = max((event.time - first).total_seconds(), latest.get(family, 0.0))
        latest[family] = at_s
        recorded.append(Recorded(at_s, event))
    recorded.sort(key=lambda one: one.at_s)  # stable
    return recorded


async def _set_policy(log: Log, policy: Policy) -> None:
    await until_started(log, FIRST_POLICY_WITHIN_S)
    await set_policy(log, policy, user(), FIRST_POLICY_WITHIN_S)


async def _play(place: Place, playing: Playing, followed: Followed) -> None:
    """Publish every event at its time; then wait until all of them are folded."""
    playing.began_s = _clock_s()
    async with publisher(place.settings, "demo") as made:
        for one in playing.recorded:
            wait_s = playing.began_s + one.at_s / playing.speed - _clock_s()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await made.send(one.event)
            playing.sent += 1
    while not followed.decided_up_to(made.ends):  # noqa: ASYNC110 - the ledger's progress
        await asyncio.sleep(POLL_S)
    playing.seconds = round(_clock_s() - playing.began_s, 1)
    playing.all_decided = True


async def _screen(playing: Playing, followed: Followed, *, as_json: bool) -> None:
    """Show how it goes: live on a terminal, else a line now and then on stderr."""
    if as_json or not sys.stdout.isatty():
        while not playing.all_decided:
            say(_progress(playing, followed).plain)
            await asyncio.sleep(PROGRESS_EVERY_S)
        return
    rows = max(console().size.height - 16, 5)
    with Live(console=console(), refresh_per_second=REFRESH_PER_S, transient=True) as live:
        while not playing.all_decided:
            head = _progress(playing, followed)
            live.update(live_view(followed, ended_too=True, rows=rows, head=head))
            await asyncio.sleep(1 / REFRESH_PER_S)


def _clock_s() -> float:
    return asyncio.get_running_loop().time()


def _progress(playing: Playing, followed: Followed) -> Text:
    played = Text(f"{playing.sent:,} of {len(playing.recorded):,} events", "bold")
    played.append(f" at {playing.speed:g}×, {counted(len(followed.view.tasks), 'task')}, ", "none")
    return played.append_text(_counted(followed.decisions))


def _counted(decisions: dict[Verdict, int]) -> Text:
    said = Text("decisions: ")
    for index, verdict in enumerate(each for each in Verdict if each in decisions):
        said.append(", " if index else "")
        said.append(f"{decisions[verdict]} {verdict.value}", LEVEL_STYLES[verdict])
    return said if decisions else Text("no decisions yet", "dim")


def _summarise(place: Place, playing: Playing, followed: Followed, *, as_json: bool) -> None:
    where = place.settings.topic_prefix if place.folder is None else str(place.folder)
    answer = DemoAnswer(
        tasks=len(followed.view.tasks),
        events=playing.sent,
        decisions={
            each: followed.decisions[each] for each in Verdict if each in followed.decisions
        },
        seconds=playing.seconds,
        dir=where,
    )
    if as_json:
        print_json(answer)
        return
    _show(answer, tasks_answer(followed.view, ended_too=True))


def _show(answer: DemoAnswer, tasks: TasksAnswer) -> None:
    out = console()
    out.print(TasksTable(tasks.tasks[:TOP_TASKS]))
    if len(tasks.tasks) > TOP_TASKS:
        out.print(Text(f"… and {len(tasks.tasks) - TOP_TASKS} more", "dim"))
    stand = Counter(row.verdict for row in tasks.tasks)
    made = table("", *(each.value for each in Verdict), right=tuple(Verdict))
    made.add_row("tasks that stand at", *(str(stand[each]) for each in Verdict))
    made.add_row("decisions", *(str(answer.decisions.get(each, 0)) for each in Verdict))
    out.print()
    out.print(made)
    out.print(
        f"\n{counted(answer.events, 'event')} of {counted(answer.tasks, 'task')} decided "
        f"in {answer.seconds:g} s.",
        Text(f"Mode {Mode.OBSERVE.value}: nobody was held.", MODE_STYLES[Mode.OBSERVE]),
    )


def _show_next(folder: Path, place: Place, followed: Followed, *, as_json: bool) -> None:
    if as_json:
        return
    worst = tasks_answer(followed.view, ended_too=True).tasks[0].task_id
    where = "" if folder == DEFAULT_DIR else f" --dir {shlex.quote(str(folder))}"
    if place.folder is None:
        print(f"\nIn another terminal, with STOPLOSS_TOPIC_PREFIX={place.settings.topic_prefix}:")
    else:
        print("\nEverything still runs. In another terminal:")
    print(f"  stoploss tasks --all{where}")
    print(f"  stoploss task {shlex.quote(worst)}{where}")
    print(f"  stoploss verify{where}")
    print("Ctrl-C ends it.", flush=True)
