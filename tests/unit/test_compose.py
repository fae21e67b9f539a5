"""The compose file and the image, as far as they can be judged without a Docker engine."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.core import TyperGroup
from typer.main import get_command

from schemas.topics import DEFAULT_PREFIX
from streams.cli.main import app
from streams.kafka.settings import STOP_DEADLINE_MS, load_settings
from streams.ledger.run import LET_GO_WITHIN_S

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/compose.schema.json").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text()

every_service = pytest.mark.parametrize("name", SERVICES)
every_part_of_ours = pytest.mark.parametrize("name", OURS)


def errors(document: object) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)]


def seconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def test_the_compose_file_fits_its_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert errors(COMPOSE) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"privileged": True}, id="privileged"),
        pytest.param({"restart": "sometimes"}, id="no restart policy of Compose"),
        pytest.param({"ports": [9092]}, id="a port without its address"),
        pytest.param({"depends_on": ["kafka"]}, id="waits for nothing"),
        pytest.param({"volumes": ["data"]}, id="a volume without a place"),
        pytest.param({"environment": {"mode": True}}, id="a truth, which YAML writes in six ways"),
    ],
)
def test_the_schema_finds_mistakes(change: dict[str, object]) -> None:
    changed = COMPOSE | {"services": SERVICES | {"kafka": SERVICES["kafka"] | change}}
    assert errors(changed) != []


def test_it_has_every_part() -> None:
    ours = {"topics", "ledger", "agents", "view"}
    assert SERVICES.keys() == ours | {"kafka", "redis", "otel-collector"}


@every_service
def test_every_image_is_pinned(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.match(r"\d+\.\d+", tag), tag


@every_service
def test_every_service_runs_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "build" in service or not service["user"].startswith("0:")


@every_service
def test_every_port_is_for_this_host_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@every_service
def test_every_volume_is_declared_or_a_file_of_ours(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.partition(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).is_file(), volume


@every_service
def test_every_service_comes_back_but_the_job(name: str) -> None:
    assert SERVICES[name]["restart"] == ("no" if name == "topics" else "unless-stopped")


@pytest.mark.parametrize("name", ["kafka", "redis"])
def test_what_keeps_data_has_a_volume_and_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert any(volume.startswith(f"{name}-data:") for volume in SERVICES[name]["volumes"])


def test_every_part_waits_for_what_it_needs() -> None:
    waits = {
        name: {on: wait["condition"] for on, wait in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    assert waits == {
        "kafka": {},
        "redis": {},
        "topics": {"kafka": "service_healthy"},
        "ledger": {
            "topics": "service_completed_successfully",
            "otel-collector": "service_started",
        },
        "agents": {
            "topics": "service_completed_successfully",
            "otel-collector": "service_started",
        },
        "view": {
            "topics": "service_completed_successfully",
            "redis": "service_healthy",
            "otel-collector": "service_started",
        },
        "otel-collector": {},
    }


@every_part_of_ours
def test_every_command_is_one_of_the_command_line(name: str) -> None:
    found = get_command(app)
    for word in OURS[name]["command"]:
        assert isinstance(found, TyperGroup)
        assert word in found.commands
        found = found.commands[word]
    assert not isinstance(found, TyperGroup)


@every_part_of_ours
def test_every_setting_is_one_that_we_read(name: str, tmp_path: Path) -> None:
    config = tmp_path / "stoploss.toml"
    config.touch()
    environ = {
        # ${NAME:-default}, with nothing set on the host
        key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        for key, value in OURS[name]["environment"].items()
    }
    settings = load_settings(environ, config)
    assert settings.topic_prefix == DEFAULT_PREFIX
    for key, value in environ.items():
        assert str(getattr(settings, key.removeprefix("STOPLOSS_").lower())) == value


def test_the_parts_meet_where_the_others_listen() -> None:
    listeners = dict(
        part.split("://")
        for part in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    collector = yaml.safe_load((ROOT / "docs/otel-collector.yaml").read_text())
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    environment = SERVICES["ledger"]["environment"]

    assert environment["STOPLOSS_BOOTSTRAP_SERVERS"] == listeners["INTERNAL"]
    assert listeners["HOST"] in {p.rpartition(":")[0] for p in SERVICES["kafka"]["ports"]}
    assert environment["STOPLOSS_OTLP_ENDPOINT"] == f"http://otel-collector:{port}/v1/metrics"


def test_the_collector_uses_what_it_defines_and_shows_the_port_that_is_open() -> None:
    collector = yaml.safe_load((ROOT / "docs/otel-collector.yaml").read_text())
    for pipeline in collector["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) == collector[kind].keys()
    port = collector["exporters"]["prometheus"]["endpoint"].rpartition(":")[2]
    assert SERVICES["otel-collector"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_ledger_has_time_to_stop_in_order() -> None:
    assert (
        seconds(SERVICES["ledger"]["stop_grace_period"]) * 1_000
        > STOP_DEADLINE_MS + LET_GO_WITHIN_S * 1_000
    )


def instructions(word: str) -> list[str]:
    whole = DOCKERFILE.replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in whole.splitlines() if line.startswith(f"{word} ")]


def test_the_image_does_not_run_as_root() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert DOCKERFILE.index("\nUSER ") > DOCKERFILE.rindex("\nRUN ")


def test_the_image_installs_locked_packages_and_none_for_development() -> None:
    installs = [line for line in instructions("RUN") if "pip install" in line]
    for line in installs:
        assert "--require-hashes" in line or "--no-deps" in line
    assert "requirements.txt" not in DOCKERFILE
    locked = (ROOT / "requirements-runtime.txt").read_text()
    assert "aiokafka==" in locked
    assert not re.search(r"^(pytest|mypy|ruff|uv|hypothesis)==", locked, re.MULTILINE)


def test_the_image_is_built_from_pinned_bases_and_files_that_are_sent() -> None:
    bases = {line.split()[0] for line in instructions("FROM")}
    assert len(bases) == 1
    assert all(re.search(r":\d+\.\d+", base) for base in bases)
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    for line in instructions("COPY"):
        *sources, _ = shlex.split(line)
        if not sources[0].startswith("--from"):
            assert set(sources) <= sent
            assert all((ROOT / source).exists() for source in sources)


def test_both_locks_name_the_same_versions() -> None:
    def versions(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        return dict(re.findall(r"^([a-z0-9._-]+)==([^ \\]+)", text, re.MULTILINE))

    everything = versions("requirements.txt")
    for name in ("requirements-runtime.txt", "requirements-build.txt"):
        assert versions(name).items() <= everything.items()
