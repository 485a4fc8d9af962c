"""TMA descriptors of kernel arguments, from the types that compiled kernels name: what is copied, how, and from where.

A descriptor of a Gluon kernel is written `tensordesc<bf16[64, 256],NVMMASharedLayout(swizzle_byte_width=128, ...)>`:
element type, block and layout in shared memory. One copy moves a box of it: at most 256 elements along a dimension, and
along the last one as many bytes as the swizzle spans (CUDA Driver API, cuTensorMapEncodeTiled).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any

from treadle.driver.cuda_calls import done
from treadle.ir.errors import InvalidValue

DESCRIPTOR = "tensordesc"
_TYPE = re.compile(r"tensordesc<(\w+)\[([\d, ]+)\],NVMMASharedLayout\((.*)\)>")
_ELEMENTS: dict[str, tuple[str, int]] = {
    "bf16": ("BFLOAT16", 2), "fp16": ("FLOAT16", 2), "fp32": ("FLOAT32", 4), "fp8e4nv": ("UINT8", 1),
    "fp8e5": ("UINT8", 1), "i8": ("UINT8", 1), "u8": ("UINT8", 1), "i32": ("INT32", 4),
}  # fmt: skip
"""Element types as Triton names them -> the driver's, and their bytes; 8-bit floats are moved as bytes."""
_SWIZZLES = {0: "NONE", 32: "32B", 64: "64B", 128: "128B"}
LONGEST_BOX = 256
"""Elements of a box along one dimension (CUDA Driver API)."""
ALIGNMENT = 16
"""Bytes that addresses and strides are multiples of (CUDA Driver API)."""
LARGEST_EXTENT = 2**31 - 1
"""Kernels take extents as 32-bit numbers."""


@dataclass(frozen=True, slots=True)
class Strided:
    """Device memory that a descriptor copies from or to: address, extents, strides in elements, bytes an element."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    element_bytes: int

    @classmethod
    def contiguous(cls, pointer: int, shape: tuple[int, ...], element_bytes: int) -> Strided:
        """Return memory whose last extent is the innermost one, without gaps."""
        return cls(pointer, shape, tuple(prod(shape[at + 1 :]) for at in range(len(shape))), element_bytes)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a kernel expects of one descriptor: element type, box of one copy, swizzle in bytes (0: none)."""

    element: str
    box: tuple[int, ...]
    swizzle_bytes: int

    def misfit(self, value: Strided) -> str:
        """Return why memory cannot be copied by this descriptor; empty where it can."""
        rank, size = len(self.box), _ELEMENTS[self.element][1]
        if len(value.shape) != rank or len(value.strides) != rank:
            return f"the descriptor has {rank} dimensions, the memory {len(value.shape)}"
        if value.element_bytes != size:
            return f"elements of {value.element_bytes} bytes; the descriptor copies {self.element}, {size} bytes each"
        if min(value.shape) < 1 or max(value.shape) > LARGEST_EXTENT:
            return f"extents {value.shape}; expected 1 to {LARGEST_EXTENT}"
        if value.strides[-1] != 1:
            return f"the last dimension has stride {value.strides[-1]}; expected 1"
        if value.pointer % ALIGNMENT:
            return f"the address {value.pointer} is not a multiple of {ALIGNMENT}"
        if odd := [stride for stride in value.strides[:-1] if stride * size % ALIGNMENT]:
            return f"a stride of {odd[0]} elements is not a multiple of {ALIGNMENT} bytes"
        return ""

    def encoded(self, value: Strided, driver: Any) -> Any:
        """Return the descriptor, as the driver makes it; raises DriverFailure."""
        kind, size = _ELEMENTS[self.element]
        shape, strides, box = value.shape[::-1], value.strides[-2::-1], self.box[::-1]
        (made,) = done(
            driver.cuTensorMapEncodeTiled(
                getattr(driver.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{kind}"),
                len(box),
                value.pointer,
                [driver.cuuint64_t(extent) for extent in shape],
                [driver.cuuint64_t(stride * size) for stride in strides],
                [driver.cuuint32_t(extent) for extent in box],
                [driver.cuuint32_t(1)] * len(box),
                driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
                getattr(driver.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{_SWIZZLES[self.swizzle_bytes]}"),
                driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            ),
            "a TMA descriptor",
        )
        return made


def parse_descriptor(kind: str) -> Descriptor:
    """Return the descriptor that an argument's type names; raises InvalidValue for one of another form."""
    found = _TYPE.fullmatch(kind)
    if found is None or found[1] not in _ELEMENTS:
        raise InvalidValue(message=f"`{kind}` is no TMA descriptor that can be made here")
    layout = dict(part.split("=", 1) for part in found[3].split(", ") if "=" in part)
    swizzle, size = int(layout["swizzle_byte_width"]), _ELEMENTS[found[1]][1]
    box = [min(int(extent), LONGEST_BOX) for extent in found[2].split(",")]
    if swizzle:
        box[-1] = min(box[-1], swizzle // size)
    return Descriptor(found[1], tuple(box), swizzle)
