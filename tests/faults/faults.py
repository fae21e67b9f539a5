"""Each fault: it is done, it is seen to have happened, and what it broke is mended.

A fault that could not be seen to have happened does not count.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from streams.kafka import failpoints
from tests.faults import damage
from tests.faults.arena import (
    CLIENTS,
    EMITTER,
    ENFORCERS,
    LEFT,
    ONLOOKERS,
    POLICIES,
    RIGHT,
    SIDES,
    SPOOL_BYTES_MAX,
    Arena,
)
from tests.faults.ledgers import Ledger
from tests.faults.operators import set_policy
from tests.faults.proxy import Fault
from tests.integration.shell import stoploss

log = logging.getLogger("faults")

LEDGERS_MIN, LEDGERS_MAX = 2, 3  # an armed one comes on top: each has a partition at least
TAKEN_OVER_WITHIN_S = 60.0
DIES_WITHIN_S = 60.0
SPEAKS_WITHIN_S = 30.0
OPERATED_WITHIN_S = 40.0
# In sessions; the long ones are longer than transactions and sessions may last.
SHORT_CUT = (0.1, 0.5)
LONG_CUT = (1.2, 1.6)
# What one ledger passes once for each partition it gets, and the rest it passes with every batch.
ONCE = frozenset({"after_init_transactions", "while_restoring", "after_restore"})
ZOMBIE_POINTS = ("after_outputs_sent", "before_commit")


@dataclass(frozen=True)
class FaultKind:
    """`name` is what it is counted under; `inject` says whether it happened."""

    name: str
    inject: Callable[[Arena], Awaitable[bool]]


async def kill(arena: Arena) -> bool:
    """Kill a ledger at whatever it is doing."""
    victim = await _an_owner(arena)
    await asyncio.sleep(arena.random.random() * 0.5)
    return await victim.kill()


async def kill_at(arena: Arena, point: str) -> bool:
    """Have a ledger die at a named point."""
    times = 1 if point in ONCE or point == "in_revocation" else arena.random.randint(1, 8)
    ledger = await arena.start_ledger(f"{point}:{times}")
    if point == "in_revocation":
        await arena.until(lambda: bool(ledger.restored), TAKEN_OVER_WITHIN_S)
        await arena.start_ledger()
    if await ledger.ended(DIES_WITHIN_S) is None:
        await ledger.kill()
    await arena.until(lambda: ledger.died_at is not None, 1.0)  # its last line
    return ledger.exit_code == -signal.SIGKILL and ledger.died_at == point


async def kill_operator_at(arena: Arena, point: str) -> bool:
    """Have an operator's command die in its transaction over all partitions."""
    code, err = await _change_mode(arena, {failpoints.VARIABLE: f"{point}:1"})
    return code == -signal.SIGKILL and "armed" in err


async def change_policy(arena: Arena) -> bool:
    """Have new tasks begin by another policy, in one transaction over all partitions."""
    await set_policy(arena.settings(CLIENTS), arena.random.choice(POLICIES))
    return True


async def change_mode(arena: Arena) -> bool:
    """Change the mode of all partitions, as operators do."""
    code, _ = await _change_mode(arena, {})
    return code == 0


async def _change_mode(arena: Arena, more: Mapping[str, str]) -> tuple[int, str]:
    """Run the command; return its exit code and what it complained of."""
    mode = arena.random.choice(("observe", "partial", "enforce"))
    within_s = f"{OPERATED_WITHIN_S:.0f}"
    command = ("mode", mode, "--reason", "faults", "--by", "ada", "--timeout", within_s)
    env = {**arena.environ(CLIENTS), **more}
    ran = await stoploss(*command, env=env, within_s=2 * OPERATED_WITHIN_S)
    if ran.code > 0:
        log.info("mode %s: %s", mode, ran.err.strip())
    return ran.code, ran.err


async def zombie(arena: Arena) -> bool:
    """Stop a ledger until others own what it owned, then let it go on as if nothing had been."""
    victim = await _an_owner(arena)
    victim.signal(signal.SIGSTOP)
    return await _haunt(arena, victim)


async def zombie_at(arena: Arena, point: str) -> bool:
    """Have a ledger stop in its transaction, and go on in it when others own what it owned."""
    victim = await arena.start_ledger(f"{point}:{arena.random.randint(1, 8)}:stop")
    stopped = await arena.until(lambda: victim.is_stopped, DIES_WITHIN_S)
    if not stopped:
        await victim.kill()
        return False
    return await _haunt(arena, victim)


async def _haunt(arena: Arena, victim: Ledger) -> bool:
    """Continue a ledger that is stopped once others own what it owned; whether it was a zombie."""
    owned = sorted(victim.restored)
    told = _told(victim)
    try:
        taken = await arena.until(
            lambda: _owned_by_others(arena, victim, owned), 2 * arena.session_s
        )
        if not taken:
            await arena.keep(LEDGERS_MIN + 1)
            taken = await arena.until(
                lambda: _owned_by_others(arena, victim, owned), TAKEN_OVER_WITHIN_S
            )
    finally:
        victim.signal(signal.SIGCONT)
    # It is one only if it believed to own them still: it hears of the end of that now.
    heard = await arena.until(lambda: _told(victim) > told, TAKEN_OVER_WITHIN_S)
    return bool(owned) and taken and heard and victim.alive


def _told(ledger: Ledger) -> int:
    return ledger.given_back_count + ledger.owned_count + ledger.fenced_count + ledger.lost_count


async def add(arena: Arena) -> bool:
    """Have a ledger come while the others work."""
    ledger = await arena.start_ledger()
    others = [each for each in arena.ledgers.alive if each is not ledger]
    before = {each.name: each.given_back_count for each in others}

    def has_its_share() -> bool:
        given = any(each.given_back_count > before[each.name] for each in others)
        return given and bool(ledger.restored)

    return await arena.until(has_its_share, TAKEN_OVER_WITHIN_S)


async def remove(arena: Arena) -> bool:
    """Have a ledger leave in order while the others work."""
    await arena.keep(LEDGERS_MIN + 1)
    victim = await _an_owner(arena)
    owned = sorted(victim.restored)
    if await victim.leave() != 0:
        return False
    return await arena.until(lambda: _owned_by_others(arena, victim, owned), TAKEN_OVER_WITHIN_S)


async def kill_broker(arena: Arena) -> bool:
    """Kill the broker and start it again on what it left."""
    pid = arena.broker.pid
    await arena.broker.kill()
    await asyncio.sleep(arena.random.random())
    await arena.broker.start()
    return arena.broker.pid != pid and arena.broker.running


async def restart_broker(arena: Arena) -> bool:
    """Stop the broker in order and start it again."""
    pid = arena.broker.pid
    await arena.broker.stop()
    await arena.broker.start()
    return arena.broker.pid != pid and arena.broker.running


async def cut(arena: Arena, sessions: tuple[float, float]) -> bool:
    """Cut, or stall, the connections of some ledgers, of those who send, or of agents and the view."""
    onlookers = (ONLOOKERS,) if arena.onlookers.are_there else ()
    side = arena.random.choice((LEFT, RIGHT, CLIENTS, *onlookers))
    fault = arena.random.choice(tuple(Fault))
    if side in SIDES and not any(ledger.proxy == side for ledger in arena.ledgers.alive):
        await arena.ledgers.start(side)
    proxy = arena.broker.proxies[side]
    await arena.until(lambda: proxy.connections > 0, TAKEN_OVER_WITHIN_S)
    async with proxy.faulty(fault) as met:
        await asyncio.sleep(arena.random.uniform(*sessions) * arena.session_s)
    return met.happened()


async def fill_spool(arena: Arena) -> bool:
    """Cut the emitter off until its disk quota and its memory are full, and events are dropped."""
    before = arena.emitter.stats.dropped

    def is_full() -> bool:
        files = (arena.folder / "spool").rglob("*.spool")
        return sum(path.stat().st_size for path in files) > 0.9 * SPOOL_BYTES_MAX

    def drops() -> bool:
        # Slower than the emitter writes to disk, until the disk is full; then faster.
        full = is_full()
        arena.emit(200 if full else 10)
        return full and arena.emitter.stats.dropped > before

    async with arena.broker.proxies[EMITTER].faulty(Fault.CUT):
        return await arena.until(drops, TAKEN_OVER_WITHIN_S)


async def kill_emitter(arena: Arena) -> bool:
    """Kill an enforcer at whatever its emitter is doing."""
    await arena.until(lambda: arena.enforcers.current.said > 0, SPEAKS_WITHIN_S)
    await asyncio.sleep(arena.random.random())
    was_alive, _ = await arena.enforcers.kill()
    return was_alive


async def kill_emitter_when(arena: Arena, fault: Fault) -> bool:
    """Kill an enforcer whose emitter has begun to spool.

    Cut off, nothing of the spool is on Kafka; where only the answers do not come, Kafka has some
    of it, and the next enforcer sends that again.
    """
    enforcers, proxy = arena.enforcers, arena.broker.proxies[ENFORCERS]
    spoke = await arena.until(
        lambda: enforcers.current.said > 0 and proxy.connections > 0, SPEAKS_WITHIN_S
    )
    async with proxy.faulty(fault) as met:
        await arena.until(lambda: enforcers.spooled_bytes > 0, SPEAKS_WITHIN_S)
        was_alive, left = await enforcers.kill()
    return spoke and was_alive and left > 0 and met.happened()


async def _an_owner(arena: Arena) -> Ledger:
    """Return a ledger that owns something, with another one beside it."""
    await arena.keep(LEDGERS_MIN)
    owns = await arena.until(lambda: bool(_owners(arena)), TAKEN_OVER_WITHIN_S)
    assert owns, f"nobody owns anything: {arena.ledgers.alive}"
    return arena.random.choice(_owners(arena))


def _owners(arena: Arena) -> list[Ledger]:
    return [ledger for ledger in arena.ledgers.alive if ledger.restored and not ledger.is_stopped]


def _owned_by_others(arena: Arena, victim: Ledger, partitions: list[int]) -> bool:
    return all(
        any(owner is not victim for owner in arena.ledgers.owners(partition))
        for partition in partitions
    )


def _at(point: str) -> Callable[[Arena], Awaitable[bool]]:
    async def inject(arena: Arena) -> bool:
        return await (kill_operator_at if point in failpoints.OPERATOR_POINTS else kill_at)(
            arena, point
        )

    return inject


def _agent_at(point: str) -> Callable[[Arena], Awaitable[bool]]:
    async def inject(arena: Arena) -> bool:
        return await damage.kill_agent_at(arena, point)

    return inject


def _zombie_at(point: str) -> Callable[[Arena], Awaitable[bool]]:
    async def inject(arena: Arena) -> bool:
        return await zombie_at(arena, point)

    return inject


def _kill_emitter(fault: Fault) -> Callable[[Arena], Awaitable[bool]]:
    async def inject(arena: Arena) -> bool:
        return await kill_emitter_when(arena, fault)

    return inject


def _cut(sessions: tuple[float, float]) -> Callable[[Arena], Awaitable[bool]]:
    async def inject(arena: Arena) -> bool:
        return await cut(arena, sessions)

    return inject


KINDS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind("kill", kill),
        *(FaultKind(f"kill {point}", _at(point)) for point in failpoints.COMMIT_POINTS),
        FaultKind("kill emitter", kill_emitter),
        FaultKind("kill emitter cut off", _kill_emitter(Fault.CUT)),
        FaultKind("kill emitter unanswered", _kill_emitter(Fault.SILENCE)),
        FaultKind("zombie", zombie),
        *(FaultKind(f"zombie {point}", _zombie_at(point)) for point in ZOMBIE_POINTS),
        FaultKind("rebalance add", add),
        FaultKind("rebalance remove", remove),
        FaultKind("broker kill", kill_broker),
        FaultKind("broker restart", restart_broker),
        FaultKind("cut short", _cut(SHORT_CUT)),
        FaultKind("cut long", _cut(LONG_CUT)),
        FaultKind("spool full", fill_spool),
        FaultKind("mode change", change_mode),
        FaultKind("policy change", change_policy),
        FaultKind("kill agent", damage.kill_agent),
        FaultKind("kill agents", damage.kill_agents),
        *(FaultKind(f"kill {point}", _agent_at(point)) for point in failpoints.AGENT_POINTS),
        FaultKind("kill view", damage.kill_view),
        FaultKind("redis kill", damage.kill_redis),
        FaultKind("redis flush", damage.flush_redis),
        FaultKind("redis positions back", damage.set_positions_back),
        FaultKind("redis turn back", damage.set_turn_back),
        FaultKind("redis meta overwritten", damage.damage_meta),
        FaultKind("redis keys deleted", damage.delete_keys),
        FaultKind("redis keys overwritten", damage.overwrite_keys),
    )
}
# What a plan is drawn from, again and again.
DECK = (
    *["kill"] * 10,
    *["kill emitter"] * 2,
    "kill emitter cut off",
    "kill emitter unanswered",
    *["zombie"] * 2,
    *(f"zombie {point}" for point in ZOMBIE_POINTS),
    *["rebalance add"] * 4,
    *["rebalance remove"] * 4,
    *["broker kill"] * 2,
    "broker restart",
    *["cut short"] * 2,
    "cut long",
    "spool full",
    "mode change",
    "policy change",
    *["kill agent"] * 5,
    "kill agents",
    *["kill view"] * 4,
    *["redis kill"] * 2,
    "redis flush",
    "redis positions back",
    "redis turn back",
    "redis meta overwritten",
    "redis keys deleted",
    "redis keys overwritten",
)
