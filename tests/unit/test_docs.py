"""What the documents say is there: commands, options, links, metrics, settings, topics, health."""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import prometheus_client
import pytest
import typer.main
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader

from schemas.topics import DAY_MS, SPECS, Topic
from streams.agents.delivery.sinks import Sink
from streams.agents.metrics import export_to as agents_export
from streams.budget.alert_rules import default_alert_rules
from streams.budget.policy import builtin_policy, policy_json
from streams.cli.main import app
from streams.kafka.settings import Settings
from streams.kafka.telemetry import Readers, nobody
from streams.ledger.health import Health
from streams.ledger.metrics import export_to as ledger_export
from streams.view.metrics import export_to as view_export

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs/operations.md"
TROUBLESHOOTING = ROOT / "docs/TROUBLESHOOTING.md"
METRICS = ROOT / "docs/metrics.md"
DOCUMENTS = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
# It names what is to come, and that is not there yet.
OF_TOMORROW = {ROOT / "docs/plan.md"}

# A command begins a line or a piece of code, or follows a prompt, a setting or an arrow. Elsewhere
# `stoploss` is a word of a sentence that some command printed.
COMMAND = re.compile(
    r"(?:^|[$→`|;&(]\s*|[A-Z_]+=\S+\s+|\.venv/bin/)stoploss(?=\s|$)(?P<rest>[^`|;&>#]*)"
)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
METRIC = re.compile(r"stoploss[._](?:ledger|agents|view)[._]\w+")
VARIABLE = re.compile(r"STOPLOSS_[A-Z_]*[A-Z]")
SETTING_LIKE = re.compile(r"(?:\w+_ms|(?:sasl|ssl|otlp|prometheus|bootstrap|topic)_\w+)")


class Said(NamedTuple):
    """A piece of code in a document, and where it stands."""

    where: str
    code: str


def code(document: Path) -> Iterator[Said]:
    """Yield each line of a fenced block, and each inline piece of code."""
    fenced = False
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        where = f"{document.relative_to(ROOT)}:{number}"
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            yield Said(where, line.strip())
        else:
            for inline in INLINE.findall(line):
                yield Said(where, inline)
    assert not fenced, f"{document}: a block is not closed"


def words(text: str) -> list[str]:
    """Return the words of a command line; an output may hold a quote that is never closed."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def wrong_with(rest: str) -> str | None:
    """Return what is wrong with the words after `stoploss`, None where they are a command."""
    command: Any = typer.main.get_command(app)
    named = list(words(rest))
    while named and hasattr(command, "commands"):
        name = named[0].rstrip(",.:")
        if name.startswith(("-", "…")):
            break
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
        named.pop(0)
    known = {"--help", "-h"}
    for parameter in command.params:
        known.update(parameter.opts, parameter.secondary_opts)
    for word in named:
        option = word.partition("=")[0].rstrip(",.:")
        if option.startswith("--") and option not in known:
            return f"no option {option}"
    return None


@cache
def all_options() -> frozenset[str]:
    found = {"--help"}

    def collect(command: Any) -> None:  # noqa: ANN401 - typer's own
        for parameter in command.params:
            found.update(parameter.opts)
        for each in getattr(command, "commands", {}).values():
            collect(each)

    collect(typer.main.get_command(app))
    return frozenset(found)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def table_rows(document: Path, heading: str) -> list[list[str]]:
    """Return the cells of the tables under a heading, up to the next one."""
    text = document.read_text("utf-8")
    _, found, after = text.partition(f"\n{heading}\n")
    assert found, f"{document}: no heading {heading}"
    section = re.split(r"^#", after, maxsplit=1, flags=re.MULTILINE)[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]


@cache
def metric_names() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of all instruments, and what Prometheus calls them."""
    names: set[str] = set()
    prometheus: set[str] = set()
    for tell in (of_the_ledger, of_the_agents, of_the_view):
        memory, registry = InMemoryMetricReader(), prometheus_client.CollectorRegistry()
        close = tell([memory, PrometheusMetricReader(registry=registry)])
        data: Any = memory.get_metrics_data()
        names |= {
            metric.name
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        prometheus |= {
            # Prometheus gives counters their suffix when they are shown.
            f"{family.name}_total" if family.type == "counter" else family.name
            for family in registry.collect()
            if family.name.startswith("stoploss")
        }
        close()
    return frozenset(names), frozenset(prometheus)


def of_the_ledger(readers: list[MetricReader]) -> Callable[[], None]:
    """Use every instrument once."""
    export = ledger_export(Readers(readers, nobody))
    metrics = export.metrics
    metrics.owned(0, restore_ms=1.0)
    metrics.failed(0, "fenced")
    metrics.committed(
        0, events=1, records=1, commit_ms=1.0, latency_ms=1.0, dead_letters=Counter(["not_json"])
    )
    return export.close


def of_the_agents(readers: list[MetricReader]) -> Callable[[], None]:
    """Use every instrument once."""
    export = agents_export(Readers(readers, nobody))
    export.metrics.agent("baselines").lag = {"executions": 1}
    export.metrics.restarted("baselines", "stalled")
    export.metrics.sink("oncall")
    return export.close


def of_the_view(readers: list[MetricReader]) -> Callable[[], None]:
    """Use every instrument once."""
    export = view_export(Readers(readers, nobody))
    metrics = export.metrics
    metrics.watch(lambda: {"tasks/0": 1}, lambda: 1)
    metrics.applied({"tasks": 1}, {"tasks": 1}, 1.0)
    metrics.failed("redis")
    metrics.rebuilds()
    return export.close


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_in_the_documents_exists(document: Path) -> None:
    wrong = [
        f"{said.where}: stoploss{match['rest']}: {problem}"
        for said in code(document)
        for match in COMMAND.finditer(said.code)
        if (problem := wrong_with(match["rest"])) is not None
    ]
    assert document in OF_TOMORROW or wrong == []


@pytest.mark.parametrize("document", [OPERATIONS, TROUBLESHOOTING], ids=lambda path: path.name)
def test_every_option_that_stands_alone_is_that_of_some_command(document: Path) -> None:
    wrong = [
        f"{said.where}: {said.code}"
        for said in code(document)
        if said.code.startswith("--") and words(said.code)[0].partition("=")[0] not in all_options()
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param("stoploss verify --independently", "no option --independently", id="option"),
        pytest.param("$ STOPLOSS_GROUP=x stoploss mend", "no command mend", id="after a setting"),
        pytest.param("    → stoploss topics drop", "no command drop", id="a command of a group"),
        pytest.param("    → stoploss up, or `stoploss ledger`", None, id="an answer that is right"),
        pytest.param("x | stoploss tasks --all > y --z", None, id="the shell's own"),
        pytest.param("the version of stoploss as it is", None, id="a word of a sentence"),
    ],
)
def test_a_command_that_does_not_exist_would_be_found(line: str, problem: str | None) -> None:
    found = [wrong_with(match["rest"]) for match in COMMAND.finditer(line)]
    assert next((each for each in found if each is not None), None) == problem


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    dead = []
    for target in LINK.findall(document.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert dead == []


def test_the_front_page_leads_to_what_is_needed_at_night() -> None:
    links = LINK.findall((ROOT / "README.md").read_text("utf-8"))
    assert {"docs/operations.md", "docs/TROUBLESHOOTING.md"} <= set(links)


def test_every_metric_that_is_named_exists_and_every_one_is_explained() -> None:
    names, prometheus = metric_names()
    named = {name for document in DOCUMENTS for name in METRIC.findall(document.read_text("utf-8"))}
    assert named - names - prometheus == set()
    headings = [
        f"## {title}" for title in re.findall(r"^## (.+)$", METRICS.read_text(), re.MULTILINE)
    ]
    rows = [row for heading in headings for row in table_rows(METRICS, heading)]
    assert {row[0].strip("`") for row in rows} == names
    assert {row[1].strip("`") for row in rows} == prometheus


def test_every_key_of_a_sink_is_explained() -> None:
    rows = table_rows(ROOT / "docs/notifications.md", "## Where they go")
    assert {"name", *(row[0].strip("`") for row in rows)} == set(Sink.__struct_fields__)


def test_every_state_of_health_is_explained_with_its_number() -> None:
    rows = table_rows(OPERATIONS, "### Health")
    assert [(row[0].strip("`"), int(row[1])) for row in rows] == [
        (health.value, number) for number, health in enumerate(Health)
    ]


def test_every_variable_that_is_named_exists() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "streams").rglob("*.py"))
    known = {f"STOPLOSS_{name.upper()}" for name in Settings.__struct_fields__}
    known |= set(VARIABLE.findall(source))
    for document in DOCUMENTS:
        assert set(VARIABLE.findall(document.read_text("utf-8"))) <= known, document


def test_every_setting_that_is_named_exists() -> None:
    known = set(Settings.__struct_fields__) | set(re.findall(r'"(\w+)":', policy_json_text()))
    known |= {key for table in alert_tables().values() for key in table}
    for document in (OPERATIONS, TROUBLESHOOTING):
        wrong = [
            f"{said.where}: {said.code}"
            for said in code(document)
            if SETTING_LIKE.fullmatch(said.code) and said.code not in known
        ]
        assert wrong == []


def test_the_thresholds_of_alerts_in_the_documents_are_the_defaults() -> None:
    rows = table_rows(OPERATIONS, "### When alerts fire")
    written = {row[0].strip("`"): (float(row[1]), float(row[2])) for row in rows}
    assert written == {
        name: (table["fires_above"], table["resolves_at"])
        for name, table in alert_tables().items()
        if "fires_above" in table
    }


def test_the_times_in_the_documents_are_the_defaults() -> None:
    rows = table_rows(OPERATIONS, "## Timeouts, and the gap after a kill")
    written = {row[0].strip("`"): int(row[1].replace(",", "")) for row in rows}
    defaults = Settings()
    assert written == {name: getattr(defaults, name) for name in written}
    assert written.keys() == {name for name in Settings.__struct_fields__ if name.endswith("_ms")}


def test_the_retention_of_every_topic_is_the_one_it_is_made_with() -> None:
    written = {row[0].strip("`"): row[1] for row in table_rows(OPERATIONS, "## Retention")}
    assert written == {topic.value: kept(topic) for topic in Topic}


def kept(topic: Topic) -> str:
    """Return how long a topic keeps a record, in the words of the document."""
    config = SPECS[topic].config
    time_ms = int(config.get("retention.ms", 0))
    span = f"{time_ms // DAY_MS} days" if time_ms >= DAY_MS else f"{time_ms // 3_600_000} hour"
    match config["cleanup.policy"]:
        case "delete":
            return span
        case "compact":
            return "last of each key"
        case _:
            return f"last of each key, {span}"


def alert_tables() -> dict[str, dict[str, Any]]:
    return msgspec.to_builtins(default_alert_rules())  # type: ignore[no-any-return]


def policy_json_text() -> str:
    return policy_json(builtin_policy()).decode()
