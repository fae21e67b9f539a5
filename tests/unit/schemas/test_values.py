"""The small functions beside the messages: times, names of topics, the text of an error."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from schemas.envelope import epoch_ms, rfc3339
from schemas.errors import InvalidFieldError, Remedy
from schemas.events import partition_subject
from schemas.topics import BY_PARTITION, MESSAGE_BYTES_MAX, TOPICS, Topic, topic_config, topic_name


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        pytest.param(0, "1970-01-01T00:00:00.000Z", id="the beginning"),
        pytest.param(1_795_381_200_007, "2026-11-22T21:00:00.007Z", id="leading zeros"),
        pytest.param(-1, "1969-12-31T23:59:59.999Z", id="before the beginning"),
    ],
)
def test_a_time_is_written_in_utc_with_milliseconds(milliseconds: int, text: str) -> None:
    assert rfc3339(milliseconds) == text
    assert epoch_ms(datetime.fromisoformat(text)) == milliseconds


def test_a_time_is_rounded_down_to_milliseconds_in_any_zone() -> None:
    time = datetime(2026, 11, 22, 22, 0, 0, 7_999, timezone(timedelta(hours=1)))
    assert epoch_ms(time) == 1_795_381_200_007
    assert epoch_ms(time.astimezone(UTC)) == 1_795_381_200_007


def test_a_topic_has_its_prefix_and_room_for_its_largest_record() -> None:
    assert topic_name(Topic.DEAD_LETTERS) == "stoploss.dead-letters"
    assert topic_name(Topic.EVENTS, "t-1.") == "t-1.events"
    assert topic_config(Topic.DEAD_LETTERS)["max.message.bytes"] == str(MESSAGE_BYTES_MAX)
    assert topic_config(Topic.EVENTS)["message.timestamp.type"] == "LogAppendTime"


def test_what_an_event_causes_stands_in_topics_partitioned_like_it() -> None:
    assert {spec.topic for spec in TOPICS} == set(Topic)
    assert {
        Topic.EVENTS,
        Topic.TASKS,
        Topic.DECISIONS,
        Topic.BREACHES,
        Topic.EXECUTIONS,
        Topic.LIFECYCLE,
        Topic.DEAD_LETTERS,
    } == BY_PARTITION
    assert partition_subject(3) == "partition/3"


def test_an_error_names_field_value_and_what_is_allowed() -> None:
    error = InvalidFieldError("multipliers.complexity.large", 0, "a number above 0, at most 10")
    said = "multipliers.complexity.large: 0 is not allowed; use a number above 0, at most 10"
    assert (str(error), error.remedy) == (said, Remedy.DEAD_LETTER)
