"""Every emitted file stands alone: it imports torch and triton, and runs where nothing of treadle can be imported."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gluon.test_emulated import SMALL, small_kernel
from tests.kernels.plans import HOPPER, tiny
from tests.kernels.test_compile import SHAPES
from treadle.codegen.gluon.emit import emit as emit_gluon
from treadle.codegen.triton.emit import emit

pytest.importorskip("torch")

ALLOWED = {"torch", "triton", "__future__"}
ALONE = """
import importlib.abc, sys

class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "treadle":
            raise ImportError("treadle is not here")

sys.meta_path.insert(0, Refused())
sys.path.insert(0, ".")
import torch
import kernel

x, weight = torch.randn(5, 32).bfloat16(), torch.randn(32).bfloat16()
found = kernel.launch(x, weight)
wide = x.double()
right = wide * (wide.square().mean(1, keepdim=True) + 1e-6).rsqrt() * weight.double()
assert float((found.double() - right).norm() / right.norm()) < 0.02
try:
    kernel.launch(x, weight, out=x)
except ValueError as error:
    print(error)
"""


def _imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module is not None
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_portable_kernels_import_torch_and_triton_alone(family: str) -> None:
    assert set(_imported(emit(tiny(family, *SHAPES[family], {}), HOPPER))) <= ALLOWED


@pytest.mark.parametrize("name", SMALL)
def test_gluon_kernels_import_torch_and_triton_alone(name: str) -> None:
    assert set(_imported(emit_gluon(small_kernel(name, "h200")))) <= ALLOWED


def test_what_measures_imports_itself_torch_and_triton_alone() -> None:
    """The folder that `treadle bench --prepare` copies beside the kernels."""
    for path in (Path(__file__).parents[2] / "treadle" / "driver" / "gpu").glob("*.py"):
        tree = ast.parse(path.read_text())
        own = {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("treadle")
        }
        assert all(module is not None and module.startswith("treadle.driver.gpu.") for module in own), path
        others = {name for name in _imported(path.read_text()) if name not in sys.stdlib_module_names}
        assert others <= {*ALLOWED, "treadle", "numpy"}, path


def test_a_kernel_runs_in_an_empty_folder_without_treadle(tmp_path: Path) -> None:
    kernel = tiny("rms_norm", {"rows": 8, "columns": 32}, {"block_rows": 1, "rows_per_instance": 4}, {})
    (tmp_path / "kernel.py").write_text(emit(kernel, HOPPER))
    (tmp_path / "alone.py").write_text(ALONE)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-P", "-s", "alone.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out shares memory with x; pass a tensor of its own, or none\n"
