"""Launchers refuse what their kernels do not take, before anything runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.gluon.kernels import kernel_of
from treadle.codegen.gluon.emit import emit

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="extra `kernels`")


@pytest.fixture(scope="module")
def gemm(interpreter: None, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return _module("gemm h200", tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def attention(interpreter: None, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return _module("attention h200", tmp_path_factory.mktemp("kernels"))


def _module(case: str, folder: Path) -> ModuleType:
    path = folder / f"gluon_{case.split()[0]}.py"
    path.write_text(emit(kernel_of(case)))
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


def _half(*shape: int) -> Any:
    return torch.zeros(shape, dtype=torch.bfloat16)


def test_gemm_checks(gemm: ModuleType) -> None:
    a, b = _half(64, 128), _half(256, 128)
    for wrong, message in (
        ((a.float(), b), "dtype float32"),
        ((a, _half(256, 64)), "expected \\(256, 128\\)"),
        ((a, _half(128, 256).t()), "not contiguous"),
        ((_half(64 * 128 + 1)[1:].view(64, 128), b), "not aligned to 16 bytes"),
        ((_half(64, 100), _half(256, 100)), "multiple of 8: pad to 104"),
        ((a, _half(100, 128)), "n is 100"),
        ((a[0], b), "expected 2 extents"),
        ((_half(0, 128), b), "at least 1"),
        ((a, b), "runs on a GPU of compute capability 9.0"),
    ):
        with pytest.raises(ValueError, match=message):
            gemm.launch(*wrong)
    with pytest.raises(ValueError, match="out has the shape"):
        gemm.launch(a, b, _half(64, 64))


def test_grouped_checks(tmp_path: Path) -> None:
    grouped = _module("grouped h200", tmp_path)
    a, weight = _half(64, 128), _half(4, 256, 128)
    offsets = torch.tensor([0, 10, 10, 60, 64], dtype=torch.int32)
    for wrong, message in (
        ((a, weight, offsets.long()), "dtype int64"),
        ((a, weight, offsets[:4]), "expected \\(5,\\)"),
        ((a, weight, offsets.flip(0)), "must rise from 0 to the 64 rows"),
        ((a, weight[:, :, :64].contiguous(), offsets), "weight has the shape"),
        ((a, weight, offsets), "compute capability 9.0"),
    ):
        with pytest.raises(ValueError, match=message):
            grouped.launch(*wrong)


def test_scales_checks(tmp_path: Path) -> None:
    scaled = _module("fp8 b200", tmp_path)
    a, b = (torch.zeros((rows, 128), dtype=torch.float8_e4m3fn) for rows in (64, 256))
    of_a, of_b = torch.ones(64), torch.ones(256)
    for wrong, message in (
        ((_half(64, 128), b, of_a, of_b), "takes float8_e4m3fn"),
        ((a, b, of_a.half(), of_b), "takes float32"),
        ((a, b, of_b, of_a), "scale_a has the shape"),
        ((a, b, of_a, of_b), "compute capability 10.0"),
    ):
        with pytest.raises(ValueError, match=message):
            scaled.launch(*wrong)


def test_attention_checks(attention: ModuleType) -> None:
    q, k = _half(1, 4, 64, 128), _half(1, 2, 128, 128)
    for wrong, message in (
        ((q, k, _half(1, 2, 64, 128)), "v has the shape"),
        ((_half(1, 3, 64, 128), k, k), "cannot share"),
        ((_half(1, 4, 256, 128), k, k), "would see no key"),
        ((q, k, k, -1.0), "scale is -1.0"),
        ((q, k, k), "compute capability 9.0"),
    ):
        with pytest.raises(ValueError, match=message):
            attention.launch(*wrong)
