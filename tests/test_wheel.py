"""The wheel holds every package, template, data file and the type marker, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("codegen", "costmodels", "frontends", "ir", "solvers")
KEPT = {".py", ".j2", ".css", ".toml", ".json", ".typed", ".js"}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    source = tmp_path_factory.mktemp("source")
    for entry in (*ROOMS, "treadle"):
        shutil.copytree(ROOT / entry, source / entry, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for entry in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / entry, source)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


def test_every_source_and_data_file_is_in(names: set[str]) -> None:
    expected = {
        f"treadle/{path.relative_to(ROOT / 'treadle')}" for path in (ROOT / "treadle").glob("*") if path.is_file()
    }
    for folder in ("cli", "driver", "verification"):
        expected |= {f"treadle/{folder}/{path.name}" for path in (ROOT / "treadle" / folder).glob("*.py")}
    for room in ROOMS:
        expected |= {f"treadle/{path.relative_to(ROOT)}" for path in (ROOT / room).rglob("*") if path.suffix in KEPT}
    assert sorted(expected - names) == []


def test_nothing_else_is_in(names: set[str]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    outside = [name for name in names if not name.startswith(("treadle/", f"treadle-{version}.dist-info/"))]
    assert outside == []
