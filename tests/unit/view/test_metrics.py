"""What is measured of a view, and that the document names all of it."""

from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from streams.kafka.telemetry import Readers, nobody
from streams.view.metrics import export_to

DOCUMENT = Path(__file__).parents[3] / "docs/redis.md"


def collected() -> dict[str, list[Any]]:
    """Return the points of each instrument after one of everything has happened."""
    memory = InMemoryMetricReader()
    export = export_to(Readers([memory], nobody))
    export.metrics.watch(lambda: {"tasks/0": 7, "dead-letters/1": 0}, lambda: 250)
    export.metrics.applied({"tasks": 3}, {"tasks": 1}, 12.0)
    export.metrics.failed("redis")
    export.metrics.rebuilds()
    data: Any = memory.get_metrics_data()
    export.close()
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_lag_is_told_by_topic_and_partition_and_age_for_all() -> None:
    found = collected()
    lags = {
        (point.attributes["topic"], point.attributes["partition"]): point.value
        for point in found["stoploss.view.lag"]
    }
    assert lags == {("tasks", 0): 7, ("dead-letters", 1): 0}
    assert [point.value for point in found["stoploss.view.age"]] == [250]


def test_during_a_rebuild_there_is_no_age() -> None:
    memory = InMemoryMetricReader()
    export = export_to(Readers([memory], nobody))
    export.metrics.watch(dict, lambda: None)
    assert memory.get_metrics_data() is None
    export.close()


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    table = DOCUMENT.read_text("utf-8").partition("\n## Measure it\n")[2]
    named = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert named == collected().keys()
