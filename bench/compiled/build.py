"""A second copy of our packages, in which mypyc has compiled what events pass through.

It stands apart from the sources: a compiled module beside its source would go on being imported
after the source has changed.
"""

import ast
import contextlib
import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "compiled"
PACKAGES = ("schemas", "streams")
ROOM = Path("streams") / "budget"
BESIDE = (
    Path("schemas/decode.py"),
    Path("streams/ledger/batch.py"),
    Path("streams/ledger/publish.py"),
)


def modules() -> list[Path]:
    """Return the modules to compile: those that events pass through and that define no Struct."""
    paths = sorted((ROOT / ROOM).glob("*.py"))
    found = [ROOM / path.name for path in paths if path.stem != "__init__"]
    return [path for path in (*found, *BESIDE) if _may_be(ROOT / path)]


def build() -> list[Path]:
    """Make the copy anew, with a C compiler (`CC`); return the modules that were compiled.

    Raises:
        SystemExit: there is no C compiler, or it or mypyc has refused something; says what.
    """
    _choose_compiler()
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
    """Tell whether mypyc keeps the meaning of all classes of a module.

    It drops the keywords of a class statement without a word, and with them msgspec's `frozen`.
    """
    classes = [
        one for one in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(one, ast.ClassDef)
    ]
    return not any(one.keywords or _is_struct(one) for one in classes)


def _is_struct(one: ast.ClassDef) -> bool:
    return any(ast.unparse(base).removeprefix("msgspec.") == "Struct" for base in one.bases)
