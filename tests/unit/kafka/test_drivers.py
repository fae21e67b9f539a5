"""Which library reads and writes, and what of our settings the second one is told."""

import sys
from typing import get_args

import pytest
from confluent_kafka import Consumer, Producer

from schemas.errors import InvalidFieldError
from streams.kafka.connection import KafkaConnect
from streams.kafka.drivers import connect_by
from streams.kafka.librdkafka.config import client_config, consumer_config, producer_config
from streams.kafka.librdkafka.connection import RdConnect
from streams.kafka.settings import Driver, Settings, load_settings

ROOM = "streams.kafka.librdkafka"


def test_aiokafka_is_what_nobody_has_to_ask_for() -> None:
    assert isinstance(connect_by(Settings()), KafkaConnect)


def test_a_variable_chooses_the_driver() -> None:
    settings = load_settings({"STOPLOSS_DRIVER": "librdkafka"})
    assert isinstance(connect_by(settings), RdConnect)


def test_another_driver_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidFieldError) as caught:
        load_settings({"STOPLOSS_DRIVER": "sarama"})
    assert str(caught.value) == (
        "STOPLOSS_DRIVER: 'sarama' is not allowed; use aiokafka, librdkafka"
    )


def test_a_driver_that_is_not_installed_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith(ROOM)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(InvalidFieldError) as caught:
        connect_by(Settings(driver="librdkafka"))
    assert str(caught.value).startswith(
        "driver: 'librdkafka' is not allowed; use aiokafka, or install stoploss[librdkafka] ("
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(Settings(), id="the defaults"),
        pytest.param(
            Settings(request_timeout_ms=1_000, transaction_timeout_ms=1_000), id="the shortest"
        ),
        pytest.param(
            Settings(request_timeout_ms=300_000, transaction_timeout_ms=3_600_000), id="the longest"
        ),
        pytest.param(
            Settings(
                security_protocol="SASL_PLAINTEXT",
                sasl_mechanism="SCRAM-SHA-512",
                sasl_username="us",
                sasl_password="secret",  # noqa: S106 - nobody's
            ),
            id="with a password",
        ),
        pytest.param(Settings(security_protocol="SSL"), id="with the system's authorities"),
    ],
)
def test_librdkafka_takes_every_name_and_value(settings: Settings) -> None:
    Consumer(consumer_config(settings, "test")).close()
    Producer(producer_config(settings, 0)).close()


@pytest.mark.parametrize("driver", get_args(Driver))
@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("transaction_timeout_ms", "999", "a whole number from 1000 to 3600000"),
        ("request_timeout_ms", "999", "a whole number from 1000 to 300000"),
        ("request_timeout_ms", "300001", "a whole number from 1000 to 300000"),
    ],
)
def test_a_time_that_a_driver_would_change_is_refused_for_each(
    driver: Driver, name: str, value: str, allowed: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        load_settings({f"STOPLOSS_{name.upper()}": value}, driver=driver)
    assert str(caught.value) == f"STOPLOSS_{name.upper()}: {value!r} is not allowed; use {allowed}"


def test_each_driver_is_told_the_times_as_they_are_set() -> None:
    settings = Settings(request_timeout_ms=1_234, transaction_timeout_ms=1_235)
    assert consumer_config(settings, "test")["socket.timeout.ms"] == 1_234
    assert client_config(settings, "test")["socket.connection.setup.timeout.ms"] == 1_234
    assert producer_config(settings, 0)["transaction.timeout.ms"] == 1_235
    assert settings.client_kwargs()["request_timeout_ms"] == 1_234


def test_tls_and_passwords_have_its_names() -> None:
    settings = Settings(
        bootstrap_servers="kafka:9093",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username="us",
        sasl_password="secret",  # noqa: S106 - nobody's
        ssl_cafile="ca.pem",
        ssl_certfile="client.pem",
        ssl_key_password="of the key",  # noqa: S106 - nobody's
    )
    config = client_config(settings, "test")
    told = {name: value for name, value in config.items() if name.startswith(("sasl", "ssl"))}
    assert told == {
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "us",
        "sasl.password": "secret",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "client.pem",
        "ssl.key.location": "client.pem",
        "ssl.key.password": "of the key",
    }
    assert config["security.protocol"] == "SASL_SSL"
    assert config["bootstrap.servers"] == "kafka:9093"


def test_a_ledger_of_either_driver_has_the_same_transactional_id() -> None:
    settings = Settings(topic_prefix="ours.", group="two")
    assert producer_config(settings, 3)["transactional.id"] == settings.transactional_id(3)
