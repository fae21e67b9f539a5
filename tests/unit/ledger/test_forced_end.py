"""A process that must end ends, also where nobody reads what it says."""

import os
import subprocess
import sys

from streams.ledger.ending import FORCED_EXIT

# Its main thread writes to a pipe that is full, and holds the lock of the log.
PROGRAM = """
import logging, threading
from streams.ledger.ending import end_by_force
logging.basicConfig(level=logging.INFO)
threading.Timer(0.5, end_by_force).start()
while True:
    logging.getLogger("stoploss.ledger").info("x" * 10_000)
"""
WITHIN_S = 60


def test_a_log_that_nobody_reads_holds_no_process() -> None:
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=writing)
        os.close(writing)
        assert process.wait(WITHIN_S) == FORCED_EXIT
    finally:
        os.close(reading)
