"""Frames of the assignment step of k-means: points once a tile, centroids through a ring, smallest distance carried."""

from __future__ import annotations

import re
from collections.abc import Sequence

from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.frames import Descriptor, Extra, FrameBase, wgmma_layout
from treadle.codegen.gluon.kernel import TENSOR_ROWS, WarpKernel, identifier
from treadle.codegen.gluon.writer import Lines
from treadle.ir.tile.program import TileOperation
from treadle.ir.warp.program import Action, Buffer, WarpGroup


class AssignFrame(FrameBase):
    """Index of the nearest centroid of every point; a tile is a block of points, distances are never written."""

    template = "kmeans_assign.py.j2"
    summary = "Index of the nearest centroid of every point"

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        self.suffixes = tuple(i.name.removeprefix("x") for i in self.program.invariants)
        self.rows, self.depth = self.program.invariants[0].tile.shape
        if self.rows % 64:
            raise NotEmittable(kernel=kernel.name, reason=f"{self.rows} points of a group; wgmma takes 64 at a time")
        for group in self.warp.groups:
            for suffix in self.suffixes:
                if len({self.makes(group, f"{name}{suffix}") for name in ("distance", "best", "index")}) > 1:
                    raise NotEmittable(kernel=kernel.name, reason="distances and choices in different groups")
        size = self.tile_bytes((self.rows, self.depth), self.kernel.dtype) * len(self.suffixes)
        self.need(kernel.name, size)
        self.slots = 2 if 2 * size <= self.free_bytes() else 1

    # --- module -----------------------------------------------------------------------------------------------------

    def descriptors(self) -> tuple[Descriptor, ...]:
        """Return the tensors copied by TMA, in the order of the kernel's arguments."""
        dtype, columns = self.kernel.dtype, self.sizes["block_n"]
        return (
            Descriptor("x_rows", (self.rows, self.depth), dtype, "x"),
            Descriptor("centroid_rows", (columns, self.depth), dtype, "centroids"),
            Descriptor("norm_values", (columns,), "float32", "norms"),
        )

    def scalars(self) -> dict[str, int | str]:
        """Return the kernel's other arguments with their planned values (or types)."""
        results: dict[str, int | str] = {"assigned": "*i32", "distances": "*fp32"}
        return {**results, "points": self.shape["points"], "count": self.shape["centroids"]}

    def constants(self) -> Lines:
        """Return module-level constants."""
        run = min(self.depth, 8)
        across = min(32, self.depth // run)
        return [
            f"DOTS = ttgl.constexpr({self.dots()})",
            "ROWS = ttgl.constexpr(ttgl.SliceLayout(1, DOTS.value))",
            "COLUMNS = ttgl.constexpr(ttgl.SliceLayout(0, DOTS.value))",
            f"POINTS = ttgl.constexpr(ttgl.BlockedLayout([1, {run}], [{32 // across}, {across}], [4, 1], [1, 0]))",
        ]

    def dots(self) -> str:
        """Return the register layout of products."""
        return wgmma_layout(self.sizes["block_n"], self.kernel.dtype)

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop."""
        block = (self.rows, self.depth)
        return tuple(Extra(f"x{s}", block, self.kernel.dtype, "X_LAYOUT", self.slots, 1) for s in self.suffixes)

    def rings(self) -> dict[str, tuple[tuple[int, ...], str, str]]:
        """Return block, element type and layout of every buffer of the loop in shared memory."""
        _, centroids, norms = self.descriptors()
        return {
            "load_c": (centroids.block, centroids.element, centroids.layout),
            "load_norm": (norms.block, norms.element, norms.layout),
            "load_norm.to_registers": (norms.block, norms.element, norms.layout),
        }

    # --- loop -------------------------------------------------------------------------------------------------------

    def copy(self, operation: str, iteration: str) -> tuple[str, str]:
        """Return the descriptor and the coordinates of a load."""
        first = self.first(iteration)
        return ("centroid_rows", f"[{first}, 0]") if operation == "load_c" else ("norm_values", f"[{first}]")

    def first(self, iteration: str) -> str:
        """Return the first centroid of an iteration, as text."""
        return f"({iteration}) * BLOCK_N" if " " in iteration else f"{iteration} * BLOCK_N"

    def layout(self, value: str) -> str:
        """Return the layout of a value in registers."""
        if value.startswith("load_norm"):
            return "COLUMNS"
        return "DOTS" if value.startswith(("dots", "distance")) else "ROWS"

    def invariant(self, value: str) -> str:
        """Return the text of a value made before the loop."""
        return f"{value}.index({self._slot()[0]})"

    def statement(self, operation: TileOperation, operands: Sequence[str], iteration: str) -> str:
        """Return the expression of an operation on registers."""
        forms = {
            "distance": "{1}[None, :] - 2.0 * {0}",
            "tile_best": "ttgl.min({0}, 1)",
            "tile_index": "ttgl.min(ttgl.where({0} == {1}[:, None], columns[None, :], BLOCK_N), 1)",
            "nearer": "{0} < {1}",
            "best": "ttgl.where({0}, {1}, {2})",
            "index": f"ttgl.where({{0}}, {{1}} + {self.first(iteration)}, {{2}})",
        }
        stem = re.sub(r"_\d+$", "", operation.name)
        return forms[stem].format(*operands)

    def mask_stage(self, group: WarpGroup) -> int | None:
        """Return the least stage of an operation that is masked."""
        performed = [i for i in group.steady if i.action is Action.PERFORM and i.subject.startswith("tile_best")]
        return min((i.stage for i in performed), default=None)

    def mask(self, operation: TileOperation, iteration: str, operands: Sequence[str]) -> Lines:
        """Centroids that do not exist are infinitely far away."""
        if not operation.name.startswith("tile_best"):
            return []
        name = operands[0]
        return [f'{name} = ttgl.where(columns[None, :] < count - {self.first(iteration)}, {name}, float("inf"))']

    # --- tiles ------------------------------------------------------------------------------------------------------

    def _slot(self) -> tuple[str, str]:
        slots = self.slots
        return ("0" if slots == 1 else f"_slot(tiles_done, {slots})"), f"_parity(tiles_done, {slots})"

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        lines = ["tiles = ttgl.cdiv(points, BLOCK_M)", "tiles_done = 0", "full = count // BLOCK_N"]
        lines.append(f"trips = {self.trips('ttgl.cdiv(count, BLOCK_N)')}")
        return [*lines, "columns = ttgl.arange(0, BLOCK_N, COLUMNS)"] if self._own(group, "index") else lines

    def _own(self, group: WarpGroup, name: str) -> list[str]:
        return [suffix for suffix in self.suffixes if self.makes(group, f"{name}{suffix}")]

    def tile(self, group: WarpGroup) -> Lines:
        """Return how a group finds its tile of the grid and the trips of its loop."""
        return ["first_row = tile * BLOCK_M"]

    def _row(self, suffix: str) -> str:
        at = self.suffixes.index(suffix)
        return f"first_row + {at * self.rows}" if at else "first_row"

    def start(self, group: WarpGroup) -> Lines:
        """Return what a group does before the loop of a tile."""
        slot, parity = self._slot()
        lines: Lines = []
        if self.is_load(group):
            for suffix in self.suffixes:
                lines += [
                    f"mbarrier.wait(x{suffix}_empty.index({slot}), {parity} ^ 1)",
                    f"mbarrier.expect(x{suffix}_full.index({slot}), x_rows.block_type.nbytes)",
                    f"_copy(x_rows, [{self._row(suffix)}, 0], x{suffix}_full.index({slot}), x{suffix}.index({slot}))",
                ]
            return lines
        for suffix in self._own(group, "index"):
            lines.append(f'best{suffix} = ttgl.full(({self.rows},), float("inf"), ttgl.float32, ROWS)')
            lines.append(f"index{suffix} = ttgl.zeros(({self.rows},), ttgl.int32, ROWS)")
        reading = dict.fromkeys((*self._own(group, "dots"), *self._own(group, "index")))
        return [*lines, *(f"mbarrier.wait(x{suffix}_full.index({slot}), {parity})" for suffix in reading)]

    def finish(self, group: WarpGroup) -> Lines:
        """Return what a group does after the loop of a tile; what chooses also reads the points, for their lengths."""
        if self.is_load(group):
            return ["tiles_done += 1"]
        slot, _ = self._slot()
        lines: Lines = []
        for suffix in self._own(group, "index"):
            lines += [
                f"squared{suffix} = ttgl.maximum(best{suffix} + _lengths(x{suffix}.index({slot})), 0.0)",
                f"_store_column(assigned, index{suffix}, {self._row(suffix)}, points)",
                f"_store_column(distances, squared{suffix}, {self._row(suffix)}, points)",
            ]
        reading = dict.fromkeys((*self._own(group, "dots"), *self._own(group, "index")))
        released = [f"mbarrier.arrive(x{suffix}_empty.index({slot}), count=1)" for suffix in reading]
        return [*lines, *released, "tiles_done += 1"]


class TensorAssignFrame(AssignFrame):
    """The same on Blackwell: products in tensor memory, a point a thread."""

    def __init__(self, kernel: WarpKernel) -> None:
        super().__init__(kernel)
        if self.rows != TENSOR_ROWS:
            raise NotEmittable(kernel=kernel.name, reason=f"{self.rows} points of a group; tensor memory has 128 lanes")

    def dots(self) -> str:
        """Return the register layout of products."""
        return f"ttgl.BlockedLayout([1, {self.sizes['block_n']}], [32, 1], [4, 1], [0, 1])"

    def constants(self) -> Lines:
        """Return module-level constants."""
        memory = f"TensorMemoryLayout([{self.rows}, {self.sizes['block_n']}], col_stride=1)"
        return [*super().constants(), f"DOTS_MEMORY = ttgl.constexpr({memory})"]

    def tensor_buffer(self, buffer: Buffer) -> Lines:
        """Return the allocation of a buffer in tensor memory."""
        shape = [buffer.slots, self.rows, self.sizes["block_n"]]
        return [f"{identifier(buffer.name)} = allocate_tensor_memory(ttgl.float32, {shape}, DOTS_MEMORY)"]

    def extras(self) -> tuple[Extra, ...]:
        """Return buffers outside the loop: points are given back by every group that reads them."""
        readers = max(
            sum(bool(self.makes(group, f"dots{s}") or self.makes(group, f"index{s}")) for group in self.warp.groups)
            for s in self.suffixes
        )
        return tuple(
            Extra(extra.name, extra.block, extra.dtype, extra.layout, extra.slots, readers)
            for extra in super().extras()
        )
