"""What surrounds the loop of a kernel: memory, barriers, tiles of the grid, first values, output - by family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle.codegen.gluon.errors import NoSharedMemoryLeft, NotEmittable
from treadle.codegen.gluon.kernel import LARGEST_INSTRUCTION_N, WarpKernel, identifier, loads_only
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import DTYPE_BYTES, Memory, OperationKind, TileOperation
from treadle.ir.warp.program import Buffer, Role, WarpGroup

GLUON_TYPES = {
    "bfloat16": "ttgl.bfloat16",
    "float16": "ttgl.float16",
    "float32": "ttgl.float32",
    "float8_e4m3": "ttgl.float8e4nv",
    "int8": "ttgl.int8",
    "uint8": "ttgl.uint8",
    "int32": "ttgl.int32",
    "bool": "ttgl.int1",
}
POINTERS = {"bfloat16": "*bf16", "float16": "*fp16"}
SHORT_TYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float8_e4m3": "fp8e4nv", "uint8": "u8"}
INSTRUCTION_K_BYTES = 32
"""Bytes of the contracted extent that one `wgmma` or `tcgen05.mma` takes (PTX ISA)."""
BARRIER_BYTES = 8
"""An mbarrier is 64 bits in shared memory (PTX ISA)."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A tensor that is copied by TMA: its name in the kernel, its block, and the launcher's name of the tensor."""

    name: str
    block: tuple[int, ...]
    dtype: str
    tensor: str = ""

    @property
    def element(self) -> str:
        """Element type in Gluon."""
        return GLUON_TYPES[self.dtype]

    @property
    def layout(self) -> str:
        """Name of its shared-memory layout."""
        return f"{(self.tensor or self.name).upper()}_LAYOUT"


@dataclass(frozen=True, slots=True)
class Extra:
    """A buffer or barrier pair outside the loop: `slots` tiles, handed from one group to another once a tile."""

    name: str
    block: tuple[int, ...]
    dtype: str
    layout: str
    slots: int = 1
    arrivals: int = 0
    """Arrivals that empty a slot; 0 when nothing is handed over."""


class FrameBase(ABC):
    """Common parts of all frames; a family says the rest."""

    def __init__(self, kernel: WarpKernel) -> None:
        self.kernel = kernel
        self.program = kernel.program
        self.warp = kernel.warp_program
        self.sizes = kernel.program.tile_sizes
        self.shape = kernel.program.shape
        self.element = GLUON_TYPES[kernel.dtype]

    # --- of the family ----------------------------------------------------------------------------------------------

    template: str
    summary: str

    @abstractmethod
    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA, in the order of the kernel's arguments."""

    @abstractmethod
    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""

    @abstractmethod
    def constants(self) -> Lines:
        """Return module-level constants."""

    @abstractmethod
    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop."""

    @abstractmethod
    def tile(self, group: WarpGroup) -> Lines:
        """Return how a group finds its tile of the grid and the trips of its loop."""

    @abstractmethod
    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""

    @abstractmethod
    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile."""

    @abstractmethod
    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""

    def handed(self, buffer: Buffer) -> tuple[tuple[int, ...], str, str]:
        """Return block, element type and layout of a buffer over which a register value is handed to another group."""
        tile = self.program.tile_of(buffer.name.partition(".")[0])
        shape = tile.shape[1:] if len(tile.shape) > 1 and tile.shape[0] == 1 else tile.shape
        flat = len(shape) == 1
        layout = "ttgl.SwizzledSharedLayout(1, 1, 1, [0])" if flat else "ttgl.SwizzledSharedLayout(8, 1, 8, [1, 0])"
        return shape, GLUON_TYPES[tile.dtype], layout

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        return []

    def closing(self, group: WarpGroup) -> Lines:
        """Return what a group does after its last tile."""
        return []

    def extra_groups(self) -> dict[str, tuple[Lines, int]]:
        """Return groups that are not in the warp program (body and registers by name): they work between loops."""
        return {}

    def tile_loop(self, tile: Lines) -> Lines:
        """Return the walk over the tiles of an instance around what is done with one of them."""
        return ["for tile in range(ttgl.program_id(0), tiles, ttgl.num_programs(0)):", *indented(tile)]

    def settle(self, group: WarpGroup, epilogue: Lines) -> Lines:
        """Return what makes the results of a group's loop values where its epilogue does not."""
        return []

    def barrier_names(self) -> tuple[str, ...]:
        """Return barriers that no channel, turn or extra buffer has."""
        return ()

    def mask_stage(self, group: WarpGroup) -> int | None:
        """Return the least stage of a group's operations that some steps of a tile mask; None where none does."""
        return None

    def tensor_buffer(self, buffer: Buffer) -> Lines:
        """Return the allocation of a buffer in tensor memory."""
        raise NotEmittable(kernel=self.kernel.name, reason=f"buffer `{buffer.name}` is in tensor memory")

    # --- shared -----------------------------------------------------------------------------------------------------

    def is_load(self, group: WarpGroup) -> bool:
        """Whether a group only issues copies."""
        return loads_only(group, self.program)

    def makes(self, group: WarpGroup, name: str) -> bool:
        """Whether a group performs an operation."""
        return any(i.action.value == "perform" and i.subject == name for i in group.instructions())

    def products(self, group: WarpGroup) -> tuple[TileOperation, ...]:
        """Return the products of a group, in program order."""
        return tuple(
            operation
            for operation in self.program.operations
            if operation.kind is OperationKind.MMA and self.makes(group, operation.name)
        )

    def mask(self, operation: TileOperation, iteration: str, operands: Sequence[str]) -> Lines:
        """Return what a masked step does before an operation: nothing, unless the family says so."""
        return []

    def has_first(self, value: str) -> bool:
        """Whether a value has a first one before the loop of a tile, under its own name."""
        return False

    def printed_at(self, operation: str) -> str:
        """Return the operation at which one is printed as a part of a change in tensor memory; empty: by itself."""
        return ""

    def changed(self, operation: str, operands: Sequence[str], slot: str) -> Lines:
        """Return a change of tensor memory; refuse what the family does not know."""
        raise NotEmittable(kernel=self.kernel.name, reason=f"operation `{operation}` has no form in tensor memory")

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Refuse operations that the family does not know."""
        raise NotEmittable(kernel=self.kernel.name, reason=f"operation `{operation.name}` has no Gluon form")

    def mask_operands(self, operation: TileOperation, iteration: str, operands: Mapping[Role, str]) -> Lines:
        """Return what a masked step does to a product's operands in shared memory: nothing, unless the family says so.

        Rows of a copy beyond its tensor are zeros anyway.
        """
        return []

    @abstractmethod
    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""

    @abstractmethod
    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""

    def expected_bytes(self, descriptor: str, target: str) -> str:
        """Return the bytes that a copy brings, as text."""
        return f"{descriptor}.block_type.nbytes"

    def issued(self, descriptor: str, where: str, barrier: str, target: str) -> str:
        """Return the statement that issues a copy."""
        return f"_copy({descriptor}, {where}, {barrier}, {target})"

    def destination(self, descriptor: str, slot: str) -> str:
        """Return the text of a slot as the descriptor's block."""
        return slot

    def invariant(self, value: str) -> str:
        """Return the text of a value made before the loop."""
        return identifier(value)

    def held(self, value: str, role: Role, reader: TileOperation, iteration: str) -> str:
        """Return a product's operand that was made before the loop."""
        return self.invariant(value)

    def view(self, value: str, slot: str, role: Role, reader: TileOperation) -> str:
        """Return a product's operand: weights and keys are stored (n, k) and read transposed."""
        return f"{slot}.permute((1, 0))" if role is Role.B else slot

    def trips(self, count: str, fewest: int = 1) -> str:
        """Return the trips of the loop: those with work, and empty ones where fewer iterations than overlap have it.

        Copies beyond the tensors' ends bring zeros, so that an empty iteration adds nothing. `fewest` is the least that
        `count` can be.
        """
        least = max(group.stages for group in self.warp.groups) - 1
        return f"ttgl.maximum({count}, {least})" if least > fewest else count

    def tile_bytes(self, block: tuple[int, ...], dtype: str) -> int:
        """Return the bytes of a block."""
        size = 1
        for extent in block:
            size *= extent
        return int(size * DTYPE_BYTES[dtype])

    def free_bytes(self) -> int:
        """Return the shared memory that rings and barriers of the loop leave, bytes."""
        buffers = sum(b.slots * b.slot_bytes for b in self.warp.buffers if b.memory is Memory.SHARED)
        barriers = sum(2 * self.warp.buffer(c.buffer).slots for c in self.warp.channels)
        barriers += sum(len(turn.holders) for turn in self.warp.turns)
        capacity = int(self.kernel.machine.value("shared_capacity_bytes"))
        return capacity - buffers - (barriers + 64) * BARRIER_BYTES

    def need(self, name: str, needed: int) -> None:
        """Refuse a frame that does not fit; raises NoSharedMemoryLeft."""
        if needed > self.free_bytes():
            raise NoSharedMemoryLeft(kernel=name, needed=needed, free=max(0, self.free_bytes()))


def wgmma_layout(columns: int, operands: str) -> str:
    """Return the register layout of a product of one warp group, with as many columns (at most 256 an instruction)."""
    width = min(columns, LARGEST_INSTRUCTION_N)
    depth = int(INSTRUCTION_K_BYTES / DTYPE_BYTES[operands])
    return f"ttgl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, {width}, {depth}])"


def indented(lines: Lines) -> Lines:
    """Return lines one level deeper."""
    return [f"    {line}" for line in lines]


def barriers(name: str, count: int, arrivals: int) -> Lines:
    """Return the allocation of `count` mbarriers, whose phases end with so many arrivals each."""
    return [
        f"{name} = ttgl.allocate_shared_memory(ttgl.int64, [{count}, 1], mbarrier.MBarrierLayout())",
        f"for slot in ttgl.static_range({count}):",
        f"    mbarrier.init({name}.index(slot), count={arrivals})",
    ]
