"""Emitted kernels as modules, run by Triton's interpreter on the CPU."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.kernels.plans import HOPPER, tiny
from treadle.codegen.triton.emit import emit

Load = Callable[..., ModuleType]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[None]:
    """Choose Triton's interpreter, which is fixed when triton is imported; compilation has a process of its own."""
    library = sys.modules.get("triton.language")
    interpreted = library is None or type(library.cdiv).__name__ == "InterpretedFunction"
    assert interpreted, "triton was imported before its interpreter was chosen"
    os.environ["TRITON_INTERPRET"] = "1"
    yield
    del os.environ["TRITON_INTERPRET"]


@pytest.fixture
def load(tmp_path: Path, interpreter: None) -> Load:
    def build(family: str, shape: dict[str, int], tiles: dict[str, int], **options: str | int | bool) -> ModuleType:
        path = tmp_path / f"{family}.py"
        path.write_text(emit(tiny(family, shape, tiles, options), HOPPER))
        specification = importlib.util.spec_from_file_location(family, path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module

    return build
