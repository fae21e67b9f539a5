"""What an import found: filled while its events are taken, shown by the command and as JSON."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field

UNREADABLE_NAMED_MAX = 20
MODELS_NAMED_MAX = 200
OTHER_MODELS = "(other models)"
NO_MODEL = "(no model named)"


class Unreadable(Struct, frozen=True):
    """A line that was skipped: where, and why."""

    file: str
    line: Annotated[int, Meta(ge=1)]
    reason: str


class TokenTotals(Struct):
    """Tokens by class; the first four are disjoint, `reasoning` is a part of `output`."""

    uncached_input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """All input and all output."""
        return self.uncached_input + self.cache_read + self.cache_write + self.output


class ImportSummary(Struct, kw_only=True):
    """Counts of one import. `repeats` are reports of a call that was counted already."""

    files: int = 0
    files_skipped: int = 0
    lines: int = 0
    events: int = 0
    sessions: int = 0
    subagents: int = 0
    subagents_seen_in_progress: int = 0
    calls: int = 0
    repeats: int = 0
    unknown_usage: int = 0
    counter_resets: int = 0
    clock_jumps: int = 0
    unreadable: int = 0
    unreadable_named: list[Unreadable] = field(default_factory=list)
    tokens: TokenTotals = field(default_factory=TokenTotals)
    cost_usd: Decimal = Decimal(0)
    calls_priced_by_model: dict[str, int] = field(default_factory=dict)
    calls_unpriced_by_model: dict[str, int] = field(default_factory=dict)

    def count_unreadable(self, path: Path, line: int, reason: str) -> None:
        """Count a line that was skipped; the first ones are named."""
        self.unreadable += 1
        if len(self.unreadable_named) < UNREADABLE_NAMED_MAX:
            self.unreadable_named.append(Unreadable(str(path), line, reason))

    def count_cost(self, model: str | None, cost_usd: Decimal | None) -> None:
        """Count a call as priced or not; a call without a price is unknown, never free."""
        models = self.calls_unpriced_by_model if cost_usd is None else self.calls_priced_by_model
        name = model or NO_MODEL
        if name not in models and len(models) >= MODELS_NAMED_MAX:
            name = OTHER_MODELS
        models[name] = models.get(name, 0) + 1
        if cost_usd is not None:
            self.cost_usd += cost_usd
