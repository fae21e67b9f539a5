"""Calls that block: on a thread of the client that they are about, in the order of the asking."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

# A call that is made on such a thread returns after so long, if only to be made again: nothing can
# interrupt it, and the process does not end before it.
SLICE_S = 0.25
CLOSE_WITHIN_S = 2.0

P = ParamSpec("P")
T = TypeVar("T")


class Caller:
    """One thread; it is made with the first call, and ends with `close`."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    def __call__(
        self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs
    ) -> asyncio.Future[T]:
        """Call `function` after what was asked for before; cancelled, it may still be called."""
        assert not named, "an executor takes none"
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def close(self, last: Callable[[], object]) -> None:
        """Call `last` and end; not waiting for it beyond `CLOSE_WITHIN_S`."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await asyncio.shield(self(last))
        finally:
            self._pool.shutdown(wait=False)
