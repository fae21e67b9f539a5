"""The event loop of a process that reads and writes much."""

import asyncio
import sys
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return how to make the fastest event loop there is on this platform."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - it does not exist on Windows

    return uvloop.new_event_loop
