"""Modes of a kernel: its tile shapes and sub-tilings, each with the least cycles it can take, and the one chosen.

Modes do the same work, so they are compared by what all of it takes: the cycles that multiprocessors spend in the loops
of all instances at steady state (interval times iterations), and then the bytes that all instances load. A grid that
leaves multiprocessors idle is charged for them. A mode that cannot run says why; one that runs has a bound on its
cycles from the bounds on its intervals; those that no bound rules out are scheduled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.program import TileProgram


@dataclass(frozen=True, slots=True)
class LoopBound:
    """A bound on the interval of one loop, with the evidence of `claims` or `warp_claims`."""

    cycles: int
    proof: ProofKind
    evidence: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Mode:
    """One tile: sizes, and over how many warp groups its rows are split.

    `loops` bound the kernel's loops, the main one first; they are empty, and `refused` says why, where it cannot run.
    `cycles` are those of a schedule that was found (None: none was looked for, or `note` says what came of it).
    """

    tile_sizes: dict[str, int]
    row_parts: int
    loaded_bytes: int
    bound_cycles: int | None
    loops: tuple[LoopBound, ...] = ()
    cycles: int | None = None
    refused: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if bool(self.refused) != (self.bound_cycles is None) or bool(self.loops) == bool(self.refused):
            raise InvalidValue(message=f"mode {self.words} is either refused or has bounds")
        if self.bound_cycles is not None and self.cycles is not None and self.cycles < self.bound_cycles:
            raise InvalidValue(message=f"mode {self.words} takes fewer cycles than its bound")

    @property
    def words(self) -> str:
        """The tile as people write it."""
        sizes = " ".join(f"{key}={value}" for key, value in self.tile_sizes.items())
        return f"{sizes} over {self.row_parts} groups" if self.row_parts > 1 else sizes


@dataclass(frozen=True, slots=True)
class Modes:
    """All modes of a program, the chosen one by position, and what is proven of the choice.

    With `over_groups` loops run over warp groups, otherwise on their own.
    """

    over_groups: bool
    modes: tuple[Mode, ...]
    chosen: int
    certificate: Certificate

    def __post_init__(self) -> None:
        if not 0 <= self.chosen < len(self.modes) or self.modes[self.chosen].cycles is None:
            raise InvalidValue(message="the chosen mode is one of the modes, and has a schedule")

    @property
    def best(self) -> Mode:
        """The chosen mode."""
        return self.modes[self.chosen]


def work_cycles(program: TileProgram, intervals: tuple[int, ...], sm_count: int) -> int:
    """Return multiprocessors times cycles at steady state: interval times trips of every loop, over all instances.

    Waves are not rounded up, except that a grid of less than one costs one: how full the last one is belongs to a grid,
    not to a tile, and predictions count it.

    Args:
        program: the kernel's main loop with its siblings.
        intervals: initiation intervals in cycles, of the main loop and then of its siblings.
        sm_count: multiprocessors of the machine, each of which runs one instance at a time.
    """
    loops = (program, *program.siblings)
    once = sum(interval * loop.trips for interval, loop in zip(intervals, loops, strict=True))
    return max(program.instances, sm_count) * program.repeats * once


def certificate_of(family: str, cost_model: str, modes: tuple[Mode, ...], chosen: int) -> Certificate:
    """Return what is proven of a choice: no mode takes fewer cycles, and none that takes as few loads fewer bytes."""
    best = modes[chosen]
    assert best.cycles is not None
    able = [mode for mode in modes if mode.bound_cycles is not None]
    proof = ProofKind.ENUMERATION
    if any(bound.proof is ProofKind.SOLVER for mode in able for bound in mode.loops):
        proof = ProofKind.SOLVER
    cycles = min(mode.bound_cycles or 0 for mode in able)
    loaded = min(mode.loaded_bytes for mode in able if (mode.bound_cycles or 0) <= best.cycles)
    levels = (
        _level("work_cycles", "cycles", best.cycles, cycles, proof, len(modes)),
        _level("loaded_bytes", "bytes", best.loaded_bytes, loaded, proof, len(modes)),
    )
    return Certificate(f"modes/{family}", cost_model, levels)


def _level(name: str, unit: str, value: int, bound: int, proof: ProofKind, count: int) -> Level:
    status = Status.OPTIMAL if value == bound else Status.FEASIBLE
    return Level(name, unit, value, bound, status, proof, {"modes": count})


def verdict(mode: Mode, best: Mode) -> str:
    """Return in words why a mode is not the chosen one."""
    assert best.cycles is not None
    if mode is best:
        return "chosen"
    if mode.bound_cycles is None:
        return f"cannot run: {mode.refused}"
    if mode.bound_cycles > best.cycles:
        return f"needs {mode.bound_cycles / best.cycles - 1:.1%} more cycles at least"
    if mode.cycles is not None and mode.cycles > best.cycles:
        return f"needs {mode.cycles / best.cycles - 1:.1%} more cycles in its best schedule; its bound is open"
    if mode.cycles is None and mode.note:
        return f"open: {mode.note}"
    if mode.loaded_bytes > best.loaded_bytes:
        return f"as many cycles at least, and loads {mode.loaded_bytes / best.loaded_bytes - 1:.1%} more bytes"
    return "as many cycles and bytes at least; another tile of them is as good"
