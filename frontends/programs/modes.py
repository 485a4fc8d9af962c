"""Every tile a family can be cut into: all legal sizes, sub-tiles and rows over two warp groups, as programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from treadle.frontends.programs import build, family
from treadle.frontends.programs.errors import InvalidTileSize
from treadle.frontends.programs.rows import ROW_PARTS, splits_rows
from treadle.frontends.programs.shapes import Options, Size, TileSizes
from treadle.ir.tile.program import TileProgram

GROUP_ROWS = 64
"""Rows of the smallest product that one warp group issues."""


def every_mode(
    name: str, shape: Mapping[str, int], options: Mapping[str, str | int | bool], *, over_groups: bool
) -> tuple[TileProgram, ...]:
    """Return the programs of all legal tile sizes of a family at a shape, in order of their sizes.

    Sizes that are powers of two take each of them in their range. Others (iterations of a persistent instance) are no
    shapes of tiles and take the values of the usual candidates. With `over_groups` a tile whose rows two warp groups
    can share is there twice.

    Raises:
        TreadleError: as `build`, of what is wrong with the family, the shape or the options.
    """
    described = family(name)
    checked, chosen = described.check_shape(shape), described.check_options(dict(options))
    usual = described.tiles(checked, chosen)
    choices = [_choices(key, size, usual) for key, size in described.sizes.items()]
    found: list[TileProgram] = []
    for values in product(*choices):
        sizes = dict(zip(described.sizes, values, strict=True))
        found += _of_sizes(name, checked, sizes, chosen, over_groups=over_groups)
    return tuple(found)


def usual_place(program: TileProgram) -> int:
    """Return the place of a program's tile among the usual candidates of its family; behind them all for others."""
    described = family(program.family)
    options = {key: value for key, value in program.options.items() if key != ROW_PARTS}
    usual = described.tiles(program.shape, options)
    return usual.index(program.tile_sizes) if program.tile_sizes in usual else len(usual)


def _choices(key: str, size: Size, usual: tuple[TileSizes, ...]) -> tuple[int, ...]:
    if size.power_of_two:
        return tuple(value for value in range(size.least, size.most + 1) if value & (value - 1) == 0)
    return tuple(sorted({sizes[key] for sizes in usual}))


def _of_sizes(
    name: str, shape: dict[str, int], sizes: TileSizes, options: Options, *, over_groups: bool
) -> Iterator[TileProgram]:
    try:
        program = build(name, shape, sizes, options)
    except InvalidTileSize:
        return
    yield program
    if over_groups and splits_rows(program, 2, GROUP_ROWS):
        yield build(name, shape, sizes, {**options, ROW_PARTS: 2})
