"""What a replay found: one row per task, and the sums; shown by the command and as JSON."""

from msgspec import Struct, field

from schemas.fields import Mode, Number, Verdict
from schemas.outputs import PolicyRef
from streams.importers.summary import Unreadable


class ReplayedTask(Struct, kw_only=True):
    """One task as its last event left it; amounts in the metric's unit (tokens, ms, dollars).

    `verdict` is what stands in the end, `peak` the highest that was ever said: a grant may lie
    between them. `blocked_at` is what was used when the first block was said, that event included.
    A metric without a limit has none in `limit`.
    """

    task_id: str
    verdict: Verdict
    peak: Verdict
    used: dict[str, Number]
    limit: dict[str, Number]
    blocked_at: dict[str, Number] | None


class ReplaySummary(Struct, kw_only=True):
    """Counts and sums of a replay.

    `verdicts` counts tasks by their peak. `held` are those with a block that held under the mode:
    none in observe. `used` counts what a child used once, in its family. `unknown_usage_share` is
    of model calls, four decimals, rounded down. `policy` and `mode` are those at the end.
    """

    tasks: int
    events: int
    repeated: int
    refused: dict[str, int]
    reopened: int
    unreadable: int = 0
    unreadable_named: list[Unreadable] = field(default_factory=list)
    verdicts: dict[Verdict, int]
    held: int
    used: dict[str, Number]
    model_calls: int
    unknown_usage_share: float
    policy: PolicyRef
    mode: Mode


class ReplayResult(Struct, kw_only=True):
    """`stoploss replay --json` prints this; tasks in the order in which they were first named."""

    summary: ReplaySummary
    tasks: list[ReplayedTask]
