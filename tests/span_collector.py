"""A collector of spans for tests: what it was sent by OTLP over HTTP, and what it answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WITHIN_S = 100.0  # beside other work on the machine


@dataclass(frozen=True)
class Collected:
    """A span as it arrived; ids in hexadecimal, `links` to other spans' ids."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, str | int | bool]
    links: list[str]


@dataclass
class Collector:
    """Who takes spans; while `answers` is not set, nobody is answered."""

    endpoint: str = ""
    status: int = 200
    requests: int = 0
    spans: list[Collected] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    def named(self, name: str) -> list[Collected]:
        return [span for span in self.spans if span.name == name]

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests += 1
        self.changed.set()
        await self.answers.wait()
        if self.status == 200:
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        self.changed.set()
        return web.Response(status=self.status)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.endpoint = f"{site.name}/v1/traces"
    try:
        yield made
    finally:
        made.answers.set()
        await runner.cleanup()


def _spans(request: ExportTraceServiceRequest) -> list[Collected]:
    return [
        _collected(str(_attributes(resource.resource.attributes)["service.name"]), span)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _collected(service: str, span: Span) -> Collected:
    return Collected(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=[link.span_id.hex() for link in span.links],
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str | int | bool]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in pairs
    }
