"""Topics: what differs is named; where a key goes is the same for everybody."""

import pytest

from schemas.topics import TOPICS, Topic, topic_config
from streams.kafka.settings import Settings
from streams.kafka.topics import TopicDifference, TopicFound, partition_for, topic_differences

SETTINGS = Settings()


def as_they_should_be(partitions: int) -> dict[str, TopicFound]:
    return {
        SETTINGS.topic(spec.topic): TopicFound(
            spec.partitions or partitions, topic_config(spec.topic) | {"segment.bytes": "1"}
        )
        for spec in TOPICS
    }


def test_topics_as_they_should_be_do_not_differ() -> None:
    assert topic_differences(as_they_should_be(4), SETTINGS, 4) == []


def test_every_difference_is_named() -> None:
    found = as_they_should_be(4)
    events = found["stoploss.events"]
    found["stoploss.events"] = TopicFound(
        5, events.config | {"message.timestamp.type": "CreateTime"}
    )
    del found["stoploss.audit"]  # missing is not different
    assert topic_differences(found, SETTINGS, 4) == [
        TopicDifference("stoploss.events", "partitions", "5", "4"),
        TopicDifference("stoploss.events", "message.timestamp.type", "CreateTime", "LogAppendTime"),
    ]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        pytest.param("cleanup.policy", "delete,compact", id="the order of a list"),
        pytest.param("retention.ms", "3600000.0", id="how a number is written"),
    ],
)
def test_what_means_the_same_does_not_differ(setting: str, value: str) -> None:
    found = as_they_should_be(4)
    name = SETTINGS.topic(Topic.HEARTBEATS)
    found[name] = TopicFound(1, found[name].config | {setting: value})
    assert topic_differences(found, SETTINGS, 4) == []


# From the tests of Apache Kafka's own UtilsTest.testMurmur2, as signed 32-bit numbers.
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hashed"), list(MURMUR2.items()))
def test_a_key_goes_where_java_sends_it(key: bytes, hashed: int) -> None:
    assert partition_for(key, 12) == (hashed & 0x7FFFFFFF) % 12
