"""The Gluon language as emitted kernels use it, on torch tensors: layouts mean nothing here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from treadle.driver.gpu.emulated import Barrier, Buffer, Pointer, TensorBuffer

Tensor = torch.Tensor
UNWRITTEN = 85
"""What whole numbers in memory are before they are written."""


class Number(int):
    """A compile-time number."""

    @property
    def value(self) -> int:
        """The number."""
        return int(self)


class Anything:
    """A layout or type: whatever is asked of it is such a thing again."""

    def __call__(self, *_: Any, **__: Any) -> Anything:
        """Return such a thing again."""
        return self

    def __getattr__(self, name: str) -> Any:
        return None if name.startswith("__") else self


class Barriers:
    """An array of mbarriers."""

    def __init__(self, count: int) -> None:
        self.each = [Barrier() for _ in range(count)]

    def index(self, slot: int) -> Barrier:
        """Return one of them."""
        return self.each[slot]


class BarrierLanguage:
    """What `mbarrier` offers; waits are turns of the scheduler."""

    MBarrierLayout = Anything()

    @staticmethod
    def init(barrier: Barrier, count: int) -> None:
        """Set how many arrivals end a phase."""
        barrier.count = count

    @staticmethod
    def expect(barrier: Barrier, size: int) -> None:
        """Arrive, and expect the bytes of a copy."""
        barrier.arrive(size)

    @staticmethod
    def arrive(barrier: Barrier, count: int) -> None:
        """Arrive once."""
        barrier.arrive()


class Language:
    """What `ttgl` and `tl` offer; `program_id` and `warp_specialize` are those of the machine that runs them."""

    bfloat16, float16, float32 = torch.bfloat16, torch.float16, torch.float32
    int8, uint8, int32, int64, uint32, int1 = (
        torch.int8, torch.uint8, torch.int32, torch.int64, torch.int64, torch.bool,
    )  # fmt: skip
    float8e4nv = torch.float8_e4m3fn
    NVMMADistributedLayout = NVMMASharedLayout = BlockedLayout = SliceLayout = DotOperandLayout = Anything()
    SwizzledSharedLayout = shared_memory_descriptor = Anything()
    static_range = range
    exp2, log2, sqrt = torch.exp2, torch.log2, torch.sqrt

    def __init__(self, program: Callable[[], tuple[int, int]], specialize: Callable[..., None]) -> None:
        self.program, self.warp_specialize = program, specialize

    def program_id(self, axis: int) -> int:
        """Return which instance runs."""
        return self.program()[0]

    def num_programs(self, axis: int) -> int:
        """Return how many instances there are."""
        return self.program()[1]

    @staticmethod
    def constexpr(value: Any) -> Any:
        """Return a compile-time value."""
        return Number(value) if isinstance(value, int) else Anything()

    @staticmethod
    def cdiv(a: int, b: int) -> int:
        """Return a / b rounded up."""
        return -(-a // b)

    @staticmethod
    def arange(first: int, end: int, layout: Any = None) -> Tensor:
        """Return whole numbers in their order."""
        return torch.arange(first, end)

    @staticmethod
    def full(shape: Any, value: float, dtype: Any = torch.float32, layout: Any = None) -> Tensor:
        """Return a tile of one value."""
        return torch.full(tuple(shape), value, dtype=dtype)

    @staticmethod
    def zeros(shape: Any, dtype: Any, layout: Any = None) -> Tensor:
        """Return a tile of zeros."""
        return torch.zeros(tuple(shape), dtype=dtype)

    @staticmethod
    def max(tile: Tensor, axis: int) -> Tensor:
        """Return the largest along an axis."""
        return tile.amax(axis)

    @staticmethod
    def min(tile: Tensor, axis: int) -> Tensor:
        """Return the smallest along an axis."""
        return tile.amin(axis)

    @staticmethod
    def sum(tile: Tensor, axis: int) -> Tensor:
        """Return sums along an axis."""
        return tile.sum(axis)

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        """Return the larger of two."""
        return _either(a, b, torch.maximum, max)

    @staticmethod
    def minimum(a: Any, b: Any) -> Any:
        """Return the smaller of two."""
        return _either(a, b, torch.minimum, min)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Tensor:
        """Return a where the condition holds, else b."""
        if not isinstance(condition, bool):
            return torch.where(condition, a, b)
        chosen, like = (a, b) if condition else (b, a)
        return chosen if isinstance(chosen, Tensor) else torch.full_like(like, chosen)

    @staticmethod
    def convert_layout(tile: Tensor, layout: Any) -> Tensor:
        """Return the tile: layouts mean nothing."""
        return tile

    @staticmethod
    def load(pointer: Pointer, mask: Any = None, other: Any = 0) -> Any:
        """Read global memory."""
        return pointer.load(mask, other)

    @staticmethod
    def store(pointer: Pointer, value: Tensor, mask: Any = None) -> None:
        """Write global memory."""
        pointer.store(value, mask)

    @staticmethod
    def atomic_add(pointer: Pointer, value: Tensor, mask: Any = None, sem: Any = None) -> None:
        """Add to global memory."""
        pointer.add(value, mask)

    @staticmethod
    def allocate_shared_memory(dtype: torch.dtype, shape: list[int], layout: Any) -> Any:
        """Return slots of shared memory, or barriers."""
        return Barriers(shape[0]) if dtype is torch.int64 else Buffer(unwritten(shape, dtype))

    @staticmethod
    def allocate_tensor_memory(dtype: torch.dtype, shape: list[int], layout: Any) -> Buffer:
        """Return slots of tensor memory."""
        return TensorBuffer(unwritten(shape, dtype))


def unwritten(shape: list[int], dtype: torch.dtype) -> Tensor:
    """Return memory that nobody has written: no numbers, as far as the type has such."""
    empty = torch.zeros(tuple(shape), dtype=dtype)
    return empty.fill_(float("nan") if dtype.is_floating_point else UNWRITTEN)


def multiplied(a: Any, b: Buffer) -> Tensor:
    """Return the product of tiles in float32."""
    left: Tensor = a.array if isinstance(a, Buffer) else a
    return left.float() @ b.array.float()


def _either(a: Any, b: Any, tensors: Callable[..., Any], numbers: Callable[..., Any]) -> Any:
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return numbers(a, b)
    dtype = a.dtype if isinstance(a, Tensor) else b.dtype
    return tensors(*(x if isinstance(x, Tensor) else torch.tensor(x, dtype=dtype) for x in (a, b)))
