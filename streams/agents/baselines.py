"""The agent `baselines`: executions → what each phase and class of task usually takes.

Two stages: what finishes in any partition goes to a topic of one, and there it is counted.
"""

from schemas.envelope import Envelope, epoch_ms_of, rfc3339
from schemas.letters import AGENTS_SOURCE
from schemas.outputs import ExecutionRecord
from schemas.topics import Topic
from streams.agents.dropped import of_baselines
from streams.agents.stages import (
    Agent,
    Entries,
    Inbound,
    InternalTopic,
    Outbound,
    Stage,
    encode,
    source,
)
from streams.insight.baselines import (
    ClassOfTasks,
    Entry,
    Measure,
    baseline_of,
    fold_measure,
    measure_of,
)

MEASURES = InternalTopic("agents-baselines-measures")
MEASURE_TYPE = "stoploss.agents.measure"
# A baseline is published once a batch at most, however many executions it changed by.
LINGER_S = 1.0
RECORDS_MAX = 2_000


def measure(_entries: None, record: Inbound) -> list[Outbound]:
    """Send on what an execution used."""
    envelope: Envelope[ExecutionRecord] = record.data
    origin = record.origin
    measured = measure_of(envelope.data, origin, epoch_ms_of(envelope.time))
    sent = Envelope(
        id=f"{origin.topic}-{origin.partition}-{origin.offset}",
        source=AGENTS_SOURCE,
        type=MEASURE_TYPE,
        subject=measured.name,
        time=envelope.time,
        data=measured,
    )
    return [Outbound(MEASURES.topic, measured.name.encode(), encode(sent))]


def count(entries: Entries[Entry], record: Inbound) -> list[Outbound]:
    """Count it."""
    envelope: Envelope[Measure] = record.data
    fold_measure(entries, envelope.data)
    return []


def publish(entries: Entries[Entry]) -> list[Outbound]:
    """Publish the baselines that a batch has changed."""
    return [_baseline(one) for one in entries.changed.values() if isinstance(one, ClassOfTasks)]


def _baseline(one: ClassOfTasks) -> Outbound:
    data = baseline_of(one)
    name = f"{data.phase}/{data.complexity}/{data.importance}"
    envelope = Envelope(
        id=f"{name}-{one.changes}",
        source=AGENTS_SOURCE,
        type="stoploss.baseline",
        subject=name,
        time=rfc3339(one.at_ms),
        data=data,
    )
    return Outbound(Topic.BASELINES, name.encode(), encode(envelope))


AGENT = Agent(
    name="baselines",
    stages=(
        Stage(
            name="measure",
            sources=(source(Topic.EXECUTIONS, ExecutionRecord, "stoploss.execution"),),
            fold=measure,
        ),
        Stage(
            name="count",
            sources=(source(MEASURES.topic, Measure, MEASURE_TYPE),),
            fold=count,
            finish=publish,
            entry=Entry,
            dropped=of_baselines,
            records_max=RECORDS_MAX,
            linger_s=LINGER_S,
        ),
    ),
    internal=(MEASURES,),
    writes=(Topic.BASELINES,),
)
