"""A committed batch tells of its decisions in the traces of the events that caused them."""

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from schemas.fields import Verdict
from streams.budget.effects import Effect
from streams.kafka.tracing import Tracing
from streams.ledger.traces import (
    DECISIONS_MAX,
    CommittedBatch,
    TracedDecisions,
    tell_spans,
)
from tests.unit.budget.story import story

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
BATCH = CommittedBatch(
    partition=4,
    events=10,
    records=7,
    first_offset=20,
    last_offset=29,
    began_ms=5_000,
    committed_ms=5_030,
)


def crossing() -> list[Effect]:
    """What an event causes that comes to warn: breaches and a decision."""
    return list(story("start TASK-1 planned=THINK\nusage TASK-1 THINK 7_300 → warn").last)


def spans_of(traced: TracedDecisions, batch: CommittedBatch = BATCH) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    tell_spans(Tracing("ledger", SimpleSpanProcessor(exporter)), batch, traced)
    return list(exporter.get_finished_spans())


def test_a_decision_goes_on_with_the_trace_of_its_event_and_the_batch_links_to_it() -> None:
    traced = TracedDecisions()
    traced.add(crossing(), 4_980, TRACEPARENT)
    decision, batch = spans_of(traced)
    assert decision.name == "stoploss.decision"
    assert decision.parent is not None
    assert f"{decision.parent.trace_id:032x}-{decision.parent.span_id:016x}" == f"{TRACE}-{SPAN}"
    assert decision.parent.is_remote
    assert (decision.start_time, decision.end_time) == (4_980_000_000, 5_030_000_000)
    input_ref = traced.kept[0].decision.input
    assert decision.attributes == {
        "stoploss.task_id": "TASK-1",
        "stoploss.verdict": "warn",
        "stoploss.previous": "continue",
        "stoploss.enforced": False,
        "stoploss.partition": input_ref.partition,
        "stoploss.offset": input_ref.offset,
    }
    assert batch.name == "stoploss.batch"
    assert batch.parent is None
    assert [link.context for link in batch.links] == [decision.context]
    assert (batch.start_time, batch.end_time) == (5_000_000_000, 5_030_000_000)
    assert batch.attributes == {
        "stoploss.partition": 4,
        "stoploss.events": 10,
        "stoploss.records": 7,
        "stoploss.first_offset": 20,
        "stoploss.last_offset": 29,
        "stoploss.decisions_left_out": 0,
    }


@pytest.mark.parametrize(
    "traceparent",
    [
        pytest.param("00-abc-01", id="no trace"),
        pytest.param(f"00-{TRACE}-{SPAN}-00", id="one that is not recorded"),
    ],
)
def test_nothing_is_kept_of_an_event_without_a_trace_to_go_on_with(traceparent: str) -> None:
    traced = TracedDecisions()
    traced.add(crossing(), 0, traceparent)
    assert (traced.kept, traced.left_out) == ([], 0)


def test_nothing_is_kept_of_an_event_that_has_decided_nothing() -> None:
    traced = TracedDecisions()
    traced.add(story("start TASK-1 planned=THINK → TASK-1 started").last, 0, TRACEPARENT)
    assert traced.kept == []


def test_a_batch_tells_of_no_more_decisions_than_its_time_allows() -> None:
    traced = TracedDecisions()
    (effect,) = [each for each in crossing() if hasattr(each.data, "verdict")]
    many = [replace(effect, index=index) for index in range(DECISIONS_MAX + 3)]
    traced.add(many, 0, TRACEPARENT)
    *decisions, batch = spans_of(traced)
    assert {one.name for one in decisions} == {"stoploss.decision"}
    assert len(decisions) == len(batch.links) == DECISIONS_MAX
    assert batch.attributes is not None
    assert batch.attributes["stoploss.decisions_left_out"] == 3
    assert traced.kept[0].decision.verdict is Verdict.WARN
