"""The nearest tile sizes that fit a machine, for those that do not."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.frontends import programs
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.program import TileProgram
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.solve import Options, schedule
from treadle.solvers.pipeline.solve import refuse_impossible

MOST_STEPS = 6
"""Halvings (or doublings of sub-tiles) that are tried: a factor of 64."""
QUICK = Limits(deterministic_s=0.02)


def nearest_tiles(program: TileProgram, machine: Machine, *, over_groups: bool) -> dict[str, int] | None:
    """Return the tile sizes nearest to a program's that fit: fewest steps away, of those the largest, then squarest.

    A step halves one size, or doubles the number of sub-tiles. With `over_groups` some interval must let the loop run
    over warp groups too. None when nothing within `MOST_STEPS` steps fits, or the program is not of the library.
    """
    if program.family not in programs.FAMILIES:
        return None
    seen = {tuple(program.tile_sizes.items())}
    ring = [program.tile_sizes]
    for _ in range(MOST_STEPS):
        following: list[dict[str, int]] = []
        for sizes in ring:
            for other in _steps(sizes):
                if tuple(other.items()) not in seen:
                    seen.add(tuple(other.items()))
                    following.append(other)
        for sizes in sorted(following, key=lambda sizes: (-prod(sizes.values()), sum(sizes.values()))):
            if _fits(program, sizes, machine, over_groups=over_groups):
                return sizes
        ring = following
    return None


def _steps(sizes: dict[str, int]) -> Iterator[dict[str, int]]:
    for key, value in sizes.items():
        if key == "sub_tiles":
            yield {**sizes, key: value * 2}
        elif value % 2 == 0:
            yield {**sizes, key: value // 2}


def _fits(program: TileProgram, sizes: dict[str, int], machine: Machine, *, over_groups: bool) -> bool:
    try:
        other = programs.build(program.family, program.shape, sizes, program.options)
        for loop in (other, *other.siblings):
            schedule(lower(loop, machine), Options(limits=QUICK, levels=1))
            if over_groups:
                refuse_impossible(lower_warps(loop, machine))
    except TreadleError:
        return False
    return True


def advice(program: TileProgram, machine: Machine, *, over_groups: bool) -> str:
    """Return the nearest tile sizes that fit as a hint, empty when there are none."""
    sizes = nearest_tiles(program, machine, over_groups=over_groups)
    if sizes is None:
        return ""
    changed = " ".join(f"{key}={value}" for key, value in sizes.items())
    return f'the nearest tile that fits is --tiles "{changed}"'
