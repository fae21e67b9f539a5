"""One notice to one sink: sent until it is taken, or refused for good."""

import logging
import time
from typing import NoReturn

import aiohttp
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from schemas.errors import Remedy, StoplossError
from streams.agents.delivery.signing import headers
from streams.agents.delivery.sinks import Sink
from streams.insight.notices import Notice, slack_payload
from streams.insight.printable import printable

log = logging.getLogger("stoploss.delivery")

TIMEOUT_S = 10.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 300.0
# The receiver will never take these, however often they are sent; everything else may be mended.
REFUSED = frozenset({400, 405, 413, 415, 422})
_OK = range(200, 300)


class RefusedNoticeError(StoplossError):
    """The receiver will never take this notice."""

    remedy = Remedy.DEAD_LETTER


class SinkAwayError(StoplossError):
    """The receiver cannot take anything now."""

    remedy = Remedy.WAIT


class Outcomes:
    """What became of the notices of one sink."""

    def __init__(self) -> None:
        self.sent = 0
        self.refused = 0  # notices, and records that no notice can be made of
        self.failures = 0  # attempts that did not get through

    def __repr__(self) -> str:
        return f"<Outcomes sent={self.sent} refused={self.refused} failures={self.failures}>"


class Courier:
    """Sends to one sink; waits as long as it is away, so that nothing is lost and order is kept."""

    def __init__(self, sink: Sink, http: aiohttp.ClientSession) -> None:
        self.sink, self.outcomes = sink, Outcomes()
        self._http = http

    def __repr__(self) -> str:
        return f"<Courier {self.sink.name} {self.outcomes}>"

    async def send(self, notice: Notice) -> None:
        """Send a notice that the sink wants; return when it was taken, or refused for good.

        At least once: where the answer is lost, the same id is sent again. Whatever else is wrong with
        one notice counts as refused: it is as wrong the next time, and others wait behind it.
        """
        try:
            if not self.sink.wants(notice):
                return
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(SinkAwayError),
                wait=wait_random_exponential(FIRST_WAIT_S, LONGEST_WAIT_S),
                before_sleep=self._say_away,
                reraise=True,
            ):
                with attempt:
                    await self._try(notice)
        except RefusedNoticeError as error:
            self.refuse(str(error))
        except Exception as error:  # noqa: BLE001 - of one notice, which must not hold up the others
            self.refuse(f"{notice.id} cannot be sent: {error!r}")
        else:
            self.outcomes.sent += 1

    def refuse(self, why: str) -> None:
        """Count what is never sent there, and say why in one line."""
        self.outcomes.refused += 1
        log.warning("delivery: %s: %s", self.sink.name, printable(why))

    async def _try(self, notice: Notice) -> None:
        if self.sink.kind == "log":
            log.warning("%s | %s", notice.title, " | ".join(notice.text.splitlines()))
            return
        payload = slack_payload(notice) if self.sink.kind == "slack" else notice.record
        body = msgspec.json.encode(payload)
        sent = headers(notice.id, time.time_ns() // 1_000_000_000, body, self.sink.secret)
        sent["content-type"] = (
            "application/json" if self.sink.kind == "slack" else "application/cloudevents+json"
        )
        assert self.sink.url is not None
        try:
            async with self._http.post(
                self.sink.url,
                data=body,
                headers=sent,
                timeout=aiohttp.ClientTimeout(TIMEOUT_S),
                allow_redirects=False,  # a body that is signed for one place goes to no other
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._fail(f"{type(error).__name__}")
        if status in REFUSED:
            raise RefusedNoticeError(f"{notice.id} is refused with status {status}: not sent again")
        if status not in _OK:
            self._fail(f"status {status}")

    def _fail(self, why: str) -> NoReturn:
        self.outcomes.failures += 1
        raise SinkAwayError(why) from None

    def _say_away(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            error = state.outcome.exception()
            log.warning("delivery: %s does not take notices (%s); waiting", self.sink.name, error)
