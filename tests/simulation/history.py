"""One seed, one history, one answer."""

import contextlib
import logging
from collections.abc import Iterator

from msgspec import Struct

from tests.simulation.faults import Met
from tests.simulation.judge import JUDGES
from tests.simulation.links import Link
from tests.simulation.loop import StandstillError, run
from tests.simulation.world import Tell, World

log = logging.getLogger("stoploss.ledger")


class Outcome(Struct, kw_only=True):
    """What a history came to; `problems` is empty where all is well."""

    seed: int
    problems: list[str]
    digest: str
    met: Met
    events: int
    simulated_s: float


def run_history(seed: int, make_link: type[Link] = Link, tell: Tell | None = None) -> Outcome:
    """Run the history of a seed, and judge it.

    Args:
        seed: the same one gives the same history.
        make_link: the ports that the ledgers get.
        tell: is told what happens, in lines.
    """
    world = World(seed, make_link, tell)
    with _listening(world, tell):
        try:
            run(world.live())
        except StandstillError as error:
            world.problems.append(f"{error}")
        else:
            for judge in JUDGES:
                world.problems += [str(difference) for difference in judge(world)]
    return Outcome(
        seed=seed,
        problems=world.problems,
        digest=world.digest,
        met=world.met,
        events=world.events,
        simulated_s=world.simulated_s,
    )


class _Complaints(logging.Handler):
    """Hears what the driver logs: an error is a problem, all else is for the trace."""

    def __init__(self, world: World, tell: Tell | None) -> None:
        super().__init__(logging.ERROR if tell is None else logging.INFO)
        self._world, self._tell = world, tell

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.exc_info is not None:
            line += f": {record.exc_info[1]!r}"
        if self._tell is not None:
            self._tell(f"          {line}")
        if record.levelno >= logging.ERROR:
            self._world.problems.append(line)


@contextlib.contextmanager
def _listening(world: World, tell: Tell | None) -> Iterator[None]:
    handler = _Complaints(world, tell)
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(handler.level)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
