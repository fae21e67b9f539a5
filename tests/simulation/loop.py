"""An event loop whose time stands still while anything can run, and then jumps to the next timer.

The same coroutines run in the same order every time: no clock, no socket and no address of an
object in memory has a say.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine, Generator, Mapping
from itertools import count
from typing import Any, TypeVar

Value = TypeVar("Value")


class StandstillError(Exception):
    """Everything waits for something that nobody will do."""


class _Timers(selectors.BaseSelector):
    """Instead of waiting for files, moves the time on."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.on_step: Callable[[], None] = lambda: None
        self._keys: dict[int, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.on_step()
        if timeout is None:
            raise StandstillError("nothing can run, and no timer is set")
        self.now_s += max(0.0, timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401 - as the base class
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self._keys[fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401 - as the base class
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return self._keys.pop(fd)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class _Task(asyncio.Task[Value]):
    """asyncio keeps tasks in sets, whose order follows from the hash: by default, an address."""

    def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - handed on
        self._hash = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._hash


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0; `on_step` is called each time everything that could run has run once."""

    def __init__(self) -> None:
        self._timers = _Timers()
        self._numbers = count(1)
        super().__init__(self._timers)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._timers.now_s

    def on_step(self, call: Callable[[], None]) -> None:
        self._timers.on_step = call

    def _make_task(
        self,
        _loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Value] | Generator[Any, None, Value],
        *,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Value]:
        return _Task(next(self._numbers), coroutine, loop=self, context=context)


def run(main: Coroutine[Any, Any, Value]) -> Value:
    """Run `main` to its end in a time of its own.

    Raises:
        StandstillError: it would wait for ever.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
