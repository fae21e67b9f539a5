"""The enforcer's own work matters more than what we would say about it: nothing raises into it."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar


class Refusing(Protocol):
    """Who counts what goes wrong, and has it logged."""

    def refuse(self, complaint: str) -> None:
        """Count and log something that was to be said and is no event."""


Owner = TypeVar("Owner", bound=Refusing)
Arguments = ParamSpec("Arguments")


def harmless(
    method: Callable[Concatenate[Owner, Arguments], None],
) -> Callable[Concatenate[Owner, Arguments], None]:
    """Count what goes wrong in `method`, arguments that do not fit it too, and do not raise it."""

    @functools.wraps(method)
    def guarded(self: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - see above
            self.refuse(f"{method.__name__}: {error!r}")

    return guarded
