"""Groups in which compilers find nothing in common.

All groups are one function to ptxas. What several of them compute from the kernel's arguments, or read of special
registers, it makes once before they part, and keeps in local memory where a group needs its registers.
"""

from __future__ import annotations

from treadle.codegen.gluon.frames import FrameBase
from treadle.codegen.gluon.writer import Lines
from treadle.ir.warp.program import WarpGroup

OWN = ("seq", "kv_seq", "heads", "kv_heads")
"""Sizes that several groups compute with."""


class ApartFrame(FrameBase):
    """Each group takes sizes through an instruction of its own, and reads for itself which instance it is."""

    def opening(self, group: WarpGroup) -> Lines:
        """Return what a group does before its first tile."""
        own = [key for key, value in self.scalars().items() if key in OWN and isinstance(value, int)]
        return [*(f"{key} = _own({key})" for key in own), *super().opening(group)]

    def tile_loop(self, tile: Lines) -> Lines:
        """Return the walk over the tiles of an instance around what is done with one of them."""
        return [
            line.replace("ttgl.program_id(0)", "_instance(tiles)").replace("ttgl.num_programs(0)", "_stride(tiles)")
            for line in super().tile_loop(tile)
        ]
