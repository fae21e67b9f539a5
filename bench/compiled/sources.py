"""Of which sources a compiled copy was made: whoever uses it with others is told, and stops.

The copy has this file as well, and looks when it is imported; so this is the standard library only.
"""

import hashlib
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # from a copy's as well: it is as deep in `build` as this here
FOLDER = ROOT / "build" / "compiled"
PACKAGES = ("schemas", "streams")
SEEN = (*PACKAGES, "bench/compiled")
MADE_OF = "made-of"
LOOKS = Path("stoploss_compiled_sources.py")
IMPORTED_FIRST = Path("streams") / "__init__.py"


def digest(root: Path = ROOT) -> str:
    """Return the digest of all that a copy is made of, and by which: sources, Python."""
    found = hashlib.sha256(sys.version.encode())
    for name in SEEN:
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                found.update(f"\n{path.relative_to(root)} {len(content)}\n".encode())
                found.update(content)
    return found.hexdigest()


def finish(folder: Path, made_of: str) -> None:
    """Note in a copy what it was made of, and have it look when it is imported."""
    shutil.copy(__file__, folder / LOOKS)
    with (folder / IMPORTED_FIRST).open("a", encoding="utf-8") as file:
        file.write(f"\nfrom {LOOKS.stem} import check\n\ncheck()\n")
    (folder / MADE_OF).write_text(made_of)


def check(folder: Path = FOLDER, root: Path = ROOT) -> None:
    """See that a copy is whole, and made of the sources that are here; where none are, it may be.

    Raises:
        SystemExit: it is not; with what to do.
    """
    noted = folder / MADE_OF
    if not noted.is_file():
        raise SystemExit(f"{folder}: the compiled copy is not built; run: make compiled")
    if (root / SEEN[-1]).is_dir() and noted.read_text() != digest(root):
        raise SystemExit(f"{folder}: compiled of other sources than are here; run: make compiled")
