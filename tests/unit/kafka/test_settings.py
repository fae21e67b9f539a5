"""Settings: where they come from, which wins, and what is said of a bad one."""

import json
import re
import ssl
from pathlib import Path

import pytest

from schemas.errors import InvalidFieldError
from schemas.topics import Topic
from streams.kafka.settings import (
    BATCH_DEADLINE_MS,
    SESSION_TIMEOUT_MS,
    TRANSACTION_TIMEOUT_MS,
    Settings,
    load_settings,
)


def test_without_anything_the_defaults_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({}) == Settings()


def test_a_variable_wins_over_the_file_and_an_argument_over_both(tmp_path: Path) -> None:
    file = tmp_path / "stoploss.toml"
    file.write_text(
        'topic_prefix = "file."\npartitions = 3\nreplication = 2\n[client]\nspool = 1\n'
    )
    environ = {"STOPLOSS_PARTITIONS": "5", "STOPLOSS_REPLICATION": "3", "STOPLOSS_GROUP": ""}
    found = load_settings(environ, file, replication=1, client_id=None)
    assert found == Settings(topic_prefix="file.", partitions=5, replication=1)


def test_the_file_of_the_current_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stoploss.toml").write_text('group = "other"')
    monkeypatch.chdir(tmp_path)
    assert load_settings({}).group == "other"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        pytest.param(
            {"STOPLOSS_PARTITIONS": "0"},
            "STOPLOSS_PARTITIONS: '0' is not allowed; use a whole number from 1 to 10000",
            id="out of range",
        ),
        *[
            pytest.param(
                {"STOPLOSS_REPORT_URL": url},
                f"STOPLOSS_REPORT_URL: '{url}' is not allowed; use an address that begins with "
                "https:// or http:// and has {task_id} once",
                id=f"report_url {url}",
            )
            for url in (
                "budget.example/{task_id}",
                "https://budget.example/tasks",
                "https://budget.example/{task_id}/{task_id}",
                "https://budget.example/{task}/{task_id}",
                "https://budget.example/a b/{task_id}",
            )
        ],
        pytest.param(
            {"STOPLOSS_SECURITY_PROTOCOL": "tls"},
            "STOPLOSS_SECURITY_PROTOCOL: 'tls' is not allowed; "
            "use PLAINTEXT, SASL_PLAINTEXT, SASL_SSL, SSL",
            id="none of the choices",
        ),
        pytest.param(
            {"STOPLOSS_BOOTSTRAP_SERVERS": "kafka"},
            "bootstrap_servers: 'kafka' is not allowed; use host:port, host:port …",
            id="no port",
        ),
        pytest.param(
            {"STOPLOSS_TRANSACTION_TIMEOUT_MS": "6000"},
            "transaction_timeout_ms: 6000 is not allowed; "
            "use less than session_timeout_ms, which is 6000",
            id="a transaction must not outlive its session",
        ),
        pytest.param(
            {"STOPLOSS_SECURITY_PROTOCOL": "SASL_SSL", "STOPLOSS_SASL_MECHANISM": "PLAIN"},
            "sasl_username: None is not allowed; use a value: security_protocol is SASL_SSL",
            id="SASL without a name",
        ),
        pytest.param(
            {"STOPLOSS_REDIS_URL": "http://:secret@host"},
            "STOPLOSS_REDIS_URL: '…' is not allowed; use redis://host:port/0, or rediss:// with TLS",
            id="not of a Redis, and its password is not shown",
        ),
        pytest.param(
            {"STOPLOSS_SSL_KEYFILE": "key.pem"},
            "ssl_certfile: None is not allowed; use a certificate: ssl_keyfile is given",
            id="a key without its certificate",
        ),
        pytest.param(
            {"STOPLOSS_CONFIG": "no/such.toml"},
            "STOPLOSS_CONFIG: 'no/such.toml' is not allowed; "
            "use a file that can be read (No such file or directory)",
            id="a file that is not there",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(environ: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        load_settings(environ)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("partition = 4", "partition: 4 is not allowed; use one of ", id="unknown key"),
        pytest.param("partitions = ", "Invalid value", id="no TOML"),
        pytest.param(
            "prometheus_port = 70000", "prometheus_port: 70000 is not allowed", id="out of range"
        ),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InvalidFieldError) as caught:
        load_settings({}, file)
    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def allowed_in(file: Path) -> str:
    """Return what is allowed instead of what stands there, which may be fine."""
    try:
        load_settings({}, file)
    except InvalidFieldError as error:
        return error.allowed
    return "that"


@pytest.mark.parametrize("name", Settings.__struct_fields__)
@pytest.mark.parametrize("bad", [[1], -5, "abc", "a b", 10**9, ""])
def test_what_is_allowed_is_said_in_words(tmp_path: Path, name: str, bad: object) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"{name} = {json.dumps(bad)}")
    assert not re.search("[`|]|int|str|null|None|[Ee]xpected|regex", allowed_in(file))


@pytest.mark.parametrize(
    ("variable", "allowed"),
    [
        ("PROMETHEUS_PORT", "a whole number from 1 to 65535"),
        ("REPLICATION", "a whole number from -1 to 100"),
        ("SESSION_TIMEOUT_MS", "a whole number from 1 to 3600000"),
        ("TOPIC_PREFIX", "1 to 100 letters, digits, dots, underscores and hyphens"),
        ("SASL_MECHANISM", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
    ],
)
def test_a_variable_of_another_kind_is_named(variable: str, allowed: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        load_settings({f"STOPLOSS_{variable}": "a b"})
    assert str(caught.value) == f"STOPLOSS_{variable}: 'a b' is not allowed; use {allowed}"


def test_a_password_is_never_shown() -> None:
    assert "hunter2" not in repr(load_settings({"STOPLOSS_SASL_PASSWORD": "hunter2"}))


def test_names_hold_the_prefix_so_that_two_systems_share_a_broker() -> None:
    settings = load_settings({}, topic_prefix="test.")
    assert settings.topic(Topic.EVENTS) == "test.events"
    assert settings.group_id() == "test.ledger"
    assert settings.transactional_id(3) == "test.ledger-3"


def test_a_transaction_ends_before_its_session_and_a_batch_before_its_transaction() -> None:
    assert BATCH_DEADLINE_MS < TRANSACTION_TIMEOUT_MS < SESSION_TIMEOUT_MS


def test_tls_has_a_context_and_plain_text_none() -> None:
    assert load_settings({}).client_kwargs()["ssl_context"] is None
    secure = load_settings({}, security_protocol="SSL").client_kwargs("reader")
    assert isinstance(secure["ssl_context"], ssl.SSLContext)
    assert secure["client_id"] == "stoploss-reader"


@pytest.mark.parametrize("field", ["ssl_cafile", "ssl_certfile"])
def test_a_certificate_that_cannot_be_read_is_named(field: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    settings = load_settings({}, None, security_protocol="SSL", **{field: missing})
    with pytest.raises(InvalidFieldError, match=f"{field}: .*missing.pem"):
        settings.client_kwargs()
