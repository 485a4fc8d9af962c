"""Launches a compiled kernel of a plan folder through the CUDA driver (cuda-python), without torch or triton.

Gluon kernels take TMA descriptors: one is made for every such argument from a tensor, or from `Strided` memory.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from treadle.driver.cuda_calls import done
from treadle.driver.descriptors import DESCRIPTOR, Descriptor, Strided, parse_descriptor
from treadle.driver.measure import NoGpu
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import MissingExtra
from treadle.ir.plan import parse_json, read_bytes, read_text

THREADS_PER_WARP = 32
LARGEST_STATIC_SHARED = 48 * 1024
"""Shared memory beyond this must be asked for (CUDA C++ Programming Guide, compute capability 8.x and later)."""
DESCRIPTOR_BYTES = 128
"""Of a TMA descriptor among the parameters (CUtensorMap, CUDA Driver API)."""
_SCALARS: dict[str, Any] = {
    "i1": ctypes.c_bool, "i8": ctypes.c_int8, "i16": ctypes.c_int16, "i32": ctypes.c_int32, "i64": ctypes.c_int64,
    "u8": ctypes.c_uint8, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64, "fp32": ctypes.c_float,
    "fp64": ctypes.c_double,
}  # fmt: skip
"""Types of arguments as Triton names them -> what the driver is handed."""


class UnsupportedLaunch(TreadleError):
    """Arguments a binary was not compiled for, or a GPU it does not run on."""

    code = "TRD545"
    template = "`{kernel}` cannot be launched: {reason}"
    hint = "nothing was launched; the JSON file beside the binary says what it takes"


@dataclass(frozen=True, slots=True)
class Binary:
    """A cubin and the facts of the JSON file beside it."""

    data: bytes
    facts: Mapping[str, Any]

    @property
    def arguments(self) -> dict[str, str]:
        """Types of the arguments in order, pointers as `*bf16`."""
        types: dict[str, str] = self.facts["arguments"]
        return types

    def packed(self, values: Sequence[Any], driver: Any = None) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return (values, types) for the driver; a TMA descriptor is itself, then its shape and strides.

        Pointers are whole numbers, or anything with a `data_ptr()`. What is copied by descriptors is anything that
        also has a `shape` and a `stride()`, or `Strided`, in as many dimensions as the descriptor.

        Args:
            values: one for each of `arguments`.
            driver: cuda-python's driver module, which makes descriptors; not needed without them.

        Raises:
            UnsupportedLaunch: another number of values, a pointer that is not aligned to 16 bytes, a size of which the
                binary expects a multiple of 16, or memory that cannot be copied by the descriptor.
        """
        if len(values) != len(self.arguments):
            self._refuse(f"it takes {', '.join(self.arguments)}; {len(values)} values are given")
        handed: list[Any] = []
        types: list[Any] = []
        for value, (name, kind) in zip(values, self.arguments.items(), strict=True):
            if kind.startswith(DESCRIPTOR):
                parts, plain = self._descriptor(name, parse_descriptor(kind), value, driver)
                handed += parts
                types += plain
                continue
            pointer = kind.startswith("*")
            if not pointer and kind not in _SCALARS:
                self._refuse(f"`{name}` is a {kind}, which has no plain form")
            number = value.data_ptr() if hasattr(value, "data_ptr") else value
            if name in self.facts["multiples_of_16"] and number % 16:
                self._refuse(f"`{name}` is {number}; the binary was compiled for multiples of 16")
            handed.append(number)
            types.append(ctypes.c_void_p if pointer else _SCALARS[kind])
        return tuple(handed), tuple(types)

    def _descriptor(self, name: str, wanted: Descriptor, value: Any, driver: Any) -> tuple[list[Any], list[Any]]:
        """Return a TMA descriptor of the value with its shape and strides, and their types.

        The kernel reads the descriptor from its parameters; shape and strides stand behind it, as Triton expands them.
        """
        if not isinstance(value, Strided):
            if not hasattr(value, "data_ptr"):
                self._refuse(f"`{name}` is copied by TMA: a tensor or `Strided` memory is expected, not {value!r}")
            value = Strided(value.data_ptr(), tuple(value.shape), tuple(value.stride()), value.element_size())
        if reason := wanted.misfit(value):
            self._refuse(f"`{name}`: {reason}")
        made = wanted.encoded(value, driver)
        rank = len(wanted.box)
        types = [None, *[ctypes.c_int32] * rank, *[ctypes.c_int64] * rank]
        return [made, *value.shape, *value.strides], types

    def launch(self, grid: tuple[int, int, int], values: Sequence[Any], stream: int = 0) -> None:
        """Launch on the current device.

        Args:
            grid: program instances along x, y, z.
            values: one for each of `arguments`.
            stream: handle of a CUDA stream; 0 is the default one.

        Raises:
            MissingExtra: cuda-python is not installed. NoGpu. UnsupportedLaunch. DriverFailure.
        """
        if any(kind.startswith(DESCRIPTOR) for kind in self.arguments.values()):
            driver = _driver()
            handed, types = self.packed(values, driver)
        else:
            handed, types = self.packed(values)
            driver = _driver()
        self._check_device(driver)
        function = self._function(driver)
        sizes = _parameter_bytes(driver, function)
        expected = [DESCRIPTOR_BYTES if kind is None else ctypes.sizeof(kind) for kind in types]
        if sizes[: len(expected)] != expected:
            self._refuse(f"its parameters take {sizes} bytes; {expected} would be handed over: another Triton made it")
        spare = len(sizes) - len(handed)
        parameters = ((*handed, *[0] * spare), (*types, *[ctypes.c_void_p] * spare))
        threads = self.facts["warps"] * THREADS_PER_WARP
        shared = self.facts["dynamic_shared_bytes"]
        done(driver.cuLaunchKernel(function, *grid, threads, 1, 1, shared, stream, parameters, 0), "the launch")

    def _check_device(self, driver: Any) -> None:
        (device,) = done(driver.cuCtxGetDevice(), "the current device")
        attribute = driver.CUdevice_attribute
        names = ("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR")
        parts = [done(driver.cuDeviceGetAttribute(getattr(attribute, name), device), name)[0] for name in names]
        found = f"sm_{parts[0]}{parts[1]}"
        if found != self.facts["target"]:
            self._refuse(f"it is compiled for {self.facts['target']}, this GPU is {found}")

    def _function(self, driver: Any) -> Any:
        (module,) = done(driver.cuModuleLoadData(self.data), "the binary")
        (function,) = done(driver.cuModuleGetFunction(module, self.facts["symbol"].encode()), "the kernel")
        shared = self.facts["dynamic_shared_bytes"]
        if shared > LARGEST_STATIC_SHARED:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            done(driver.cuFuncSetAttribute(function, attribute, shared), f"{shared} bytes of shared memory")
        return function

    def _refuse(self, reason: str) -> None:
        raise UnsupportedLaunch(kernel=self.facts["kernel"], reason=reason)


def load_binary(path: str | Path) -> Binary:
    """Return a compiled kernel of a plan folder, given its `.cubin`.

    Raises:
        UnreadableFile, MalformedText: the binary or the JSON file beside it.
    """
    file = Path(path)
    sidecar = file.with_suffix(".json")
    return Binary(read_bytes(file), parse_json(read_text(sidecar), str(sidecar)))


def _driver() -> Any:
    """Return cuda-python's driver module, initialized, with a context; raises MissingExtra, NoGpu."""
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        raise MissingExtra(package="cuda-python", purpose="launching binaries", extra="cuda")
    driver: Any = importlib.import_module("cuda.bindings.driver")
    try:
        failed = driver.cuInit(0)[0]
    except RuntimeError as error:  # cuda-python looks for the display driver at the first call only
        raise NoGpu from error
    if failed or not done(driver.cuDeviceGetCount(), "the number of devices")[0]:
        raise NoGpu
    (context,) = done(driver.cuCtxGetCurrent(), "the current context")
    if not int(context):
        (device,) = done(driver.cuDeviceGet(0), "the first device")
        (primary,) = done(driver.cuDevicePrimaryCtxRetain(device), "its context")
        done(driver.cuCtxSetCurrent(primary), "its context")
    return driver


def _parameter_bytes(driver: Any, function: Any) -> list[int]:
    """Return the bytes of each parameter of a kernel: its arguments, then scratch pointers of Triton, unused here."""
    found: list[int] = []
    while True:
        status, *place = driver.cuFuncGetParamInfo(function, len(found))
        if status:
            return found
        found.append(int(place[1]))
