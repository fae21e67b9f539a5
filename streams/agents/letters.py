"""What an agent cannot read goes to `dead-letters`, as the ledger's own refusals do.

They differ by their source: `stoploss verify` judges the ledger's letters and passes over these, and
`stoploss dead-letters` shows both. What an agent reads has mostly been written by the ledger; sent
again it would be there twice, so these letters are not replayed.
"""

import base64
from collections.abc import Sequence

import msgspec

from schemas.envelope import Envelope, rfc3339
from schemas.letters import AGENTS_SOURCE, kept_header
from schemas.outputs import DeadLetter, DeadLetterDetail, DeadLetterHeader, DeadLetterInput
from schemas.refusal import Refusal
from schemas.topics import MESSAGE_BYTES_MAX, Topic
from streams.agents.stages import Outbound, Read

# Base64 makes four bytes of three; the rest is for the record batch, the envelope, key and headers.
KEPT_BYTES = (MESSAGE_BYTES_MAX - 512 * 1024) * 3 // 4
HEADERS_BYTES_MAX = 128 * 1024
KEY_LENGTH_MAX = 1_000

_ENCODER = msgspec.json.Encoder()


class Refused:
    """A record that was refused, and why."""

    def __init__(self, record: Read, prefix: str, why: Refusal) -> None:
        self.record, self.prefix, self.why = record, prefix, why


def letter(refused: Refused) -> Outbound:
    """Return the dead letter; the same record makes the same one, whenever it is read."""
    record, why = refused.record, refused.why
    original = record.value or b""
    key = None if record.key is None else record.key.decode(errors="replace")[:KEY_LENGTH_MAX]
    topic = record.topic.removeprefix(refused.prefix)
    headers, count = _headers(record.headers)
    kept = original[:KEPT_BYTES]
    detail = why.detail
    if len(kept) < len(original):
        note = f"only the first {len(kept)} of {len(original)} bytes are kept here"
        detail = DeadLetterDetail(detail.field, detail.value, f"{detail.allowed} ({note})")
    envelope = Envelope(
        id=f"{topic}-{record.partition}-{record.offset}",
        source=AGENTS_SOURCE,
        type="stoploss.dead_letter",
        subject=key or f"{topic}/{record.partition}",
        time=rfc3339(round(record.timestamp * 1000)),
        data=DeadLetter(
            reason=why.reason,
            detail=detail,
            input=DeadLetterInput(
                topic=record.topic, partition=record.partition, offset=record.offset, key=key
            ),
            headers=headers,
            headers_count=count if len(headers) < count else None,
            original=base64.b64encode(kept).decode(),
            original_bytes=len(original) if len(kept) < len(original) else None,
        ),
    )
    return Outbound(Topic.DEAD_LETTERS, record.key, _ENCODER.encode(envelope), record.partition)


def _headers(
    pairs: Sequence[tuple[str, bytes | None]] | None,
) -> tuple[list[DeadLetterHeader], int]:
    """Return the first headers, as many as fit, and how many there are."""
    kept: list[DeadLetterHeader] = []
    size_bytes = 0
    pairs = list(pairs or ())
    for name, value in pairs:
        header = kept_header(name, value)
        size_bytes += len(_ENCODER.encode(header)) + 1
        if size_bytes > HEADERS_BYTES_MAX:
            break
        kept.append(header)
    return kept, len(pairs)
