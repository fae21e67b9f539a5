"""`stoploss watch`: tasks, decisions and alerts as they change."""

import asyncio
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group
from rich.live import Live as Screen
from rich.text import Text

from schemas.alerts import Severity
from schemas.outputs import Decision
from streams.cli.edges import AlertRow
from streams.cli.exits import say
from streams.cli.facts import AnsweredFrom, From, TasksAnswer, tasks_answer
from streams.cli.following import Followed
from streams.cli.live import Live, Moment, Told
from streams.cli.options import DEFAULT_DIR, TIMEOUT_S, Dir, FromPart, Json, TimeoutS
from streams.cli.place import kafka_of
from streams.cli.show import SEVERITY_STYLES, console, plain, print_json, source_text
from streams.cli.sources import source_of
from streams.cli.tables import TasksTable, counts_text, decision_message, feed_table
from streams.cli.view import NoViewError
from streams.insight.times import instant
from streams.view.store import RedisUnavailableError

ROWS_LIVE = 20
DECISIONS_LIVE = 8
ALERTS_NAMED = 3
REFRESH_PER_S = 4
# Of a burst the view's feed does not have all: lines that somebody collects would have a gap.
LINES = "each decision is a line, and none is left out"


class WatchedDecision(Decision, frozen=True, omit_defaults=True, kw_only=True):
    """What `watch --json` prints: a decision, and where it was read."""

    source: AnsweredFrom


def watch(
    *,
    ended_too: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    part: FromPart = None,
    folder: Dir = DEFAULT_DIR,
    timeout_s: TimeoutS = TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Show tasks, decisions and alerts as they change, until Ctrl-C.

    Without a terminal each decision is one line; with --json each line is one as JSON. Lines are read
    from the topics, so that none is left out; --from view may miss some of a burst, and says so.

    Example: stoploss watch
    """
    asyncio.run(_watch(folder, timeout_s, part, ended_too=ended_too, as_json=as_json))


async def _watch(
    folder: Path, timeout_s: float, part: From | None, *, ended_too: bool, as_json: bool
) -> None:
    """Watch one source; where the view goes away meanwhile, go on with the topics."""
    in_lines = as_json or not sys.stdout.isatty()
    wanted, why = (From.TOPICS, LINES) if in_lines and part is None else (part, None)
    async with kafka_of(folder, timeout_s) as place:
        while True:
            try:
                async with source_of(place, wanted, why) as source, source.live() as live:
                    if in_lines:
                        await print_decisions(live, as_json=as_json)
                    else:
                        await _show(live, ended_too=ended_too)
            except (NoViewError, RedisUnavailableError) as error:
                if part is From.VIEW:
                    raise
                wanted, why = From.TOPICS, str(error)


async def print_decisions(live: Live, *, as_json: bool) -> None:
    """Print each decision as a line, for ever."""
    while True:
        news = await live.news()
        if news.were_missed:
            say("more decisions than the view keeps: some are left out; use --from topics")
        for told in news.decisions:
            decision = told.decision
            if as_json:
                print_json(WatchedDecision(**msgspec.structs.asdict(decision), source=news.source))
            else:
                said = f"{decision.verdict.value:8} {decision_message(decision)}"
                print(f"{instant(told.time)} {plain(decision.task_id)} {said}", flush=True)


async def _show(live: Live, *, ended_too: bool) -> None:
    latest: deque[Told] = deque(maxlen=DECISIONS_LIVE)
    with Screen(console=console(), refresh_per_second=REFRESH_PER_S, screen=True) as screen:
        while True:
            news = await live.news()
            latest.extend(news.decisions)
            moment = await live.moment(ended_too=ended_too, most=ROWS_LIVE)
            screen.update(moment_view(moment, latest, news.source, ended_too=ended_too))
            await asyncio.sleep(1 / REFRESH_PER_S)


def moment_view(
    moment: Moment, latest: deque[Told], source: AnsweredFrom, *, ended_too: bool
) -> Group:
    """Return what there is to see at one moment."""
    answer = moment.tasks
    count = answer.open_count + (answer.ended_count if ended_too else 0)
    head = counts_text(answer).append_text(firing_text(moment.firing))
    return Group(_view(head, answer, count, latest), Text(""), source_text(source))


def live_view(
    followed: Followed, *, ended_too: bool, rows: int = ROWS_LIVE, head: Text | None = None
) -> Group:
    """Return tasks and decisions of the topics as they stand."""
    answer = tasks_answer(followed.view, ended_too=ended_too)
    latest = deque(followed.feed, maxlen=DECISIONS_LIVE)
    count = len(answer.tasks)
    shown = msgspec.structs.replace(answer, tasks=answer.tasks[:rows])
    return _view(counts_text(answer) if head is None else head, shown, count, latest)


def _view(head: Text, answer: TasksAnswer, count: int, latest: deque[Told]) -> Group:
    hidden = count - len(answer.tasks)
    more = Text(f"… and {hidden} more" if hidden > 0 else "", "dim")
    return Group(
        head,
        Text(""),
        TasksTable(answer.tasks),
        more,
        feed_table(reversed(latest), time.time_ns() // 1_000_000)
        if latest
        else Text("no decisions yet", "dim"),
    )


def firing_text(firing: list[AlertRow]) -> Text:
    """Return which alerts fire, the worst first, as the end of a line; nothing where none does."""
    said = Text("")
    names = Counter(each.name for each in firing)
    worst: dict[str, Severity] = {}
    for each in firing:
        worst.setdefault(each.name, each.severity)
    for index, name in enumerate(list(names)[:ALERTS_NAMED]):
        said.append(" · firing: " if index == 0 else ", ")
        times = f" ×{names[name]}" if names[name] > 1 else ""
        said.append(plain(f"{name}{times}"), SEVERITY_STYLES[worst[name]])
    return said.append(", …") if len(names) > ALERTS_NAMED else said
