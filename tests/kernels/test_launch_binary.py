"""Launching binaries through the CUDA driver, with a driver that only records."""

from __future__ import annotations

import ctypes
import json
import struct
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.kernels.plans import HOPPER, tiny
from treadle.codegen.triton.compile import compile_source
from treadle.codegen.triton.emit import emit
from treadle.costmodels.machines import load_machine
from treadle.driver import launch_binary
from treadle.driver.cuda_calls import DriverFailure
from treadle.driver.descriptors import Descriptor, Strided, parse_descriptor
from treadle.driver.gluon import fit_kernels
from treadle.driver.kernels import KernelOptions, plan_program
from treadle.driver.launch_binary import Binary, UnsupportedLaunch, load_binary
from treadle.driver.measure import NoGpu
from treadle.frontends import programs
from treadle.ir.errors import InvalidValue, MissingExtra, UnreadableFile
from treadle.solvers.backend import Limits

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

    CUtensorMapDataType = SimpleNamespace(CU_TENSOR_MAP_DATA_TYPE_BFLOAT16=9, CU_TENSOR_MAP_DATA_TYPE_UINT8=0)
    CUtensorMapSwizzle = SimpleNamespace(CU_TENSOR_MAP_SWIZZLE_128B=3, CU_TENSOR_MAP_SWIZZLE_NONE=0)
    CUtensorMapInterleave = SimpleNamespace(CU_TENSOR_MAP_INTERLEAVE_NONE=0)
    CUtensorMapL2promotion = SimpleNamespace(CU_TENSOR_MAP_L2_PROMOTION_L2_128B=2)
    CUtensorMapFloatOOBfill = SimpleNamespace(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE=0)
    cuuint64_t = cuuint32_t = int

    def __init__(self, capability: tuple[int, int] = (9, 0), devices: int = 1, sizes: Sequence[int] = ()) -> None:
        self.capability, self.devices, self.sizes = capability, devices, sizes
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
        sizes = self.sizes or [8, 8, 8, 4, 4, 4, 8, 8]
        return (0, 0, sizes[index]) if index < len(sizes) else (1, 0, 0)


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


def test_types_without_a_plain_form_are_refused() -> None:
    facts = {**FACTS, "arguments": {"a": "tuple<i32>"}, "multiples_of_16": []}
    with pytest.raises(UnsupportedLaunch, match="has no plain form"):
        Binary(b"", facts).packed((1,))


def test_a_binary_of_another_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(sizes=(8, 8, 8, 8, 4, 4))
    on(monkeypatch, driver)
    with pytest.raises(UnsupportedLaunch, match=r"take \[8, 8, 8, 8, 4, 4\] bytes; \[8, 8, 8, 4, 4, 4\] would"):
        Binary(b"", FACTS).launch((1, 1, 1), VALUES)
    assert "cuLaunchKernel" not in [call[0] for call in driver.calls]


# --- TMA descriptors --------------------------------------------------------------------------------------------------

LAYOUT = "NVMMASharedLayout(swizzle_byte_width={}, element_bitwidth={}, rank=2, transposed=False, fp4_padded=False)"
COPIED = {
    **FACTS,
    "arguments": {"a_rows": f"tensordesc<bf16[64, 256],{LAYOUT.format(128, 16)}>", "m": "i32"},
    "multiples_of_16": [],
}


def test_a_descriptor_is_made_and_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Triton's launcher does it: the descriptor, then extents and strides in elements, outermost first."""
    driver = Driver(sizes=(128, 4, 4, 8, 8, 4, 8, 8))
    on(monkeypatch, driver)
    tensor = torch.zeros(96, 512, dtype=torch.bfloat16)
    Binary(b"cubin", COPIED).launch((1, 1, 1), (tensor, 96))
    (made,) = [call for call in driver.calls if call[0] == "cuTensorMapEncodeTiled"]
    box, ones = [64, 64], [1, 1]
    assert made[1:] == (9, 2, tensor.data_ptr(), [512, 96], [1024], box, ones, 0, 3, 2, 0)
    launch = next(call for call in driver.calls if call[0] == "cuLaunchKernel")
    handed, types = launch[10]
    assert handed == (0, 96, 512, 512, 1, 96, 0, 0)
    assert types[:6] == (None, *[ctypes.c_int32] * 2, *[ctypes.c_int64] * 2, ctypes.c_int32)


def test_memory_without_torch_is_described_by_hand() -> None:
    driver = Driver()
    memory = Strided.contiguous(4096, (96, 512), 2)
    assert memory.strides == (512, 1)
    handed, _ = Binary(b"", COPIED).packed((memory, 96), driver)
    assert handed[1:] == (96, 512, 512, 1, 96)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Strided.contiguous(4096, (96, 512, 1), 2), "has 2 dimensions, the memory 3"),
        (Strided.contiguous(4096, (96, 512), 1), "elements of 1 bytes; the descriptor copies bf16"),
        (Strided(4096, (96, 512), (1, 96), 2), "the last dimension has stride 96"),
        (Strided.contiguous(4104, (96, 512), 2), "4104 is not a multiple of 16"),
        (Strided.contiguous(4096, (96, 500), 2), "a stride of 500 elements is not a multiple of 16 bytes"),
        (Strided.contiguous(4096, (0, 512), 2), "expected 1 to"),
        (4096, "a tensor or `Strided` memory is expected"),
    ],
)
def test_memory_that_cannot_be_copied_is_refused(value: Any, reason: str) -> None:
    driver = Driver()
    with pytest.raises(UnsupportedLaunch, match=reason):
        Binary(b"", COPIED).packed((value, 96), driver)
    assert not driver.calls


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (f"tensordesc<bf16[64, 256],{LAYOUT.format(128, 16)}>", Descriptor("bf16", (64, 64), 128)),
        (f"tensordesc<fp8e4nv[256, 128],{LAYOUT.format(128, 8)}>", Descriptor("fp8e4nv", (256, 128), 128)),
        (f"tensordesc<u8[128, 64],{LAYOUT.format(64, 8)}>", Descriptor("u8", (128, 64), 64)),
        (f"tensordesc<fp32[512],{LAYOUT.format(0, 32)}>", Descriptor("fp32", (256,), 0)),
    ],
)
def test_boxes_are_those_of_one_copy(kind: str, expected: Descriptor) -> None:
    assert parse_descriptor(kind) == expected


def test_other_descriptors_are_no_input() -> None:
    with pytest.raises(InvalidValue, match="no TMA descriptor that can be made here"):
        parse_descriptor("tensordesc<bf16[64, 256],PaddedSharedLayout()>")


def parameter_bytes(cubin: bytes) -> list[int]:
    """Return the parameter sizes that a binary states (EIATTR_KPARAM_INFO of `.nv.info`), in their order."""
    found: dict[int, int] = {}
    at = cubin.find(b"\x04\x17\x0c\x00")
    while at >= 0:
        _, ordinal, _, flags = struct.unpack_from("<IHHI", cubin, at + 4)
        found[ordinal] = flags >> 18
        at = cubin.find(b"\x04\x17\x0c\x00", at + 4)
    return [found[ordinal] for ordinal in sorted(found)]


def test_what_is_handed_over_has_the_sizes_that_compiled_kernels_state(tmp_path: Path) -> None:
    """A Gluon kernel with three descriptors, and a portable one: the binaries say what their parameters take."""
    options, machine = KernelOptions(Limits(deterministic_s=0.02)), load_machine("h200")
    tiles = {"block_m": 128, "block_n": 128, "block_k": 64}
    plan = plan_program(programs.build("gemm", {"m": 512, "n": 512, "k": 512}, tiles), machine, options)
    _, files = fit_kernels((plan,), machine, options, "", lambda _: None)
    for path, data in files.items():
        (tmp_path / Path(path).name).write_bytes(data)
    binary = load_binary(next(tmp_path.glob("*.cubin")))
    kinds = list(binary.arguments.values())
    assert sum(kind.startswith("tensordesc") for kind in kinds) == 3
    tensor = torch.zeros(512, 512, dtype=torch.bfloat16)
    values = [tensor if kind.startswith("tensordesc") else 512 for kind in kinds]
    driver = Driver()
    _, types = binary.packed(values, driver)
    stated = parameter_bytes(binary.data)
    assert [128 if kind is None else ctypes.sizeof(kind) for kind in types] == stated[: len(types)]
    boxes = [call[6] for call in driver.calls]
    assert all(prod(box) * 2 <= 64 * 256 * 2 and box[0] * 2 <= 128 for box in boxes)


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
    assert list(binary.arguments) == ["a", "b", "out", "m", "n", "k"]
    sizes = parameter_bytes(binary.data)
    _, types = binary.packed((16, 32, 48, 512, 500, 512))
    assert [ctypes.sizeof(kind) for kind in types] == sizes[: len(types)]
    assert binary.arguments == json.loads(made.sidecar())["arguments"]
    with pytest.raises(UnreadableFile):
        load_binary(tmp_path / "absent.cubin")
