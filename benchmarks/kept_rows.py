"""Rows of a long benchmark, kept on disk one by one: a run that was stopped goes on with them.

A row is found again only by a run of the same code: its file is named after a digest of the sources it depends on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import treadle
from treadle.frontends.programs import FAMILIES

Rows = list[dict[str, Any]]
PROGRAMS = "frontends/programs"
PORTABLE = (
    "codegen/triton", "codegen/gluon/machine_code.py", "costmodels/lower.py", "costmodels/predict.py",
    "costmodels/tile_cycles.py", "costmodels/tile_traffic.py", "costmodels/data/machines", "ir/tile/program.py",
    "ir/tile/loop.py", "ir/tile/schedule.py", "solvers/modulo", "solvers/backend.py", "driver/kernels.py",
    "driver/spills.py",
)  # fmt: skip
"""What rows of portable kernels depend on, beside their family."""
SPECIALIZED = (
    *PORTABLE, "codegen/gluon", "codegen/templates/gluon", "costmodels/lower_warps.py", "costmodels/warp_facts.py",
    "costmodels/warp_interpreter.py", "costmodels/warp_semantics.py", "ir/tile", "ir/warp", "solvers/pipeline",
    "driver/gluon.py", "driver/gpu",
)  # fmt: skip
"""What rows of warp-specialized kernels depend on, beside their family."""


def kept(
    folder: Path | None, name: str, family: str, sources: Sequence[str], more: Sequence[str], make: Callable[[], Rows]
) -> Rows:
    """Return the rows that an earlier run of the same code has left in the folder, else make and leave them.

    Args:
        folder: where rows are kept; None keeps nothing.
        name: of the rows.
        family: whose program and template they depend on.
        sources: what else they depend on, relative to the package.
        more: anything else that tells runs apart.
        make: makes the rows.
    """
    if folder is None:
        return make()
    digest = hashlib.sha256("\n".join((_digest((*sources, *_of_family(family))), *more)).encode()).hexdigest()[:16]
    file = folder / f"{re.sub(r'[^a-z0-9]+', '_', name)}.{digest}.json"
    if file.is_file():
        found: Rows = json.loads(file.read_text())
        return found
    rows = make()
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))
    return rows


def _of_family(family: str) -> tuple[str, ...]:
    """Return the module of a family with the modules of the library that it imports, and its portable template."""
    root, found, waiting = _root(), set[str](), [family]
    while waiting:
        name = waiting.pop()
        if name not in found and (root / PROGRAMS / f"{name}.py").is_file():
            found.add(name)
            text = (root / PROGRAMS / f"{name}.py").read_text()
            waiting += re.findall(r"treadle\.frontends\.programs\.(\w+) import", text)
    templates = "codegen/templates/triton"
    own = (f"{templates}/{family}.py.j2", *(f"{templates}/{path.name}" for path in (root / templates).glob("_*.j2")))
    return (*sorted(f"{PROGRAMS}/{name}.py" for name in found), *sorted(own))


@cache
def _digest(sources: tuple[str, ...]) -> str:
    """Return a digest of files and folders; of families only those that are named."""
    root, other = _root(), {f"{name}.py" for name in FAMILIES}
    files: set[Path] = set()
    for part in sources:
        path = root / part
        if path.is_file():
            files.add(path)
        files |= {file for file in path.rglob("*") if file.suffix in (".py", ".j2", ".toml")}
    kept_files = [file for file in sorted(files) if file.parent.name != "programs" or file.name not in other]
    kept_files += [root / part for part in sources if part.startswith(PROGRAMS)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in kept_files)).hexdigest()


def _root() -> Path:
    return Path(treadle.__file__).parent
