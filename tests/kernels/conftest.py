"""Emitted kernels as modules, run by Triton's interpreter on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.kernels.plans import HOPPER, tiny
from treadle.codegen.triton.emit import emit

Load = Callable[..., ModuleType]


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
