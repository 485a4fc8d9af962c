"""Launching binaries through the CUDA driver, with a driver that only records."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.kernels.plans import HOPPER, tiny
from treadle.codegen.triton.compile import compile_source
from treadle.codegen.triton.emit import emit
from treadle.driver import launch_binary
from treadle.driver.launch_binary import Binary, DriverFailure, UnsupportedLaunch, load_binary
from treadle.driver.measure import NoGpu
from treadle.ir.errors import MissingExtra, UnreadableFile

FACTS = {
    "kernel": "gemm_kernel", "symbol": "gemm_kernel", "target": "sm_90", "warps": 8, "dynamic_shared_bytes": 98304,
    "arguments": {"a": "*bf16", "b": "*bf16", "out": "*bf16", "m": "i32", "n": "i32", "scale": "fp32"},
    "multiples_of_16": ["a", "b", "out", "m"],
}  # fmt: skip


class Driver:
    """The calls of the driver, as cuda-python answers them."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=75, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=76
    )
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)

    def __init__(self, capability: tuple[int, int] = (9, 0), parameters: int = 8, devices: int = 1) -> None:
        self.capability, self.parameters, self.devices = capability, parameters, devices
        self.calls: list[tuple[Any, ...]] = []
        self.status = 0

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        answers = {"cuCtxGetCurrent": 1, "cuModuleLoadData": "module", "cuModuleGetFunction": "function"}

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            return (self.status if name == "cuLaunchKernel" else 0, answers.get(name, 0))

        return call

    def cuDeviceGetCount(self) -> tuple[int, int]:  # noqa: N802 - the driver's name
        return 0, self.devices

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> tuple[int, int]:  # noqa: N802
        return 0, self.capability[attribute - 75]

    def cuFuncGetParamInfo(self, function: Any, index: int) -> tuple[int, int, int]:  # noqa: N802
        return int(index >= self.parameters), 8 * index, 8


def on(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    def found(_: str) -> object:
        return object()

    def imported(_: str) -> Driver:
        return driver

    monkeypatch.setattr(launch_binary, "find_spec", found)
    monkeypatch.setattr("importlib.import_module", imported)


VALUES = (16, 32, 48, 64, 7, 0.5)


def test_a_launch_hands_over_arguments_and_zeroes_for_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    on(monkeypatch, driver)
    Binary(b"cubin", FACTS).launch((4, 2, 1), VALUES, stream=9)
    launch = next(call for call in driver.calls if call[0] == "cuLaunchKernel")
    types = (*[ctypes.c_void_p] * 3, ctypes.c_int32, ctypes.c_int32, ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p)
    assert launch[1:] == ("function", 4, 2, 1, 256, 1, 1, 98304, 9, ((*VALUES, 0, 0), types), 0)
    assert ("cuFuncSetAttribute", "function", 8, 98304) in driver.calls


def test_tensors_are_pointers() -> None:
    tensor = torch.zeros(16)
    handed, _ = Binary(b"", FACTS).packed((tensor, tensor, tensor, 64, 7, 0.5))
    assert handed[0] == tensor.data_ptr()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (VALUES[:5], "5 values are given"),
        ((8, *VALUES[1:]), "`a` is 8; the binary was compiled for multiples of 16"),
        ((16, 32, 48, 65, 7, 0.5), "`m` is 65"),
    ],
)
def test_arguments_it_was_not_compiled_for(values: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(UnsupportedLaunch, match=reason):
        Binary(b"", FACTS).launch((1, 1, 1), values)


def test_descriptors_are_refused() -> None:
    facts = {**FACTS, "arguments": {"a": "tensordesc<bf16[64, 64]>"}, "multiples_of_16": []}
    with pytest.raises(UnsupportedLaunch, match="only its `launch` function can make"):
        Binary(b"", facts).packed((1,))


def test_another_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, Driver(capability=(8, 0)))
    with pytest.raises(UnsupportedLaunch, match="compiled for sm_90, this GPU is sm_80"):
        Binary(b"", FACTS).launch((1, 1, 1), VALUES)


def test_a_driver_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    driver.status = 701
    on(monkeypatch, driver)
    with pytest.raises(DriverFailure, match="refuses the launch: 701"):
        Binary(b"", FACTS).launch((1, 1, 1), VALUES)


def test_without_a_gpu_or_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((MissingExtra, NoGpu)):
        Binary(b"", FACTS).launch((1, 1, 1), VALUES)
    on(monkeypatch, Driver(devices=0))
    with pytest.raises(NoGpu):
        Binary(b"", FACTS).launch((1, 1, 1), VALUES)


def test_binaries_of_a_plan_folder_say_what_they_take(tmp_path: Path) -> None:
    tiles = {"block_m": 64, "block_n": 64, "block_k": 64}
    (made,) = compile_source(emit(tiny("gemm", {"m": 512, "n": 500, "k": 512}, tiles), HOPPER), "sm_90")
    (tmp_path / "gemm.cubin").write_bytes(made.data)
    (tmp_path / "gemm.json").write_text(made.sidecar())
    binary = load_binary(tmp_path / "gemm.cubin")
    assert binary.data == made.data
    assert binary.facts["multiples_of_16"] == ["a", "b", "out", "m", "k"]
    assert binary.arguments == json.loads(made.sidecar())["arguments"]
    with pytest.raises(UnreadableFile):
        load_binary(tmp_path / "absent.cubin")
