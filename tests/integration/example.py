"""The example enforcer as a process."""

import asyncio
import os
import sys
from pathlib import Path

from streams.kafka.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "enforcer.py"
TASK = "TASK-1"


async def start_example(
    settings: Settings, folder: Path, *options: str
) -> asyncio.subprocess.Process:
    """Start it on a task of its own; its spool is in `folder`."""
    environ = os.environ | {
        "STOPLOSS_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "STOPLOSS_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": str(EXAMPLE.parents[1]),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), TASK, *options, cwd=folder, env=environ
    )
