"""A second copy of our packages, in which mypyc has compiled what events pass through.

It stands apart from the sources: a compiled module beside its source would go on being imported
after the source has changed.
"""

import ast
import builtins
import contextlib
import importlib
import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import msgspec
from mypyc.build import mypycify
from setuptools import setup

from bench.compiled import sources
from bench.compiled.sources import FOLDER, PACKAGES, ROOT

ROOM = Path("streams") / "budget"
BESIDE = (
    Path("schemas/decode.py"),
    Path("streams/ledger/batch.py"),
    Path("streams/ledger/folding.py"),
    Path("streams/ledger/publish.py"),
)


def modules() -> list[Path]:
    """Return the modules to compile: those that events pass through and that define no Struct."""
    paths = sorted((ROOT / ROOM).glob("*.py"))
    found = [ROOM / path.name for path in paths if path.stem != "__init__"]
    return [path for path in (*found, *BESIDE) if _may_be(path)]


def build() -> list[Path]:
    """Make the copy anew, with a C compiler (`CC`); return the modules that were compiled.

    Raises:
        SystemExit: there is no C compiler, or it or mypyc has refused something; says what.
    """
    _choose_compiler()
    made_of = sources.digest()  # now: they may change while it is compiled
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, FOLDER / name, ignore=shutil.ignore_patterns("__pycache__"))
    found = modules()
    with contextlib.chdir(FOLDER):
        config = ["--config-file", os.path.relpath(ROOT / "pyproject.toml")]
        extensions = mypycify(
            [*config, *map(str, found)], opt_level="3", debug_level="0", group_name="stoploss"
        )
        arguments = ["--quiet", "build_ext", "--inplace"]
        setup(name="stoploss", packages=[], ext_modules=extensions, script_args=arguments)
        for scratch in ("build", ".mypy_cache"):
            shutil.rmtree(scratch, ignore_errors=True)
    sources.finish(FOLDER, made_of)
    return found


def _choose_compiler() -> None:
    """Have `CC`, Python's own compiler, or that of the package ziglang used, whichever there is."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise SystemExit(f"compiled: {header} is not there; install the headers of this Python")
    name = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(shlex.split(name)[0]) is not None:
        return
    if importlib.util.find_spec("ziglang") is None:
        raise SystemExit(
            f"compiled: CC: {name!r} is not installed; name a C compiler, or install one as a "
            "package: .venv/bin/pip install ziglang"
        )
    os.environ["CC"] = f"{shlex.quote(sys.executable)} -m ziglang cc"


def _may_be(path: Path) -> bool:
    """Tell whether a module can be compiled; it is imported, to see what its names stand for."""
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    if module.__file__ is None or Path(module.__file__) != ROOT / path:
        raise SystemExit(f"compiled: {module.__file__} was imported; run it without PYTHONPATH")
    return keeps_its_meaning((ROOT / path).read_text("utf-8"), vars(module))


def keeps_its_meaning(source: str, names: Mapping[str, object]) -> bool:
    """Tell whether mypyc keeps the meaning of all classes of a module.

    It drops the keywords of a class statement without a word, and with them msgspec's `frozen`; a
    Struct that has none gets them from whatever it inherits from. A base of which cannot be told
    what it is may be one.

    Args:
        source: of the module.
        names: of the module once it is imported.
    """
    classes = [one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.ClassDef)]
    return not any(
        one.keywords or any(_may_be_struct(base, names) for base in one.bases) for one in classes
    )


def _may_be_struct(base: ast.expr, names: Mapping[str, object]) -> bool:
    found = _named(base, names)
    return not isinstance(found, type) or issubclass(found, msgspec.Struct)


def _named(expression: ast.expr, names: Mapping[str, object]) -> object:
    match expression:
        case ast.Name(name):
            return names.get(name, getattr(builtins, name, None))
        case ast.Attribute(value, name):
            return getattr(_named(value, names), name, None)
        case ast.Subscript(value):
            return _named(value, names)
        case _:
            return None
