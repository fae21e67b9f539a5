"""Where notices go: the tables `[sinks.NAME]` of `stoploss.toml`.

    [sinks.oncall]
    kind = "slack"                       # slack, webhook or log
    url = "https://hooks.example/T000/B000"
    secret = "…"                         # webhook only: signs each request
    min_severity = "warning"             # info, warning or critical; info is everything
    send = ["alert", "completion"]       # both, where it is left out

Secret and url are better kept in variables: STOPLOSS_SINK_ONCALL_SECRET, STOPLOSS_SINK_ONCALL_URL.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from schemas.alerts import Severity
from schemas.errors import InvalidFieldError, InvalidFileError
from schemas.topics import Topic
from streams.insight.notices import SEVERITIES, Notice, NoticeKind
from streams.kafka.settings import FILE_NAME

TABLE = "sinks"
VARIABLE = "STOPLOSS_SINK_{name}_{field}"
FROM_VARIABLES = ("url", "secret")
SINKS_MAX = 16
TOPICS = (Topic.ALERTS, Topic.REPORTS)  # what notices are made of
GROUP = "delivery-"  # and the name: the group that keeps a sink's position

_ALLOWED = {
    "name": "up to 32 small letters, digits and hyphens, a letter first",
    "kind": "webhook, slack or log",
    "url": "an address that begins with https:// or http://",
    "secret": "a text",
    "min_severity": ", ".join(Severity),
    "send": f"a list of {', '.join(NoticeKind)}",
}

Kind = Literal["webhook", "slack", "log"]
SinkName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class Sink(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One place that notices are sent to; each has its own position in the topics."""

    name: SinkName
    kind: Kind
    url: str | None = None
    secret: str | None = None
    min_severity: Severity = Severity.INFO
    send: tuple[NoticeKind, ...] = tuple(NoticeKind)

    def __repr__(self) -> str:
        # A webhook's url is a secret as well: who knows it can write there.
        return f"<Sink {self.name} {self.kind}>"

    @property
    def group(self) -> str:
        """The name of its group, without the prefix."""
        return f"{GROUP}{self.name}"

    def wants(self, notice: Notice) -> bool:
        """Whether a notice goes there."""
        severe = SEVERITIES.index(notice.severity) >= SEVERITIES.index(self.min_severity)
        # That a task has ended is said whatever became of it.
        return notice.kind in self.send and (severe or notice.kind is NoticeKind.COMPLETION)


def load_sinks(environ: Mapping[str, str] | None = None, file: Path | None = None) -> list[Sink]:
    """Return the sinks that are configured, in the order of the file; none is the default.

    Raises:
        InvalidFieldError: one is wrong; the message names field, value and what is allowed.
    """
    environ = os.environ if environ is None else environ
    path = file or Path(environ.get("STOPLOSS_CONFIG", FILE_NAME))
    tables = _tables(path)
    if len(tables) > SINKS_MAX:
        raise InvalidFieldError(f"{path}: {TABLE}", len(tables), f"at most {SINKS_MAX}")
    return [
        _sink(f"{path}: {TABLE}.{name}", name, table, environ) for name, table in tables.items()
    ]


def _tables(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = error.strerror or str(error)
        raise InvalidFileError(TABLE, path, "a file that can be read", problem) from None
    except ValueError as error:
        raise InvalidFieldError(str(path), str(error), "TOML") from None
    tables = document.get(TABLE, {})
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        raise InvalidFieldError(f"{path}: {TABLE}", tables, "tables such as [sinks.oncall]")
    return cast("dict[str, Any]", tables)


def _sink(where: str, name: str, table: Mapping[str, Any], environ: Mapping[str, str]) -> Sink:
    fields = {"name": name, **table}
    for field in FROM_VARIABLES:
        variable = VARIABLE.format(name=name.upper().replace("-", "_"), field=field.upper())
        if environ.get(variable):
            fields[field] = environ[variable]
    try:
        sink = msgspec.convert(fields, Sink)
    except msgspec.ValidationError as error:
        raise _refusal(where, fields, str(error)) from None
    if sink.kind != "log":
        _check_url(where, sink.url)
    if sink.secret is not None and sink.kind != "webhook":
        raise InvalidFieldError(f"{where}.secret", "…", "none: only a webhook signs")
    return sink


def _refusal(where: str, fields: Mapping[str, Any], problem: str) -> InvalidFieldError:
    """Return msgspec's complaint as ours; a secret is not shown."""
    found = re.search(r"`\$\.(\w+)|field `(\w+)`", problem)
    field = (found[1] or found[2]) if found else ""
    value = "…" if field in FROM_VARIABLES else fields.get(field)
    known = ", ".join(name for name in Sink.__struct_fields__ if name != "name")
    return InvalidFieldError(f"{where}.{field}", value, _ALLOWED.get(field, f"one of {known}"))


def _check_url(where: str, url: str | None) -> None:
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = None if url is None else "…"
        raise InvalidFieldError(f"{where}.url", shown, _ALLOWED["url"])
