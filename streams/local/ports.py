"""Free ports on this machine."""

import contextlib
import socket

HOST = "127.0.0.1"  # nothing of a local cluster can be reached from another machine


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nobody listens on.

    Another process may take one before it is used: whoever starts a server tries again.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # As servers do it: connections of the last server that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
