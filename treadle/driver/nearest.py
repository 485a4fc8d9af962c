"""The nearest tile sizes that fit a machine, for those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Protocol

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

Build = Callable[[dict[str, int]], TileProgram]
"""Makes the program of other sizes; raises TreadleError where there is none."""


class Advise(Protocol):
    """Names the nearest sizes at which a program fits a machine, in a hint; empty when there are none."""

    def __call__(self, program: TileProgram, machine: Machine, *, over_groups: bool) -> str:
        """Return the hint for a program that does not fit."""
        ...


def nearest_tiles(program: TileProgram, machine: Machine, *, over_groups: bool) -> dict[str, int] | None:
    """Return the tile sizes nearest to a library program's that fit, see `nearest`; None for any other program."""
    if program.family not in programs.FAMILIES:
        return None

    def build(sizes: dict[str, int]) -> TileProgram:
        return programs.build(program.family, program.shape, sizes, program.options)

    return nearest(program.tile_sizes, build, machine, MOST_STEPS, over_groups=over_groups)


def nearest(
    start: dict[str, int], build: Build, machine: Machine, most_steps: int, *, over_groups: bool
) -> dict[str, int] | None:
    """Return the sizes nearest to `start` that fit: fewest steps away, of those the largest, then squarest.

    A step halves one size, or doubles the number of sub-tiles. With `over_groups` some interval must let the loop run
    over warp groups too. None when nothing within `most_steps` steps fits.
    """
    seen = {tuple(start.items())}
    ring = [start]
    for _ in range(most_steps):
        following: list[dict[str, int]] = []
        for sizes in ring:
            for other in _steps(sizes):
                if tuple(other.items()) not in seen:
                    seen.add(tuple(other.items()))
                    following.append(other)
        for sizes in sorted(following, key=lambda sizes: (-prod(sizes.values()), sum(sizes.values()))):
            if _fits(sizes, build, machine, over_groups=over_groups):
                return sizes
        ring = following
    return None


def _steps(sizes: dict[str, int]) -> Iterator[dict[str, int]]:
    for key, value in sizes.items():
        if key == "sub_tiles":
            yield {**sizes, key: value * 2}
        elif value % 2 == 0:
            yield {**sizes, key: value // 2}


def _fits(sizes: dict[str, int], build: Build, machine: Machine, *, over_groups: bool) -> bool:
    try:
        other = build(sizes)
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
