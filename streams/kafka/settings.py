"""Where Kafka is and how we talk to it: `STOPLOSS_*` variables, then `stoploss.toml`, then defaults.

A setting has one name: the field here, the key in the file, and, in capitals after `STOPLOSS_`,
the variable, which wins. Tables of the file belong to other parts and are not looked at.
"""

import os
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, inspect

from schemas.errors import InvalidFieldError, InvalidFileError
from schemas.topics import DEFAULT_PREFIX, MESSAGE_BYTES_MAX, PARTITIONS_PRODUCTION, Topic
from schemas.topics import topic_name as name_of_topic

FILE_NAME = "stoploss.toml"
VARIABLE_PREFIX = "STOPLOSS_"

REBALANCE_TIMEOUT_MS = 10_000
# How long nobody decides after a ledger was killed: this, a heartbeat, and the restore. Brokers take
# no less unless they are told to (`group.min.session.timeout.ms`).
SESSION_TIMEOUT_MS = 6_000
# The answer to one is how a ledger learns that another has died.
HEARTBEAT_INTERVAL_MS = 500
# Shorter than the session: otherwise the next owner restores `tasks` while our transaction is
# still open, does not see it, and folds the same events again.
TRANSACTION_TIMEOUT_MS = 5_000
# What a batch may take from its first record to its commit. Shorter than the transaction, so that
# it is we who abort and know it; shorter than a stop, which waits for the open batch.
BATCH_DEADLINE_MS = 4_000
STOP_DEADLINE_MS = 10_000
REQUEST_TIMEOUT_MS = 20_000
assert BATCH_DEADLINE_MS < TRANSACTION_TIMEOUT_MS < SESSION_TIMEOUT_MS
assert BATCH_DEADLINE_MS < STOP_DEADLINE_MS
assert HEARTBEAT_INTERVAL_MS * 3 < SESSION_TIMEOUT_MS
# aiokafka refuses a whole batch as soon as its uncompressed size is above this.
REQUEST_BYTES_MAX = MESSAGE_BYTES_MAX

Driver = Literal["aiokafka", "librdkafka"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Prefix = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="1 to 100 letters, digits, dots, underscores and hyphens",
    ),
]
RedisUrl = Annotated[
    str,
    Meta(
        pattern=r"^(rediss?://[^/\s]+|unix:///)\S*$",
        description="redis://host:port/0, or rediss:// with TLS",
    ),
]
ReportUrl = Annotated[
    str,
    Meta(
        # Visible characters alone, and {task_id} once.
        pattern=r"^https?://[^\s{}/][^\s{}]*\{task_id\}[^\s{}]*$",
        max_length=1_000,
        description="an address that begins with https:// or http:// and has {task_id} once",
    ),
]
TracesUrl = Annotated[
    str,
    Meta(pattern=r"^https?://[^/\s]+\S*$", description="http://host:4318/v1/traces, or https"),
]
PositiveMs = Annotated[int, Meta(ge=1, le=3_600_000)]
# What both drivers take: librdkafka has these bounds, and a value means the same with either.
TransactionMs = Annotated[int, Meta(ge=1_000, le=3_600_000)]
RequestMs = Annotated[int, Meta(ge=1_000, le=300_000)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Text = Annotated[str, Meta(min_length=1)]
SECRET = frozenset({"sasl_password", "ssl_key_password", "redis_url"})  # it may hold a password


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that has to be known before a process can talk to Kafka and Redis, and be measured."""

    bootstrap_servers: Text = "127.0.0.1:9092"
    topic_prefix: Prefix = DEFAULT_PREFIX
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = PARTITIONS_PRODUCTION
    replication: Annotated[int, Meta(ge=-1, le=100)] = -1  # -1: the broker's default
    client_id: Text = "stoploss"
    group: Text = "ledger"
    driver: Driver = "aiokafka"  # of the ledger's partitions; whoever else reads or writes has one

    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: Text | None = None
    sasl_password: Text | None = None
    ssl_cafile: Text | None = None
    ssl_certfile: Text | None = None
    ssl_keyfile: Text | None = None
    ssl_key_password: Text | None = None

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"  # of the view, and of whoever looks at it

    otlp_endpoint: Text | None = None
    prometheus_port: Port | None = None  # None: not asked for, so a taken port is no error
    prometheus_host: Text = "127.0.0.1"
    otlp_traces_endpoint: TracesUrl | None = None  # None: no spans are made

    report_url: ReportUrl | None = None  # where a task's report is to be read

    session_timeout_ms: PositiveMs = SESSION_TIMEOUT_MS
    rebalance_timeout_ms: PositiveMs = REBALANCE_TIMEOUT_MS
    heartbeat_interval_ms: PositiveMs = HEARTBEAT_INTERVAL_MS
    transaction_timeout_ms: TransactionMs = TRANSACTION_TIMEOUT_MS
    batch_deadline_ms: PositiveMs = BATCH_DEADLINE_MS
    stop_deadline_ms: PositiveMs = STOP_DEADLINE_MS
    request_timeout_ms: RequestMs = REQUEST_TIMEOUT_MS

    def __repr__(self) -> str:
        shown = {name: "…" if name in SECRET and value else value for name, value in _pairs(self)}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def topic(self, topic: Topic) -> str:
        """Return the topic's name on the broker."""
        return name_of_topic(topic, self.topic_prefix)

    def group_id(self, name: str | None = None) -> str:
        """Return a consumer group's name; it holds the prefix, so two systems share a broker."""
        return f"{self.topic_prefix}{name or self.group}"

    def transactional_id(self, partition: int) -> str:
        """Return the id that fences whoever else writes what this input partition causes."""
        return f"{self.topic_prefix}{self.group}-{partition}"

    def client_kwargs(self, role: str = "") -> dict[str, Any]:
        """Return what every aiokafka client takes; `role` is added to the client's id.

        Raises:
            InvalidFieldError: a file of the TLS settings cannot be read or does not fit.
        """
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": f"{self.client_id}-{role}" if role else self.client_id,
            "request_timeout_ms": self.request_timeout_ms,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
            "sasl_mechanism": self.sasl_mechanism or "PLAIN",
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
        }

    def admin_kwargs(self, role: str = "admin") -> dict[str, Any]:
        """Return the arguments of an `AIOKafkaAdminClient`."""
        return self.client_kwargs(role)

    def consumer_kwargs(self, role: str = "consumer") -> dict[str, Any]:
        """Return the arguments of an `AIOKafkaConsumer`: committed records only, no own commits."""
        return self.client_kwargs(role) | {
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
        }

    def group_kwargs(self) -> dict[str, Any]:
        """Return what a consumer in a group takes besides `consumer_kwargs`."""
        return {
            "session_timeout_ms": self.session_timeout_ms,
            "rebalance_timeout_ms": self.rebalance_timeout_ms,
            "heartbeat_interval_ms": self.heartbeat_interval_ms,
        }

    def producer_kwargs(self, role: str = "producer") -> dict[str, Any]:
        """Return the arguments of an idempotent `AIOKafkaProducer`."""
        return self.client_kwargs(role) | {
            "enable_idempotence": True,
            "acks": "all",
            "max_request_size": REQUEST_BYTES_MAX,
        }

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None where TLS is not asked for.

        Raises:
            InvalidFieldError: a file cannot be read, or certificate and key do not fit.
        """
        if self.security_protocol not in ("SSL", "SASL_SSL"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except OSError as error:
            problem = error.strerror or str(error)
            raise InvalidFileError("ssl_cafile", self.ssl_cafile, "a CA file", problem) from None
        if self.ssl_certfile is not None:
            try:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, self._key_password)
            except OSError as error:
                problem = error.strerror or str(error)
                raise InvalidFileError(
                    "ssl_certfile", self.ssl_certfile, "a certificate and its key", problem
                ) from None
        return context

    def _key_password(self) -> str:
        """Answer OpenSSL, which would otherwise ask at the terminal."""
        return self.ssl_key_password or ""


def load_settings(
    environ: Mapping[str, str] | None = None, file: Path | None = None, **overrides: object
) -> Settings:
    """Return the settings of this process.

    Args:
        environ: `os.environ` where left out.
        file: must exist where given; otherwise `STOPLOSS_CONFIG` names it, or it is
            `stoploss.toml` in the current folder, if there is one.
        overrides: win over everything; those that are None do not count.

    Raises:
        InvalidFieldError: names the variable or the key, the value, and what is allowed.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for where, name, value in [*_from_file(environ, file), *_from_environ(environ)]:
        values[name] = _converted(where, name, value)
    for name, value in overrides.items():
        if value is not None:
            values[name] = _converted(name, name, value)
    settings = Settings(**values)
    check_settings(settings)
    return settings


def named_settings(
    environ: Mapping[str, str] | None = None, file: Path | None = None
) -> frozenset[str]:
    """Return the names of the settings that a variable or the file gives, defaults left out.

    Raises:
        InvalidFieldError: as `load_settings`, about the file.
    """
    environ = os.environ if environ is None else environ
    found = [*_from_file(environ, file), *_from_environ(environ)]
    return frozenset(name for _, name, _ in found)


def check_settings(settings: Settings) -> None:
    """Check what one field alone does not show.

    Raises:
        InvalidFieldError: names the first field that does not fit the others.
    """
    relations = (
        ("transaction_timeout_ms", "session_timeout_ms"),
        ("batch_deadline_ms", "transaction_timeout_ms"),
        ("batch_deadline_ms", "stop_deadline_ms"),
        ("heartbeat_interval_ms", "session_timeout_ms"),
    )
    for smaller, larger in relations:
        bound = getattr(settings, larger)
        if getattr(settings, smaller) >= bound:
            value = getattr(settings, smaller)
            raise InvalidFieldError(smaller, value, f"less than {larger}, which is {bound}")
    if settings.security_protocol.startswith("SASL"):
        for name in ("sasl_mechanism", "sasl_username", "sasl_password"):
            if getattr(settings, name) is None:
                allowed = f"a value: security_protocol is {settings.security_protocol}"
                raise InvalidFieldError(name, None, allowed)
    if settings.ssl_keyfile is not None and settings.ssl_certfile is None:
        raise InvalidFieldError("ssl_certfile", None, "a certificate: ssl_keyfile is given")
    if settings.replication == 0:
        raise InvalidFieldError("replication", 0, "1 or more, or -1 for the broker's default")
    _check_servers(settings.bootstrap_servers)


def _check_servers(servers: str) -> None:
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:  # noqa: PLR2004
            raise InvalidFieldError("bootstrap_servers", servers, "host:port, host:port …")


def _from_file(environ: Mapping[str, str], file: Path | None) -> list[tuple[str, str, object]]:
    named = file is not None or "STOPLOSS_CONFIG" in environ
    path = file or Path(environ.get("STOPLOSS_CONFIG", FILE_NAME))
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not named:
            return []
        field = "STOPLOSS_CONFIG" if named else "settings"
        problem = error.strerror or str(error)
        raise InvalidFileError(field, path, "a file that can be read", problem) from None
    except ValueError as error:
        raise InvalidFieldError(str(path), str(error), "TOML") from None
    found = []
    for name, value in document.items():
        if isinstance(value, dict):
            continue  # a table: another part's
        if name not in Settings.__struct_fields__:
            allowed = ", ".join(Settings.__struct_fields__)
            raise InvalidFieldError(f"{path}: {name}", value, f"one of {allowed}")
        found.append((f"{path}: {name}", name, value))
    return found


def _from_environ(environ: Mapping[str, str]) -> list[tuple[str, str, object]]:
    names = {f"{VARIABLE_PREFIX}{name.upper()}": name for name in Settings.__struct_fields__}
    return [
        (variable, name, environ[variable])
        for variable, name in names.items()
        if environ.get(variable)  # an empty variable is an unset one
    ]


_TYPES = {field.name: field.type for field in msgspec.structs.fields(Settings)}


def _converted(where: str, name: str, value: object) -> Any:  # noqa: ANN401 - any field's type
    assert name in _TYPES, name
    try:
        return msgspec.convert(value, _TYPES[name], strict=False)
    except msgspec.ValidationError:
        allowed = _allowed(inspect.type_info(_TYPES[name]))
        raise InvalidFieldError(where, "…" if name in SECRET else value, allowed) from None


def _allowed(found: inspect.Type) -> str:
    """Return what a setting takes, in words that follow "use"."""
    match found:
        case inspect.UnionType(types=types):
            return _allowed(next(one for one in types if not isinstance(one, inspect.NoneType)))
        case inspect.Metadata(extra_json_schema={"description": str(said)}):
            return said
        case inspect.LiteralType(values=values):
            return ", ".join(map(str, values))
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case _:
            return "a text of at least one character"


def _pairs(settings: Settings) -> list[tuple[str, Any]]:
    return [(name, getattr(settings, name)) for name in settings.__struct_fields__]
