"""How the mode of all partitions is set: the event and its entry in `audit`, in one transaction."""

from collections.abc import Sequence

from schemas.audit import Action, Audit
from schemas.events import ModeSetData
from streams.cli.operating import AllOutcome, held_before, operate_on_all
from streams.cli.reading import LedgerView, Log


async def set_mode(
    log: Log,
    data: ModeSetData,
    timeout_s: float,
    *,
    after: dict[str, str] | None = None,
    flags: Sequence[str] = (),
) -> AllOutcome:
    """Say who is really held, in every partition.

    Args:
        log: all that the ledger reads and writes, and `audit`.
        data: the mode, by whom and why.
        timeout_s: how long the ledgers may take.
        after: what else the entry says of what holds now.
        flags: of the entry.

    Raises:
        StoplossError: as `operate_on_all`.
    """

    def noted(before: LedgerView) -> Audit:
        return Audit(
            subject="mode",
            action=Action.MODE_SET,
            by=data.by,
            reason=data.reason,
            before=held_before(before, mode=lambda state: state.mode.value),
            after={"mode": data.mode.value} | (after or {}),
            flags=list(flags),
        )

    return await operate_on_all(log, "stoploss.mode.set", data, timeout_s, noted)
