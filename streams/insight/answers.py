"""How often a tier's blocks are called false: each answer belongs to a block, each block to a tier.

Answers and blocks come by different topics, in any order. So what is known of a block waits on one of
a fixed number of shelves, chosen by the block's id, each with room for a few: a bound that needs no
order. Source: the user's document, scenario 2.
"""

import zlib
from copy import copy

from msgspec import Struct, field

from streams.insight.look import Look
from streams.insight.numbers import counted, period
from streams.insight.shares import Share, percent_of, share_rule
from streams.insight.signals import BlockAnswered, BlockClassed
from streams.insight.windows import Span, admit, load, save, scopes_of

FALSE_POSITIVE_RATE = "false_positive_rate"
SHELVES = 4_096
SHELF_MAX = 16  # blocks; with 65,536 altogether there is always room on a shelf until half are used
_ANSWERS, _FALSE = "answers", "false"


class Block(Struct, kw_only=True, omit_defaults=True):
    """What is known of a decision to stop: its task's tier then, and the last answer about it."""

    decision_id: str
    seen_ms: int
    tier: str | None = None
    as_of: int = -1
    false_positive: bool | None = None
    answered_ms: int = 0

    @property
    def counts_as(self) -> tuple[str | None, bool | None, int]:
        """In which tier, as what and when its answer counts."""
        return self.tier, self.false_positive, self.answered_ms


class Shelf(Struct):
    """Some blocks."""

    blocks: list[Block] = field(default_factory=list)

    def find(self, decision_id: str) -> Block | None:
        """Return a block, or None where it has not been named yet."""
        return next((one for one in self.blocks if one.decision_id == decision_id), None)

    def put(self, block: Block) -> int:
        """Add a block; return how many made room for it, those seen longest ago."""
        self.blocks.append(block)
        self.blocks.sort(key=lambda one: one.decision_id)
        if len(self.blocks) <= SHELF_MAX:
            return 0
        self.blocks.remove(min(self.blocks, key=lambda one: one.seen_ms))
        return 1


class Dropped(Struct):
    """How many blocks have made room for others."""

    blocks: int = 0


DROPPED = "dropped"


def shelf_key(decision_id: str) -> str:
    """Return the key of the shelf on which a block is kept."""
    return f"blocks/{zlib.crc32(decision_id.encode()) % SHELVES}"


def tell_block(look: Look, signal: BlockClassed | BlockAnswered) -> None:
    """Take over a block's tier or an answer about it, and judge the tiers that it moves."""
    key = shelf_key(signal.decision_id)
    shelf = load(look.windows, key, Shelf)
    block = shelf.find(signal.decision_id)
    if block is None:
        block = Block(decision_id=signal.decision_id, seen_ms=look.at_ms)
        _note_dropped(look, shelf.put(block))
    before = copy(block)
    block.seen_ms = min(block.seen_ms, look.at_ms)
    if isinstance(signal, BlockAnswered):
        block.false_positive, block.answered_ms = signal.false_positive, look.at_ms
    elif signal.as_of > block.as_of:
        block.tier, block.as_of = signal.tier, signal.as_of
    save(look.windows, key, shelf)
    if before.counts_as == block.counts_as:
        return
    _count(look, before, -1)
    _count(look, block, 1)
    for tier in sorted({one.tier for one in (before, block) if one.tier is not None}):
        _judge(look, tier)


def tell_time(look: Look) -> None:
    """Let time pass in every tier."""
    for tier in scopes_of(look.windows, FALSE_POSITIVE_RATE):
        _judge(look, tier)


def _note_dropped(look: Look, number: int) -> None:
    if number:
        dropped = load(look.windows, DROPPED, Dropped)
        dropped.blocks += number
        save(look.windows, DROPPED, dropped)


def _count(look: Look, block: Block, number: int) -> None:
    tier = block.tier
    if tier is None or block.false_positive is None:
        return
    if not admit(look.windows, FALSE_POSITIVE_RATE, tier):
        return
    span = Span.of(look.rules.false_positive_rate.window_ms)
    share = load(look.windows, _key(tier), Share)
    share.counters.advance(span, look.now_ms)
    share.counters.add(span, block.answered_ms, _ANSWERS, number)
    if block.false_positive:
        share.counters.add(span, block.answered_ms, _FALSE, number)
    save(look.windows, _key(tier), share)


def _judge(look: Look, tier: str) -> None:
    rule = look.rules.false_positive_rate
    share = load(look.windows, _key(tier), Share)
    changed = share.counters.advance(Span.of(rule.window_ms), look.now_ms)
    answers, false = share.counters.total(_ANSWERS), share.counters.total(_FALSE)
    within = period(rule.window_ms)
    if answers < rule.count_min:
        value = 0.0
        text = f"{counted(answers, 'answer')} about blocks of {tier} tasks in {within}: too few to judge"
    else:
        value = false / answers
        text = (
            f"{false:,} of {answers:,} answers about blocks of {tier} tasks in {within} call them "
            f"false: {percent_of(false, answers)}"
        )
        if value > rule.fires_above:
            text += "; the tier's thresholds may be too tight"
    edge = look.judge(share_rule(FALSE_POSITIVE_RATE, rule), share.standing, tier, value, text)
    if changed or edge is not None:
        save(look.windows, _key(tier), share)


def _key(tier: str) -> str:
    return f"{FALSE_POSITIVE_RATE}/{tier}"
