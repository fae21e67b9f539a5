"""How a command ends: the exit codes of the contract, and every error as one line on stderr."""

import asyncio
import enum
import os
import sys
import traceback
from collections.abc import Callable, Sequence

import aiokafka.errors
import typer

from schemas.errors import InvalidFieldError, StoplossError, UnavailableError
from streams.budget.policy import InvalidPolicyError
from streams.cli.show import plain
from streams.importers.lines import LogFileError
from streams.importers.summary import Unreadable
from streams.insight.numbers import counted
from streams.local.cluster import AlreadyRunningError
from streams.local.folder import NoDataFolderError

WRONG_USAGE_ERRORS = (
    InvalidFieldError,
    InvalidPolicyError,
    LogFileError,
    NoDataFolderError,
    AlreadyRunningError,
)
UNREACHABLE_ERRORS = (UnavailableError, aiokafka.errors.KafkaError, ConnectionError, TimeoutError)


class Exit(enum.IntEnum):
    """Exit codes; the last three are those a shell gives."""

    FINE = 0
    NO = 1  # the answer is no
    WRONG_USAGE = 2
    UNREACHABLE = 3
    DEFECT = 70  # of ours: EX_SOFTWARE
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class AnswerIsNoError(StoplossError):
    """The command did what was asked, and the answer is no."""


def run(command: Callable[[], object]) -> int:
    """Run `command`; return the exit code, after whatever went wrong was said in one line."""
    try:
        code = command()
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - here the room ends
        return _ended_by(error)
    return code if isinstance(code, int) else Exit.FINE


def _ended_by(error: BaseException) -> int:
    match error:
        case KeyboardInterrupt() | typer.Abort() | asyncio.CancelledError():
            return Exit.INTERRUPTED
        case SystemExit(__context__=BrokenPipeError()):  # typer's own way with it
            return Exit.BROKEN_PIPE
        case SystemExit():
            return error.code if isinstance(error.code, int) else Exit.NO
        case BrokenPipeError():
            # Python flushes once more at its end, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.BROKEN_PIPE
        case BaseExceptionGroup():
            return _ended_by(error.exceptions[0])
        case typer.Exit():
            return error.exit_code
        case typer.TyperException():
            say(usage_line(error))
            return Exit.WRONG_USAGE
        case _ if isinstance(error, WRONG_USAGE_ERRORS):
            say_lines(str(error))
            return Exit.WRONG_USAGE
        case _ if isinstance(error, UNREACHABLE_ERRORS):
            say(str(error) or type(error).__name__)
            return Exit.UNREACHABLE
        case StoplossError():
            say_lines(str(error))
            return Exit.NO
        case _:
            return _defect(error)


def _defect(error: BaseException) -> int:
    if os.environ.get("STOPLOSS_DEBUG"):
        traceback.print_exception(error)
    say(f"a defect of stoploss: {error!r}; STOPLOSS_DEBUG=1 shows where")
    return Exit.DEFECT


def usage_line(error: typer.TyperException) -> str:
    """Return what is wrong with a command line, and where to read on."""
    message = error.format_message().rstrip(".").replace("Invalid value for ", "")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "stoploss"
    return f"{message}; see `{command} --help`"


def say(message: str) -> None:
    """Print one line to stderr, whatever `message` holds."""
    print(plain(" ".join(message.split())), file=sys.stderr, flush=True)


def say_unreadable(count: int, named: Sequence[Unreadable]) -> None:
    """Say how many lines of logs could not be read, and which; not all of very many are named."""
    if count:
        which = ", the first of them" if count > len(named) else ""
        say(f"{counted(count, 'line')} could not be read{which}:")
    for each in named:
        say(f"{each.file}:{each.line}: {each.reason}")


def say_lines(message: str) -> None:
    """Print each line of `message` to stderr."""
    for line in message.splitlines():
        say(line)
