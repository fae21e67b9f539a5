"""Which modules `make compiled` takes, and that no copy is used with other sources.

What the compiled fold gives, `make compiled` tests itself.
"""

import importlib
import inspect
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from bench.compiled import sources
from bench.compiled.build import keeps_its_meaning, modules
from bench.compiled.sources import PACKAGES, ROOT, check, digest, finish

HOT = {
    "fold",
    "usage",
    "folding",
    "dedupe",
    "state",
    "decide",
    "evaluate",
    "executions",
    "lifecycle",
    "latency",
}


def test_every_module_that_events_pass_through_is_compiled() -> None:
    assert sorted(HOT - {path.stem for path in modules()}) == []


def test_no_module_that_defines_a_struct_is_compiled() -> None:
    for path in modules():
        assert (ROOT / path).is_file()
        module = importlib.import_module(".".join(path.with_suffix("").parts))
        structs = [
            name
            for name, one in inspect.getmembers(module, inspect.isclass)
            if issubclass(one, msgspec.Struct) and one.__module__ == module.__name__
        ]
        assert structs == [], path


IMPORTS = """
import enum
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar
import msgspec
import msgspec as other_name
from msgspec import Struct
from msgspec import Struct as Record
from schemas import state
from schemas.state import TaskStateData
T = TypeVar("T")
"""


@pytest.mark.parametrize(
    "classes",
    [
        "class One(Struct): a: int",
        "class One(msgspec.Struct): a: int",
        "class One(Struct, frozen=True): a: int",
        "class One(Record): a: int",
        "class One(other_name.Struct): a: int",
        "class One(TaskStateData): a: int = 0",
        "class One(state.TaskStateData): a: int = 0",
        "class One(Struct, Generic[T]): a: T",
        "class One(Struct): a: int\nclass Two(One): b: int",
        "def make():\n    class One(Record): a: int\n    return One",
        "class Outer:\n    class One(Record): a: int",
        "class Base(type): pass\nclass One(metaclass=Base): pass",
        "def make():\n    class One: pass\n    class Two(One): pass\n    return Two",
        "def base(): return Struct\nclass One(base()): a: int",
    ],
)
def test_a_struct_is_left_as_it_is_however_it_came_to_be_one(classes: str) -> None:
    names: dict[str, object] = {}
    exec(IMPORTS + classes, names)  # noqa: S102 - as a module is imported
    assert not keeps_its_meaning(IMPORTS + classes, names)


@pytest.mark.parametrize(
    "classes",
    [
        "",
        "class One: a: int",
        "@dataclass(frozen=True, slots=True)\nclass One: a: int",
        "class One(Exception): pass",
        "class One(enum.Enum): A = 1",
        "class One(Protocol): a: int",
        "class One(Generic[T]): a: T",
        "class One: a: int\nclass Two(One): b: int",
        "def make(of: TaskStateData) -> Struct: return of",
    ],
)
def test_any_other_class_is_compiled(classes: str) -> None:
    names: dict[str, object] = {"__name__": "made_here"}
    exec(IMPORTS + classes, names)  # noqa: S102 - as a module is imported
    assert keeps_its_meaning(IMPORTS + classes, names)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree of sources, with its copy."""
    for name in PACKAGES:
        for folder in (tmp_path / name, tmp_path / "build" / "compiled" / name):
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text('"""A room."""\n')
    (tmp_path / "streams" / "builtin.toml").write_text("[clock]\n")
    (tmp_path / "bench").mkdir()
    shutil.copytree(Path(sources.__file__).parent, tmp_path / "bench" / "compiled")
    finish(copy_in(tmp_path), digest(tmp_path))
    return tmp_path


def copy_in(root: Path) -> Path:
    return root / "build" / "compiled"


def import_copy(root: Path) -> "subprocess.CompletedProcess[str]":
    """Import the copy, as the ledger does that PYTHONPATH gives it to."""
    command = [sys.executable, "-I", "-S", "-B", "-c"]
    program = f"import sys; sys.path.insert(0, {str(copy_in(root))!r}); import streams; print('ok')"
    return subprocess.run([*command, program], capture_output=True, text=True, check=False)


def change(root: Path) -> None:
    (root / "streams" / "__init__.py").write_text('"""Another room."""\n')


def add(root: Path) -> None:
    (root / "schemas" / "new.py").write_text("")


def remove(root: Path) -> None:
    (root / "streams" / "builtin.toml").unlink()


def rename(root: Path) -> None:
    (root / "streams" / "builtin.toml").rename(root / "streams" / "policy.toml")


def build_otherwise(root: Path) -> None:
    (root / "bench" / "compiled" / "build.py").write_text("")


def test_a_copy_of_the_sources_that_are_here_is_used(root: Path) -> None:
    check(copy_in(root), root)
    assert import_copy(root).stdout == "ok\n"


@pytest.mark.parametrize("otherwise", [change, add, remove, rename, build_otherwise])
def test_a_copy_of_other_sources_is_refused_by_name(
    root: Path, otherwise: Callable[[Path], None]
) -> None:
    otherwise(root)
    said = f"{copy_in(root)}: compiled of other sources than are here; run: make compiled"
    with pytest.raises(SystemExit, match=said):
        check(copy_in(root), root)
    imported = import_copy(root)
    assert (imported.returncode, imported.stdout, imported.stderr) == (1, "", f"{said}\n")


def test_what_python_writes_beside_the_sources_is_none_of_them(root: Path) -> None:
    (root / "streams" / "__pycache__").mkdir()
    (root / "streams" / "__pycache__" / "x.pyc").write_bytes(b"\0")
    check(copy_in(root), root)


def test_a_copy_that_was_not_finished_is_refused_by_name(root: Path) -> None:
    (copy_in(root) / "made-of").unlink()
    with pytest.raises(SystemExit, match="the compiled copy is not built; run: make compiled"):
        check(copy_in(root), root)
    assert import_copy(root).returncode == 1


def test_a_copy_that_was_taken_elsewhere_is_used_there(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(copy_in(root), copy_in(elsewhere))
    assert import_copy(elsewhere).stdout == "ok\n"
