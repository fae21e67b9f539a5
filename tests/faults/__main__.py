"""`python -m tests.faults`: everything that can go wrong, for as long as you like, from a seed.

Exit code 0 if nothing was lost, nothing counted twice, and no judge found a difference; else 1.
The same seed has the same load and the same plan of faults; when they meet is the machine's.
"""

import argparse
import asyncio
import logging
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import get_args

import msgspec

from streams.kafka.settings import Driver
from tests.faults.arena import SESSION_MS
from tests.faults.result import Result
from tests.faults.run import RATE_PER_S, run


def main() -> int:
    """Run, say what came of it, and keep it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="left out: a new one, which is printed")
    parser.add_argument("--minutes", type=float, default=10, help="of faults; default 10")
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="records a second")
    parser.add_argument(
        "--session-ms", type=int, default=SESSION_MS, help="shorter where the machine is ours alone"
    )
    parser.add_argument(
        "--driver", choices=get_args(Driver), default="aiokafka", help="of the ledgers"
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--keep", type=Path, help="keep logs and data in this new folder")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    command = f"python -m tests.faults --seed {seed} --minutes {asked.minutes:g}"
    print(f"seed {seed}: {command} --driver {asked.driver}")
    sys.stdout.flush()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("faults").setLevel(logging.INFO)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # of outages that we make
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary) / "run"
        result = asyncio.run(_until_told(seed, folder, asked))
    written = msgspec.json.format(msgspec.json.encode(result), indent=2)
    if asked.json is not None:
        asked.json.write_bytes(written + b"\n")
    print(written.decode())
    print("clean" if result.clean else "\n".join(result.differences))
    return 0 if result.clean else 1


async def _until_told(seed: int, folder: Path, asked: argparse.Namespace) -> Result:
    """Run; SIGTERM ends it as Ctrl-C does, with all that it has started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(
        seed,
        folder,
        minutes=asked.minutes,
        rate_per_s=asked.rate,
        session_ms=asked.session_ms,
        driver=asked.driver,
    )


if __name__ == "__main__":
    sys.exit(main())
