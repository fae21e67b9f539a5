"""What is said of Redis: its address without a password, and what is wrong with it."""

import pytest
from redis.exceptions import ResponseError

from schemas.errors import InvalidFieldError
from streams.view.store import RedisUnavailableError, answering, redis_client, shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://ada:secret@redis:6379/1", "rediss://redis:6379/1"),
        ("redis://:sec@ret@redis:6379", "redis://redis:6379"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, said: str) -> None:
    assert shown(url) == said


def test_what_is_no_address_is_refused_without_showing_a_password() -> None:
    with pytest.raises(InvalidFieldError) as caught:
        redis_client("http://:secret@redis:6379")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(
            "Error running script (call to f_c05a): @user_script:55: @user_script: 55: -OOM: no room",
            id="Redis 6",
        ),
        pytest.param("OOM: no room script: f_c05a, on @user_script:55.", id="Redis 7"),
        pytest.param("OOM: no room", id="no script"),
    ],
)
def test_of_a_failed_script_what_failed_is_said_and_not_where(error: str) -> None:
    with pytest.raises(RedisUnavailableError) as caught, answering("redis://redis:6379/0"):
        raise ResponseError(error)
    assert str(caught.value) == "Redis at redis://redis:6379/0: OOM: no room"
