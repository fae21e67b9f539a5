"""What no other tool checks about the files that are kept."""

import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX = 600
# Longer than that, and why. A subject that has become two is split instead.
LONG: dict[str, str] = {}

# Whoever clones this has packages from wherever their own client is set up to look, so a lock or a
# command that names a registry would not work for them. In parts, or this file would be found too.
REGISTRY_HOSTS = [
    f"{host}.{domain}"
    for host, domain in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("repo.maven.apache", "org"),
        ("repo1.maven", "org"),
        ("registry.npmjs", "org"),
        ("crates", "io"),
        ("deb.debian", "org"),
    ]
]
# Where somebody's machine shows: home folders, and temporary ones of a single run.
MACHINE_PATHS = re.compile(
    r"(?<![\w.{}$])/(?:home/(?!somebody/)[a-z]\w*|Users/\w+|root|work)/[\w.-]+|/tmp/[\w.-]{3,}/"
)
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X:"]))
BINARY = {".gz", ".png", ".jpg"}


@cache
def kept_files() -> tuple[Path, ...]:
    """Return what is or would be committed: tracked, or new and not ignored."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.fail("tests run in a clone, with git")
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    names = listed.stdout.decode().split("\0")
    return tuple(ROOT / name for name in names if name and (ROOT / name).is_file())


def texts() -> dict[str, str]:
    return {
        str(path.relative_to(ROOT)): path.read_text("utf-8", errors="replace")
        for path in kept_files()
        if path.suffix not in BINARY
    }


def found_in_texts(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {found[0]}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if (found := pattern.search(line))
    ]


def test_no_file_names_a_package_registry() -> None:
    hosts = "|".join(re.escape(host) for host in REGISTRY_HOSTS)
    assert found_in_texts(re.compile(hosts)) == []


def test_no_file_has_a_path_of_somebodys_machine() -> None:
    assert found_in_texts(MACHINE_PATHS) == []


@pytest.mark.parametrize("folder", ["home/ada", "Users/ada", "root", "wo" + "rk", "tmp/run-1"])
def test_a_path_of_a_machine_would_be_found(folder: str) -> None:
    assert MACHINE_PATHS.search(f"cd /{folder}/stoploss/")


@pytest.mark.parametrize(
    "path", ["/var/lib/kafka/data", "./work/x", "$HOME/root/x", "of/work/done"]
)
def test_a_path_of_no_machine_would_not(path: str) -> None:
    assert MACHINE_PATHS.search(path) is None


def test_nothing_is_left_for_later_in_the_code() -> None:
    assert found_in_texts(UNFINISHED) == []


def test_no_lock_is_kept_that_names_where_it_was_made() -> None:
    assert "uv.lock" not in {path.name for path in kept_files()}


def test_every_lock_has_a_hash_for_each_package() -> None:
    locks = [path for path in kept_files() if re.fullmatch(r"requirements.*\.txt", path.name)]
    assert locks
    for lock in locks:
        for package in re.split(r"\n(?=\S)", lock.read_text().strip()):
            assert "--hash=sha256:" in package, f"{lock.name}: {package.splitlines()[0]}"


def test_every_room_has_its_place_among_the_layers() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = [
        contract["layers"]
        for contract in config["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    placed = {room.strip() for layer in layers for room in re.split("[|:]", layer)}
    rooms = {
        path.relative_to(ROOT).parts[1]
        for path in kept_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == "streams"
    }
    assert rooms - {"__init__.py"} == placed


def test_every_folder_of_python_is_a_package_that_says_what_it_is() -> None:
    for path in kept_files():
        parts = path.relative_to(ROOT).parts
        if path.suffix == ".py" and parts[0] in {"schemas", "streams"}:
            first = (path.parent / "__init__.py").read_text()
            assert first.startswith('"""'), path.parent


def test_a_file_that_is_long_is_long_for_a_reason() -> None:
    long = {
        name
        for name, text in texts().items()
        if name.endswith(".py") and text.count("\n") > LINES_MAX
    }
    assert long == LONG.keys()


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE", ".ci/run", "Makefile"])
def test_what_everybody_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


def test_the_changelog_has_a_place_for_the_next_version() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", [".ci/run", ".ci/without-broker"])
def test_ci_can_be_run_as_it_is(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
