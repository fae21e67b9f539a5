"""Real bytes, broken as chance, foreign programs and malice would: byte by byte, value by value, whole."""

import random
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct

from schemas.topics import EVENT_BYTES_MAX

Headers = tuple[tuple[str, bytes | None], ...]
Span = tuple[int, int]

_TOKEN = re.compile(rb'("(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|true|false|null)(\s*:)?')
# JSON, but not what a field takes, or just what it takes.
ODD_VALUES = (
    *(b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"-0", b"1", b"1.5", b"1e3", b"86400001"),
    *(b"0.0000000001", b'"NaN"', b'"sNaN"', b'"Infinity"', b'"-0"', b'"1"', b'"1e999999"'),
    *(b"1e308", b"1e400", b"-1e999999999", b"1e999999999999", b"1E-999999999", b"1e-400"),
    *(str(2**power + more).encode() for power in (31, 53, 63, 64) for more in (-1, 0, 1)),
    *(
        b"9" * 30,
        b"-" + b"9" * 400,
        b"0." + b"3" * 400,
        b"0.0000000005" + b"0" * 80 + b"1",
        b"1" + b"0" * 4_400,
        b"0." + b"0" * 5_000,
    ),
    *(b'"\\u0000"', b'"\\u0007"', b'"\xc2\x85 \xe2\x80\xa8"', b'"\xf0\x9f\x92\xa9"', b'" "'),
    *(b'"0001-01-01T00:00:00Z"', b'"0001-01-01T00:00:00+23:59"', b'"0000-01-01T00:00:00Z"'),
    *(b'"9999-12-31T23:59:59.999999999Z"', b'"9999-12-31T23:59:59-23:59"', b'"1767225600"'),
    *(b'"2026-02-30T00:00:00Z"', b'"2026-01-01T23:59:60Z"', b'"2026-01-01T00:00:00"'),
    *(b'"2026-01-01T00:00:00.0009999996Z"', b'"2026-01-01 00:00:00z"', b'"20260101T000000Z"'),
    *(
        b'"partition/3"',
        b'"partition/99999999999999999999"',
        b'"policy/x"',
        b'"task"',
        b'"default"',
    ),
    *(b'"T0"', b'"T1"', b'"A"', b'"B"', b'"critical"', b'"completed"', b'"breaker"', b'"never"'),
    *(b'"' + b"x" * length + b'"' for length in (64, 65, 200, 201, 4_000, 4_001)),
    *(b"[" * depth + b"]" * depth for depth in (2, 15, 17, 200, 1_500)),
    b'{"a":{"a":{"a":{"a":1}}}}',
    b'{"task":{"tokens":1,"cost_usd":0.0000000001}}',
    b'{"A":{"tokens":1000000000000000},"B":{"latency_ms":-1}}',
)
NO_JSON = (
    *(b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x1", b"'a'", b"undefined"),
    *(b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xed\xa0\x80"', b'"\xff\xfe"', b'"\xe9"', b'"\t"', b""),
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-7", "cp500")
# Seldom: they take a thousand times as long as others.
_LARGE_SHARE = 1 / 5_000
_LARGE: tuple[Callable[[bytes], bytes], ...] = (
    lambda value: value.replace(b'"', b'"' + b"x" * EVENT_BYTES_MAX, 1),
    lambda value: value.replace(b"{", b'{"pad":"' + b"x" * (EVENT_BYTES_MAX // 2) + b'",', 1),
    lambda value: value + b" " * EVENT_BYTES_MAX,
    lambda value: value + b" " * (EVENT_BYTES_MAX - len(value)),
    lambda value: value.replace(b"{", b"{" + b'"a":1,' * 50_000, 1),
    lambda _: b"[" * 100_000,
    lambda _: b'{"data":' * 50_000,
    lambda _: b'{"type":"stoploss.phase.usage","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    lambda value: value.replace(b'"data":{', b'"data":{"x":' + b"[" * 900 + b"]" * 900 + b",", 1),
)


@lru_cache(maxsize=2_000)  # the corpus has some hundred records
def _tokens(value: bytes) -> tuple[list[Span], list[Span]]:
    """Return where values stand, and where names do."""
    found = list(_TOKEN.finditer(value))
    values = [one.span(1) for one in found if one[2] is None]
    return values, [one.span(1) for one in found if one[2] is not None]


class Broken(Struct, frozen=True):
    """One record of `events`, as a broker would hand it over."""

    value: bytes | None
    headers: Headers = ()
    key: bytes | None = b"k"


class Mutator:
    """Breaks what it is given; the same seed breaks it in the same way."""

    def __init__(self, chance: random.Random, corpus: Sequence[bytes]) -> None:
        self._chance, self._corpus = chance, corpus

    def record(self) -> Broken:
        """Return a broken record."""
        return self.broken(self._chance.choice(self._corpus))

    def broken(self, value: bytes) -> Broken:
        """Return a record broken, one of five in binary mode or with foreign headers."""
        chance = self._chance
        roll = chance.random()
        if roll < 0.002:
            return Broken(None if roll < 0.001 else b"", key=chance.choice((b"k", None, b"\xff")))
        if roll < 0.1:
            return Broken(self.value(value), self._foreign_headers())
        if roll < 0.2:
            return self._binary(value)
        return Broken(self.value(value))

    def value(self, value: bytes) -> bytes:
        """Break one value a few times."""
        chance = self._chance
        if chance.random() < _LARGE_SHARE:
            return chance.choice(_LARGE)(value)
        if chance.random() < 0.6:
            value = self.odd(value)
            if chance.random() < 0.8:
                return value
        if chance.random() < 0.03:
            return self._in_another_encoding(value)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            value = chance.choice(_BYTES)(chance, value, self._corpus)
        return value

    def text(self, value: bytes) -> bytes:
        """Break a file: more of it, byte by byte and value by value."""
        for _ in range(self._chance.choice((1, 3, 20))):
            if self._chance.random() < 0.5:
                value = self.odd(value)
            else:
                value = self._chance.choice(_BYTES)(self._chance, value, self._corpus)
        return value

    def odd(self, value: bytes) -> bytes:
        """Put odd values in the place of others, seldom of names."""
        chance = self._chance
        values, names = _tokens(value)
        if not values:
            return value
        spans = chance.choices(values, k=chance.choice((1, 1, 1, 2, 4)))
        if names and chance.random() < 0.1:
            spans.append(chance.choice(names))
        for start, end in sorted(spans, reverse=True):
            value = value[:start] + self._odd_value() + value[end:]
        return value

    def _odd_value(self) -> bytes:
        chance = self._chance
        roll = chance.random()
        if roll < 0.7:
            return chance.choice(ODD_VALUES)
        if roll < 0.8:
            return chance.choice(NO_JSON)
        other = chance.choice(self._corpus)
        values, _ = _tokens(other)
        if not values:
            return b"null"
        start, end = chance.choice(values)
        return other[start:end]

    def _in_another_encoding(self, value: bytes) -> bytes:
        text = value.decode("latin-1")
        encoding = self._chance.choice(ENCODINGS)
        return text.encode(encoding, errors="replace")

    def _foreign_headers(self) -> Headers:
        chance = self._chance
        return tuple(
            (chance.choice(_HEADER_NAMES), chance.choice(_HEADER_VALUES))
            for _ in range(chance.randint(0, 4))
        )

    def _binary(self, value: bytes) -> Broken:
        """Put the attributes into headers, and break both."""
        chance = self._chance
        try:
            members = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        except msgspec.MsgspecError:
            return Broken(value, self._foreign_headers())
        data = bytes(members.pop("data", b""))
        headers: list[tuple[str, bytes | None]] = [
            (f"ce_{name}", bytes(raw).strip(b'"')) for name, raw in members.items()
        ]
        for _ in range(chance.choice((0, 0, 1, 2))):
            place = chance.randrange(len(headers))
            odd = chance.choice(ODD_VALUES).strip(b'"')
            headers[place] = headers[place][0], chance.choice((None, b"", b"\xff", odd))
        if chance.random() < 0.2:
            headers.pop(chance.randrange(len(headers)))
        if chance.random() < 0.2:
            headers.extend(self._foreign_headers())
        return Broken(self.value(data) if data and chance.random() < 0.5 else data, tuple(headers))


_HEADER_NAMES = (
    *("ce_id", "ce_type", "ce_source", "ce_specversion", "ce_time", "ce_subject", "ce_data"),
    *("ce_", "ce_sequence", "CE_ID", "content-type", "traceparent", "", "\udcff", "ce_\udcff", "é"),
)
_HEADER_VALUES = (
    *(None, b"", b"1.0", b"x" * 1_000, b"\xff", b"null", b"stoploss.phase.usage", b"\x00"),
    *(b"application/cloudevents+json", b"9" * 40, b"0001-01-01T00:00:00Z"),
)


def _flip(chance: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    if not value:
        return value
    at = chance.randrange(len(value))
    return value[:at] + bytes((value[at] ^ 1 << chance.randrange(8),)) + value[at + 1 :]


def _insert(chance: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    at = chance.randint(0, len(value))
    return (
        value[:at] + chance.choice((chance.randbytes(3), b"\0", b"\xff", b'"', b",")) + value[at:]
    )


def _remove(chance: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    at = chance.randint(0, len(value))
    return value[:at] + value[at + chance.choice((1, 1, 5, 50)) :]


def _repeat(chance: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    at = chance.randint(0, len(value))
    end = at + chance.choice((1, 10, 100))
    return value[:end] + value[at:]


def _cut(chance: random.Random, value: bytes, _corpus: Sequence[bytes]) -> bytes:
    return value[: chance.randint(0, len(value))]


def _splice(chance: random.Random, value: bytes, corpus: Sequence[bytes]) -> bytes:
    other = chance.choice(corpus)
    return value[: chance.randint(0, len(value))] + other[chance.randint(0, len(other)) :]


def _member_twice(chance: random.Random, value: bytes, corpus: Sequence[bytes]) -> bytes:
    """Put a member of this or another record before the others: names repeat."""
    other = chance.choice((value, chance.choice(corpus)))
    members = _MEMBER.findall(other)
    if not members:
        return value
    return value.replace(b"{", b"{" + chance.choice(members) + b",", chance.choice((1, 2)))


_MEMBER = re.compile(rb'"[^"\\]*":(?:"[^"\\]*"|-?\d+)')
_BYTES: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    *(_flip, _flip, _insert, _remove, _repeat, _cut, _splice, _member_twice),
)
