"""Where a ledger's figures go, and what a taken port means."""

import socket
import urllib.request
from collections import Counter

import pytest

from schemas.errors import InvalidFieldError
from streams.kafka.settings import Settings
from streams.ledger.metrics import start_metrics


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_figures_can_be_scraped() -> None:
    port = free_port()
    export = start_metrics(Settings(prometheus_port=port))
    export.metrics.owned(3, restore_ms=12.0)
    export.metrics.committed(
        3, events=5, records=7, commit_ms=4.0, latency_ms=9.0, dead_letters=Counter(not_json=2)
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    export.close()
    assert "stoploss_ledger_events_total{" in text
    assert 'reason="not_json"' in text
    assert "stoploss_ledger_lag{" in text


def test_a_taken_port_is_an_error_where_it_was_asked_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidFieldError, match=f"prometheus_port: {port} is not allowed"):
            start_metrics(Settings(prometheus_port=port))


def test_a_taken_port_that_nobody_asked_for_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(
            "streams.ledger.metrics.PROMETHEUS_PORT_DEFAULT", taken.getsockname()[1]
        )
        start_metrics(Settings()).close()
