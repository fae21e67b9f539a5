"""One run: load and faults together, then quiet, then judgement."""

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.machine import commit
from streams.kafka import failpoints
from streams.kafka.settings import Driver
from tests.faults import check
from tests.faults.arena import CALM, CLIENTS, POLICIES, SESSION_MS, Arena, arena
from tests.faults.faults import DECK, KINDS, LEDGERS_MAX, LEDGERS_MIN
from tests.faults.operators import set_policy
from tests.faults.result import Events, Result, Told, Viewed, gaps
from tests.faults.shown import hold as hold_view
from tests.faults.told import hold as hold_agents
from tests.faults.told import never_said_again, until_all_is_told

log = logging.getLogger("faults")

RATE_PER_S = 1_450  # 5 million in an hour
EMITTED_PER_S = 20
BEGIN_WITHIN_S = 180.0
QUIET_WITHIN_S = 180.0
# Agents and the view may be far behind ledgers on a machine that has other work.
TOLD_WITHIN_S = 600.0
SHOWN_WITHIN_S = 300.0
# Sometimes the next fault comes before the last one is over.
WAITS = 0.6
ATTEMPTS = 3

Step = tuple[str, ...]  # names of `KINDS`, at the same time


def drawn(seed: int) -> Iterator[Step]:
    """Yield faults for ever: the deck, shuffled anew each time it is used up."""
    chance = random.Random(f"{seed}-plan")
    while True:
        points = [f"kill {point}" for point in failpoints.COMMIT_POINTS]
        chance.shuffle(points)
        deck: list[Step] = [(name,) for name in DECK]
        deck += [(f"kill {point}",) for point in failpoints.AGENT_POINTS]
        # Two at a time, for the time it takes a process to start.
        deck += [tuple(points[first : first + 2]) for first in range(0, len(points), 2)]
        chance.shuffle(deck)
        yield from deck


async def run(
    seed: int,
    folder: Path,
    *,
    minutes: float | None = None,
    plan: Sequence[Step] | None = None,
    rate_per_s: float = RATE_PER_S,
    session_ms: int = SESSION_MS,
    driver: Driver = "aiokafka",
    with_onlookers: bool = True,
) -> Result:
    """Run the plan, or what the seed draws for so many minutes.

    Args:
        seed: of load and faults; when things happen is the machine's.
        folder: for the broker, the spool and the ledgers' logs; must not exist.
        minutes: of faults; setting up and judging come on top.
        plan: steps, each tried again where it was not seen to happen.
        rate_per_s: of records.
        session_ms: how long the group waits for a ledger that is gone.
        driver: of the ledgers.
        with_onlookers: agents, a view and its Redis beside the ledgers.
    """
    assert (minutes is None) != (plan is None)
    ran_commit = commit()  # now: it may be another one at the end
    clock = asyncio.get_running_loop().time
    happened: Counter[str] = Counter()
    attempted: Counter[str] = Counter()
    longest_ms: list[tuple[str, int]] = []
    unmeasured: list[str] = []
    wrong: list[str] = []
    # The longer it runs, the more a task does: what is alive and remembered stays the same.
    usages = 8 if minutes is None or minutes < 5 else 40
    async with arena(
        folder,
        seed,
        families=60,
        usages=usages,
        session_ms=session_ms,
        driver=driver,
        with_onlookers=with_onlookers,
    ) as place:
        await set_policy(place.settings(CLIENTS), POLICIES[0])
        await place.keep(LEDGERS_MIN)
        fed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(place.feed.run(place.load, rate_per_s, fed))
            emitting = group.create_task(_emit(place, fed))
            if not await place.until(lambda: place.watch.has_passed([1] * 4), BEGIN_WITHIN_S):
                wrong.append(f"the ledgers do not begin: {place.ledgers.alive}")
            started_s = clock()
            place.watch.longest_ms()
            for step in plan if plan is not None else drawn(seed):
                if minutes is not None and clock() - started_s >= minutes * 60:
                    break
                before_s = clock()
                try:
                    did = await _inject(place, step, again=plan is not None)
                except Exception as error:  # noqa: BLE001 - what was seen before it is kept
                    wrong.append(f"{step}: {error!r}")
                    break
                attempted.update(step)
                happened.update(did)
                unmeasured += step
                waits = place.random.random() < WAITS
                if waits and not await place.recovered():
                    wrong.append(f"after {step} the ledgers stand still: {place.ledgers.alive}")
                    break
                if waits:  # what overlapped has its wait in common
                    longest = place.watch.longest_ms()
                    longest_ms += [(name, longest) for name in unmeasured]
                    unmeasured.clear()
                log.info(
                    "%6.1f s  %-32s %-9s %5.1f s  longest wait %s ms  %s",
                    clock() - started_s,
                    " + ".join(step),
                    "happened" if list(step) == did else "NOT SEEN",
                    clock() - before_s,
                    longest_ms[-1][1] if waits else "…",
                    place.ledgers.alive,
                )
                await _tidy(place)
            ran_s = clock() - started_s
            fed.set()
            await asyncio.gather(feeding, emitting)
        wrong += await _quiet(place)
        log.info("quiet; now it is judged")
        said, differ = await check.judge(place.environ(CALM))
        counted = await check.count(place.settings(CALM))
        stats = place.emitter.stats
        emitted = stats.sent
        if emitted != place.emitted - stats.dropped or stats.queued or stats.spooled:
            wrong.append(f"emitter: {place.emitted} events were said, and {stats}")
        enforced, amiss = await place.enforcers.judge(place.settings(CALM), counted.enforced)
        told, viewed, misread = await _onlookers(place)
        expected = place.load.expected
        wrong += misread
        if told is not None:
            wrong += never_said_again(happened, told)
        wrong += amiss + differ + check.differences(expected, emitted, counted)
        return Result(
            commit=ran_commit,
            seed=seed,
            minutes=round(ran_s / 60, 2),
            cores=os.cpu_count() or 1,
            session_ms=session_ms,
            driver=driver,
            faults={name: happened[name] for name in sorted(happened) if happened[name]},
            attempted=dict(sorted(attempted.items())),
            zombies_fenced=place.ledgers.fenced,
            events=Events(
                records=place.feed.sent,
                distinct=expected.distinct,
                twice=expected.twice,
                overtaken=expected.overtaken,
                held_back=expected.held,
                binary=expected.binary,
                bad=expected.bad,
                tasks=expected.tasks,
                emitted=emitted,
                emitter_dropped=stats.dropped,
                sent_again_after_failures=place.feed.failures,
            ),
            enforced=enforced,
            told=told,
            viewed=viewed,
            model_calls=counted.total,
            gaps_ms=gaps([longest for _, longest in longest_ms]),
            gaps_ms_by_fault={
                name: gaps([longest for one, longest in longest_ms if one == name])
                for name in sorted(attempted)
            },
            verify=said,
            differences=wrong,
        )


async def _onlookers(place: Arena) -> tuple[Told | None, Viewed | None, list[str]]:
    """Hold what agents and the view have made of it against what they make undisturbed."""
    settings, onlookers = place.settings(CALM), place.onlookers
    if not onlookers.are_there:
        return None, None, []
    told, viewed = None, None
    wrong: list[str] = []
    await asyncio.to_thread(place.emitter.close)  # it says how it is as long as it lives
    try:
        await until_all_is_told(settings, TOLD_WITHIN_S)
        wrong += await onlookers.leave(*onlookers.agents.values())
        told, differ = await hold_agents(settings)
        wrong += differ
        log.info("agents have written %s, some again: %s", told.distinct, told.repeated)
        async with asyncio.timeout(SHOWN_WITHIN_S):
            folder = place.folder / "redis-anew"
            viewed, differ = await hold_view(settings, onlookers, folder, SHOWN_WITHIN_S)
        wrong += differ
        wrong += await onlookers.leave(onlookers.view)
    except TimeoutError:
        who = f"agents in {TOLD_WITHIN_S:g} s" if told is None else f"view in {SHOWN_WITHIN_S:g} s"
        wrong.append(f"the end is not come to by the {who}")
    return told, viewed, wrong + onlookers.mistakes


async def _inject(place: Arena, step: Step, *, again: bool) -> list[str]:
    """Do what a step says; return what of it happened, with more attempts where that is asked."""
    left, did = list(step), []
    for _ in range(ATTEMPTS if again else 1):
        seen = await asyncio.gather(*(KINDS[name].inject(place) for name in left))
        did += [name for name, happened in zip(left, seen, strict=True) if happened]
        left = [name for name, happened in zip(left, seen, strict=True) if not happened]
        if not left:
            break
        await _tidy(place)
    return sorted(did, key=step.index)


async def _emit(place: Arena, until: asyncio.Event) -> None:
    while not until.is_set():
        place.emit(EMITTED_PER_S // 10)
        await asyncio.sleep(0.1)


async def _tidy(place: Arena) -> None:
    """Have as many ledgers as a fault begins with."""
    await place.keep(LEDGERS_MIN)
    alive = place.ledgers.alive
    for ledger in alive[LEDGERS_MAX:]:
        await ledger.leave()


async def _quiet(place: Arena) -> list[str]:
    """Send what is left, wait until all is decided on, and end the ledgers in order."""
    wrong: list[str] = []
    await place.feed.finish(place.load)
    if not await asyncio.to_thread(place.emitter.flush, QUIET_WITHIN_S):
        wrong.append(f"the emitter does not get rid of its events: {place.emitter.stats}")
    wrong += await place.enforcers.leave()
    await place.keep(LEDGERS_MIN)
    if not await place.quiesce(QUIET_WITHIN_S):
        wrong.append(f"not all is consumed after {QUIET_WITHIN_S:.0f} s: {place.ledgers.alive}")
    return wrong + await place.ledgers.end()
