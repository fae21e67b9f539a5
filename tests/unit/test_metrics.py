"""Every figure is described, and what the dashboard and the rules ask for is one of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.metrics_page import Instrument, every_instrument, main

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "stoploss.json").read_text("utf-8"))
RULES: dict[str, Any] = yaml.safe_load((GRAFANA / "rules.yaml").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = RULES["groups"][0]["rules"]
NAME = re.compile(r"\bstoploss_\w+")


def names_at_prometheus() -> set[str]:
    found = set()
    for one in every_instrument():
        if one.kind == "histogram":
            found |= {f"{one.prometheus}{part}" for part in ("_bucket", "_sum", "_count")}
        else:
            found.add(one.prometheus)
    return found


def expressions() -> list[str]:
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return sorted({*asked, *(alert["expr"] for alert in ALERTS)})


def test_the_page_is_current() -> None:
    assert main(["--check"]) == 0


@pytest.mark.parametrize("one", every_instrument(), ids=lambda one: one.name)
def test_every_figure_has_a_unit_and_says_what_it_means(one: Instrument) -> None:
    assert one.unit
    assert len(one.description) > 10


@pytest.mark.parametrize("expression", expressions())
def test_what_is_asked_for_is_a_figure_of_ours(expression: str) -> None:
    asked = set(NAME.findall(expression))
    assert asked
    assert asked <= names_at_prometheus()
    assert expression.count("(") == expression.count(")")


def test_every_figure_is_on_the_dashboard() -> None:
    shown = {name for expression in expressions() for name in NAME.findall(expression)}
    missing = {
        one.name
        for one in every_instrument()
        if not any(name.startswith(one.prometheus) for name in shown)
    }
    assert missing == set()


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        places = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not places & taken, panel["title"]
        assert max(x for x, _ in places) < 24
        taken |= places


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_rule_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["annotations"].keys() == {"summary", "action"}
