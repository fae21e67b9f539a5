"""How a command ends, whatever it ended by."""

import asyncio
from collections.abc import Callable

import aiokafka.errors
import pytest

from schemas.errors import InvalidFieldError, StoplossError, UnavailableError
from streams.cli.exits import AnswerIsNoError, run
from streams.kafka.topics import TopicCreationError


def raising(error: BaseException) -> Callable[[], object]:
    def command() -> object:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        pytest.param(AnswerIsNoError("no"), 1, "no\n", id="the answer is no"),
        pytest.param(AnswerIsNoError("a\nb"), 1, "a\nb\n", id="it may have several lines"),
        pytest.param(TopicCreationError("t", "x"), 1, None, id="the broker refuses"),
        pytest.param(StoplossError("no"), 1, "no\n", id="another error of ours"),
        pytest.param(InvalidFieldError("f", 1, "2"), 2, None, id="wrong usage"),
        pytest.param(UnavailableError("away"), 3, "away\n", id="a part is away"),
        pytest.param(aiokafka.errors.KafkaConnectionError("x"), 3, None, id="Kafka is away"),
        pytest.param(TimeoutError(), 3, "TimeoutError\n", id="a deadline"),
        pytest.param(
            BaseExceptionGroup("g", [UnavailableError("away")]), 3, "away\n", id="in a task group"
        ),
        pytest.param(KeyboardInterrupt(), 130, "", id="Ctrl-C says nothing"),
        pytest.param(asyncio.CancelledError(), 130, "", id="nor does its way through asyncio"),
        pytest.param(SystemExit(5), 5, "", id="an exit code of its own"),
        pytest.param(
            RuntimeError("oh\nno"),
            70,
            "a defect of stoploss: RuntimeError('oh\\nno'); STOPLOSS_DEBUG=1 shows where\n",
            id="a defect is one line, too",
        ),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(
    error: BaseException,
    code: int,
    said: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STOPLOSS_DEBUG", raising=False)
    assert run(raising(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == said or (said is None and captured.err.count("\n") == 1)


def test_a_command_that_returns_a_code_ends_with_it() -> None:
    assert run(lambda: 3) == 3
    assert run(lambda: None) == 0
