"""Errors that aiokafka leaves to nobody: asyncio writes a traceback for each, and none means anything.

A client that has lost its broker fails futures that no one waits for, and a callback of its own with
an AttributeError (`Sender._fail_all` outside of a transaction). What we wait for, we hear of.
"""

import asyncio
import logging
import traceback
from pathlib import Path
from typing import Any

import aiokafka
import aiokafka.errors

log = logging.getLogger("stoploss.kafka")

_ITS_FILES = str(Path(aiokafka.__file__).parent)


def pass_over_leftovers() -> None:
    """Have the running loop write them to the debug log, in a line, unless it has a handler."""
    loop = asyncio.get_running_loop()
    if loop.get_exception_handler() is None:
        loop.set_exception_handler(_handle)


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error, message = context.get("exception"), context["message"]
    is_its = isinstance(error, Exception) and _is_its(error)
    if is_its or message.startswith("Unclosed AIOKafka"):
        log.debug("aiokafka: %s: %r", message, error)
    else:
        loop.default_exception_handler(context)


def _is_its(error: Exception) -> bool:
    if isinstance(error, aiokafka.errors.KafkaError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_ITS_FILES)
