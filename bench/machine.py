"""Where a figure was taken, and of what commit."""

import os
import platform
import shutil
import subprocess
import time

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """`load_1m` is the load average at the time."""

    commit: str
    date: str
    cores: int
    python: str
    load_1m: float


def machine(ran_commit: str) -> Machine:
    """Return what is here now."""
    return Machine(
        commit=ran_commit,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        load_1m=round(os.getloadavg()[0], 2),
    )


def commit() -> str:
    """Return the commit that runs, with a mark where files differ from it."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unknown"
