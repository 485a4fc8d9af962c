"""The library of tile programs: one module per family, loaded on first use.

A family turns a shape (whole numbers by key), tile sizes and options into one `TileProgram`: the steady loop of a
kernel, told as honest dataflow. Which machine runs it is no concern of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

from treadle.frontends.programs.errors import UnknownFamily
from treadle.frontends.programs.rows import ROW_PARTS, split_rows
from treadle.ir.diagnostics import closest

if TYPE_CHECKING:
    from treadle.frontends.programs.shapes import Family
    from treadle.ir.tile.program import TileProgram

FAMILIES: dict[str, str] = {
    "attention_bwd": "treadle.frontends.programs.attention_bwd",
    "attention_decode": "treadle.frontends.programs.attention_decode",
    "attention_fwd": "treadle.frontends.programs.attention_fwd",
    "attention_paged": "treadle.frontends.programs.attention_paged",
    "attention_varlen": "treadle.frontends.programs.attention_varlen",
    "dual_gemm": "treadle.frontends.programs.dual_gemm",
    "gemm": "treadle.frontends.programs.gemm",
    "gemm_fp8": "treadle.frontends.programs.gemm_fp8",
    "gemm_persistent": "treadle.frontends.programs.gemm_persistent",
    "gemm_w4a16": "treadle.frontends.programs.gemm_w4a16",
    "grouped_gemm": "treadle.frontends.programs.grouped_gemm",
    "kmeans_assign": "treadle.frontends.programs.kmeans_assign",
    "layer_norm": "treadle.frontends.programs.layer_norm",
    "rms_norm": "treadle.frontends.programs.rms_norm",
    "rms_norm_gemm": "treadle.frontends.programs.rms_norm_gemm",
    "swiglu": "treadle.frontends.programs.swiglu",
}
"""Family name -> the module whose `FAMILY` describes it."""

Options = Mapping[str, str | int | bool]


def family(name: str) -> Family:
    """Return the description of a family; raises UnknownFamily."""
    if name not in FAMILIES:
        raise UnknownFamily(
            family=name, expected=f"one of {', '.join(FAMILIES)}", hint=closest(name, list(FAMILIES)) or None or ""
        )
    return cast("Family", import_module(FAMILIES[name]).FAMILY)


def build(
    name: str,
    shape: Mapping[str, int],
    tile_sizes: Mapping[str, int] | None = None,
    options: Options | None = None,
) -> TileProgram:
    """Return the tile program of a family at a shape.

    Args:
        name: a key of `FAMILIES`.
        shape: extents by key, all whole numbers; the keys are the family's (`family(name).shape`).
        tile_sizes: block sizes by key; those left out, or all of them, come from the first candidate.
        options: `dtype` (`bfloat16` or `float16`), the family's own switches, and `row_parts` (see `rows`).

    Raises:
        UnknownFamily, UnknownShapeKey, MissingShapeKey, InvalidExtent, IndivisibleHeads, UnsupportedHeadDimension,
        InvalidTileSize, InvalidOption.
    """
    chosen = dict(options or {})
    parts = int(chosen.pop(ROW_PARTS, 1))
    program = family(name).build(shape, tile_sizes, chosen)
    return split_rows(program, parts) if parts > 1 else program


def candidates(name: str, shape: Mapping[str, int], options: Options | None = None) -> tuple[TileProgram, ...]:
    """Return a few programs of different tile sizes for one shape, the usual choice first; raises as `build`."""
    return family(name).candidates(shape, options)
