"""How a ledger's process is told to end, and ended by force where it does not.

None of it waits for the event loop: that may be what holds the process, in a write to a log that nobody
reads, say. A signal's number is written to a socket at once, whatever the main thread does, and a thread
waits at its other end. What holds the interpreter itself holds that thread too: then whoever has started
the process kills it.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection
from types import FrameType

log = logging.getLogger("stoploss.ledger")

FORCED_EXIT = 70  # a defect, be it a library's: EX_SOFTWARE
TELL_WITHIN_S = 1.0  # what a process that is ended by force says; nobody may be reading it
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def listening(
    tell: Callable[[], object], within_s: float, stop_fd: int | None = None
) -> Iterator[None]:
    """Have the process told to end by a signal, or by `stop_fd`; then it ends within a bounded time.

    To be entered in the main thread while its event loop runs: a loop that begins takes what it hears
    of signals by for itself.

    Args:
        tell: called once, in a thread, when it is to end.
        within_s: how long it may take; then it is ended with `FORCED_EXIT`.
        stop_fd: becomes readable when whoever has started the process has ended.
    """
    hearing, told = socket.socketpair()
    told.settimeout(0.0)
    force = threading.Timer(within_s, end_by_force)
    force.daemon = True  # who ends in time does not wait for it

    def listen() -> None:
        if _is_told(hearing, stop_fd):
            force.start()
            tell()

    handlers = [(number, signal.signal(number, _heard)) for number in SIGNALS]
    loops_own = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, name="told-to-end", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(loops_own)
        for number, handler in handlers:
            signal.signal(number, handler)
        told.close()
        thread.join()
        hearing.close()


def _heard(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: without a handler there would be nothing to hear either."""


def _is_told(hearing: socket.socket, stop_fd: int | None) -> bool:
    """Wait until the process is to end; False: nobody wants to know any more."""
    ends: list[socket.socket | int] = [hearing] if stop_fd is None else [hearing, stop_fd]
    while True:
        if stop_fd in connection.wait(ends):
            return True
        number = hearing.recv(1)
        if not number:
            return False
        if number[0] in SIGNALS:
            return True


def end_by_force() -> None:
    """End, and say why if anybody reads it: who holds us may be who does not."""
    telling = threading.Thread(target=_tell_by_force, daemon=True)
    telling.start()
    telling.join(TELL_WITHIN_S)
    os._exit(FORCED_EXIT)


def _tell_by_force() -> None:
    log.error("ledger: does not end: ended by force; what every thread was doing:")
    for handler in logging.root.handlers:
        handler.flush()
    faulthandler.dump_traceback()
