"""The instructions of a group in order: where its steps begin, stages, prologue, steady state, epilogue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warps import WarpLoop
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.program import Action, Instruction, WarpGroup
from treadle.ir.warp.waits import Entry, Template, settle


class Order(IntEnum):
    """Order of instructions at one cycle: what earlier operations have finished, then what surrounds an operation."""

    DONE = 0
    GET = 1
    WAIT = 2
    READ = 3
    ACQUIRE = 4
    TAKE = 5
    PERFORM = 6
    AFTER = 7
    PASS = 8


@dataclass(frozen=True, slots=True)
class Timed:
    """An instruction (its stage still open) at the cycle it has in iteration 0.

    `rank` orders operations that start at once. `awaits` is what a WAIT is for: an operation, and how many iterations
    ago it was issued. Instructions of turns stand in `every_step`.
    """

    cycle: int
    order: Order
    rank: int
    instruction: Instruction
    awaits: tuple[str, int] | None = None
    every_step: bool = False


Cut = tuple[int, int, int]
"""Where a group's steps begin modulo the interval, and the first and the last of them with work of iteration 0."""


def ranks(warps: WarpLoop, schedule: Schedule) -> dict[str, int]:
    """Return positions of the operations by start, those that start at once after what they read in their iteration."""
    before: dict[str, list[str]] = {operation.name: [] for operation in warps.loop.operations}
    for dependence in warps.loop.dependences:
        if not dependence.distance and dependence.source != dependence.target:
            before[dependence.target].append(dependence.source)
    placed: dict[str, int] = {}
    open_now: set[str] = set()

    def place(name: str) -> None:
        if name in placed or name in open_now:
            return
        open_now.add(name)
        for source in before[name]:
            if schedule.start_cycles[source] == schedule.start_cycles[name]:
                place(source)
        placed[name] = len(placed)

    for name in sorted(before, key=lambda name: (schedule.start_cycles[name], warps.loop.index[name])):
        place(name)
    return placed


def frames(timed: Iterable[Timed], cut: int, ii: int) -> tuple[int, int]:
    """Return the first and last step, cut at `cut`, in which instructions work for iteration 0."""
    steps = [(item.cycle - cut) // ii for item in timed if not item.every_step]
    return min(steps), max(steps)


def step_cut(timed: list[Timed], ii: int) -> Cut:
    """Return the cut with the fewest stages; of those the one with the least work in late stages."""
    choices: list[tuple[int, int, Cut]] = []
    for cut in sorted({item.cycle % ii for item in timed}):
        first, last = frames(timed, cut, ii)
        late = sum((item.cycle - cut) // ii - first for item in timed)
        choices.append((last - first, late, (cut, first, last)))
    return min(choices)[2]


def assemble_group(
    name: str, registers: int, timed: list[Timed], cut: Cut, ahead: int, ii: int, facts: Facts
) -> WarpGroup:
    """Return the group that runs the timed instructions, its steps cut at `cut`; few iterations go one by one."""
    begin, first, last = cut

    def stage(item: Timed) -> int:
        return (item.cycle - begin) // ii - first

    def within(item: Timed) -> tuple[int, bool, int, int, int]:
        done = item.order is Order.DONE
        return (item.cycle - begin) % ii, not done, -stage(item), item.rank, item.order

    steady = [
        Entry(replace(item.instruction, stage=0 if item.every_step else stage(item)), item.awaits, item.every_step)
        for item in sorted(timed, key=within)
    ]
    serial = [
        Entry(item.instruction, item.awaits)
        for item in sorted(timed, key=lambda item: (item.cycle, item.order is not Order.DONE, item.rank, item.order))
        if ahead > 1 and item.instruction.action not in (Action.TAKE, Action.PASS)
    ]
    settled = settle(Template(tuple(steady), tuple(serial), last - first + 1, ahead), facts.queues)
    return WarpGroup(name, facts.warps_per_group, registers, *settled)
