"""The choices of a step as an integer program, and the bound that multipliers of its rows prove.

Minimise base + reruns + stalls - savings. Rows: bytes of a space in a section; work of a link in a section against the
section's time (a copy may be spread over its window, as a preemptive link does); what a choice needs; savings of a
section against its compute, its traffic in the main space and on chip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from treadle.ir.layout.memory_spaces import SpacesProblem
from treadle.ir.layout.space_modes import Gap, GapMode, Offered, Way, inside, resident

SCALE = 1 << 44
"""Multipliers are whole numbers over this."""

Link = tuple[str, bool]
"""A link's name and whether copies go to the main space."""


@dataclass(frozen=True, slots=True)
class Occupied:
    """Bytes in a space over the sections `low` to `high`, both included; negative where the choice frees them."""

    space: int
    low: int
    high: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Time of a link between the begin of section `release` and the end of section `deadline`."""

    link: Link
    release: int
    deadline: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A yes-or-no decision: what it occupies, copies and runs again (`rerun_ns` at section `rerun_at`)."""

    buffer: int
    group: int
    """Gap by position, -1 for a home on chip, -2 for a return."""
    option: int
    """Mode of the gap, position among the homes or among the returns."""
    occupied: tuple[Occupied, ...]
    copies: tuple[Copy, ...] = ()
    rerun_ns: int = 0
    rerun_at: int = 0


HOME, RETURN = -1, -2


@dataclass(frozen=True, slots=True)
class Need:
    """`choice <= limit - sum(without) + sum(by)`."""

    choice: int
    limit: int
    without: tuple[int, ...] = ()
    by: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Weights of rows, whole numbers over `SCALE`; those of other rows are 0.

    `memory`: (space, section, weight in ns per byte). `links`: (link, inward, first section, last section, weight), the
    price of the link's time in each of these sections; a copy pays the lowest price within its window. `needs`:
    (position, weight). `savings`: (section, row, weight): row 0 for compute, 1 for the main space, 1 + s for space s.
    """

    memory: tuple[tuple[int, int, int], ...] = ()
    links: tuple[tuple[str, bool, int, int, int], ...] = ()
    needs: tuple[tuple[int, int], ...] = ()
    savings: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Program:
    """All choices of a problem with their rows."""

    offered: Offered
    choices: tuple[Choice, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(_choices(self.offered)))

    @property
    def problem(self) -> SpacesProblem:
        """The problem."""
        return self.offered.problem

    @cached_property
    def at(self) -> dict[tuple[int, int], int]:
        """Position of each choice by (group, option)."""
        return {(choice.group, choice.option): position for position, choice in enumerate(self.choices)}

    @cached_property
    def by_buffer(self) -> dict[int, tuple[tuple[int, ...], dict[int, tuple[int, ...]]]]:
        """Homes, and the choices of every gap, of each buffer that has any."""
        homes: dict[int, list[int]] = {}
        gaps: dict[int, dict[int, list[int]]] = {}
        for position, choice in enumerate(self.choices):
            if choice.group == HOME:
                homes.setdefault(choice.buffer, []).append(position)
            elif choice.group != RETURN:
                gaps.setdefault(choice.buffer, {}).setdefault(choice.group, []).append(position)
        return {
            buffer: (
                tuple(homes.get(buffer, ())),
                {gap: tuple(found) for gap, found in gaps.get(buffer, {}).items()},
            )
            for buffer in sorted({*homes, *gaps})
        }

    @cached_property
    def base_bytes(self) -> tuple[int, ...]:
        """Bytes of the main space in each section when everything stays."""
        steps = [0] * (len(self.problem.sections) + 1)
        for buffer in self.problem.buffers:
            low, high = (0, len(self.problem.sections) - 1) if buffer.kept else (buffer.uses[0], buffer.uses[-1])
            steps[low] += buffer.size_bytes
            steps[high + 1] -= buffer.size_bytes
        return tuple(accumulate(steps[:-1]))

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """What reruns need of the buffers they start from, and moves of kept buffers of their last gap."""
        return tuple(_needs(self))

    @cached_property
    def saving_sections(self) -> dict[int, tuple[tuple[int, ...], ...]]:
        """Sections that a home can shorten: the homes at work there, by space."""
        found: dict[int, list[list[int]]] = {}
        for position, choice in enumerate(self.choices):
            if choice.group == HOME:
                space = self.offered.homes[choice.option][1]
                for section in self.problem.buffers[choice.buffer].uses:
                    by_space = found.setdefault(section, [[] for _ in self.problem.spaces])
                    by_space[space].append(position)
        return {section: tuple(tuple(each) for each in by_space) for section, by_space in found.items()}

    def saving_row(self, section: int, row: int) -> tuple[int, dict[int, int]]:
        """Return (constant, coefficients): the saving of the section is at most constant + sum of coefficients.

        Rows: 0 compute, 1 traffic of the main space, 1 + s traffic of space s.
        """
        problem = self.problem
        base = problem.base_ns[section]
        if row == 0:
            return base - max(problem.sections[section].compute_ns, 1), {}
        homes = self.saving_sections[section]
        if row == 1:
            traffic = problem.other_ns[section] + sum(problem.access_ns[b][0] for b in problem.used_by[section])
            freed = {one: problem.access_ns[self.choices[one].buffer][0] for each in homes for one in each}
            return base - traffic, freed
        space = row - 1
        return base, {one: -problem.access_ns[self.choices[one].buffer][space] for one in homes[space]}

    def capacity(self, space: int, section: int) -> int | None:
        """Bytes that choices may add to a space in a section."""
        capacity = self.problem.spaces[space].capacity_bytes
        if capacity is None:
            return None
        return capacity - (self.base_bytes[section] if space == 0 else 0)


def _choices(offered: Offered) -> Iterator[Choice]:
    for position, gap in enumerate(offered.gaps):
        for option, mode in enumerate(gap.modes):
            yield _of_gap(offered.problem, position, gap, option, mode)
    for option, (buffer, space) in enumerate(offered.homes):
        each = offered.problem.buffers[buffer]
        low, high = each.uses[0], each.uses[-1]
        occupied = (Occupied(0, low, high, -each.size_bytes), Occupied(space, low, high, each.size_bytes))
        yield Choice(buffer, HOME, option, occupied)
    for option, (buffer, section) in enumerate(offered.returns):
        each = offered.problem.buffers[buffer]
        yield Choice(
            buffer, RETURN, option, (Occupied(0, section, section, each.size_bytes),), (), each.rerun_ns or 0, section
        )


def _of_gap(problem: SpacesProblem, position: int, gap: Gap, option: int, mode: GapMode) -> Choice:
    buffer, end = problem.buffers[gap.buffer], len(problem.sections) - 1
    size = buffer.size_bytes
    if mode.way is Way.RERUN:
        freed = (Occupied(0, gap.before + 1, mode.in_from - 1, -size),)
        return Choice(gap.buffer, position, option, _real(freed), (), buffer.rerun_ns or 0, mode.in_from)
    spans = (
        (Occupied(0, mode.out_until + 1, end, -size), Occupied(0, 0, mode.in_from - 1, -size))
        if gap.wraps
        else (Occupied(0, mode.out_until + 1, mode.in_from - 1, -size),)
    )
    held = (
        Occupied(mode.space, 0, end, size) if gap.wraps else Occupied(mode.space, gap.before + 1, gap.after - 1, size)
    )
    link = problem.spaces[mode.space].link_name
    copies = (
        Copy((link, False), gap.before + 1, mode.out_until, problem.copy_ns(gap.buffer, mode.space, False)),
        Copy((link, True), mode.in_from, gap.after - 1, problem.copy_ns(gap.buffer, mode.space, True)),
    )
    return Choice(gap.buffer, position, option, _real((*spans, held)), copies)


def _real(spans: tuple[Occupied, ...]) -> tuple[Occupied, ...]:
    return tuple(span for span in spans if span.low <= span.high)


def _needs(program: Program) -> Iterator[Need]:
    problem, offered = program.problem, program.offered
    returned = {key: program.at[RETURN, option] for option, key in enumerate(offered.returns)}
    for position, choice in enumerate(program.choices):
        if choice.rerun_ns:
            for source in problem.buffers[choice.buffer].rerun_from:
                yield from _source(program, position, source, choice.rerun_at, returned)
        elif choice.copies and problem.buffers[choice.buffer].kept and not offered.gaps[choice.group].wraps:
            last = [gap for gap in offered.gaps_of[choice.buffer] if offered.gaps[gap].wraps]
            yield Need(position, 0, by=tuple(one for gap in last for one in program.by_buffer[choice.buffer][1][gap]))


def _source(
    program: Program, position: int, source: int, section: int, returned: dict[tuple[int, int], int]
) -> Iterator[Need]:
    """A buffer that a rerun reads is in use, staying, already back, or made again in the same section."""
    buffer, offered = program.problem.buffers[source], program.offered
    if section in buffer.uses:
        return
    if (source, section) in returned:
        yield Need(position, 0, by=(returned[source, section],))
        return
    for gap in offered.gaps_of.get(source, ()):
        if not inside(offered.gaps[gap], section):
            continue
        away = [
            one
            for one in program.by_buffer[source][1][gap]
            if not resident(offered.gaps[gap], offered.gaps[gap].modes[program.choices[one].option], section)
        ]
        if away:
            yield Need(position, 1, without=tuple(away))


def bound_ns(program: Program, multipliers: Multipliers) -> int:
    """Return the time that no choices go below, by the Lagrangian function at the multipliers, rounded up.

    Raises:
        ValueError: a negative weight, or prices of all links in a section that add up to more than 1.
        IndexError, KeyError: a row that does not exist.
    """
    problem, lagrangian = program.problem, _Lagrangian(program, multipliers)
    total = SCALE * sum(problem.base_ns) - lagrangian.constant
    costs = [lagrangian.cost(position, choice) for position, choice in enumerate(program.choices)]
    for homes, gaps in program.by_buffer.values():
        moved = sum(min(0, *(costs[one] for one in each)) for each in gaps.values())
        total += min(moved, *(costs[one] for one in homes)) if homes else moved
    total += sum(min(0, cost) for cost, one in zip(costs, program.choices, strict=True) if one.group == RETURN)
    total += lagrangian.savings()
    return -(-total // SCALE)


class _Lagrangian:
    """Costs of choices at the multipliers, all times `SCALE`."""

    def __init__(self, program: Program, multipliers: Multipliers) -> None:
        self.program = program
        count = len(program.problem.sections)
        weights = [w for row in (multipliers.memory, multipliers.links, multipliers.needs) for *_, w in row]
        if any(weight < 0 for weight in [*weights, *(weight for *_, weight in multipliers.savings)]):
            raise ValueError("a weight is negative")
        self.constant = 0
        memory = [[0] * (count + 1) for _ in program.problem.spaces]
        for space, section, weight in multipliers.memory:
            capacity = program.capacity(space, section)
            if capacity is None or not 0 <= section < count:
                raise KeyError(f"space {space} has no row in section {section}")
            memory[space][section + 1] += weight
            self.constant += weight * capacity
        self.memory = [list(accumulate(each)) for each in memory]
        self.prices: dict[Link, _Prices] = {}
        steps: dict[Link, list[int]] = {}
        for name, inward, low, high, weight in multipliers.links:
            if not 0 <= low <= high < count:
                raise KeyError(f"no sections {low} to {high}")
            each = steps.setdefault((name, inward), [0] * (count + 1))
            each[low] += weight
            each[high + 1] -= weight
        self.stalled = [0] * count
        for link, each in steps.items():
            prices = list(accumulate(each[:-1]))
            self.prices[link] = _Prices(prices)
            self.stalled = [total + price for total, price in zip(self.stalled, prices, strict=True)]
            self.constant += sum(p * ns for p, ns in zip(prices, program.problem.base_ns, strict=True))
        if max(self.stalled) > SCALE:
            raise ValueError("prices of links add up to more than 1")
        self._rows(multipliers)

    def _rows(self, multipliers: Multipliers) -> None:
        self.extra: dict[int, int] = {}
        self.slack: dict[int, int] = {}
        for position, weight in multipliers.needs:
            need = self.program.needs[position]
            self.constant += weight * need.limit
            for one, sign in ((need.choice, 1), *((o, 1) for o in need.without), *((o, -1) for o in need.by)):
                self.extra[one] = self.extra.get(one, 0) + sign * weight
        for section, row, weight in multipliers.savings:
            limit, parts = self.program.saving_row(section, row)
            self.constant += weight * limit
            self.slack[section] = self.slack.get(section, 0) + weight
            for one, ns in parts.items():
                self.extra[one] = self.extra.get(one, 0) - weight * ns

    def cost(self, position: int, choice: Choice) -> int:
        total = choice.rerun_ns * (SCALE - self.stalled[choice.rerun_at]) + self.extra.get(position, 0)
        for span in choice.occupied:
            sums = self.memory[span.space]
            total += span.size_bytes * (sums[span.high + 1] - sums[span.low])
        for copy in choice.copies:
            if copy.link in self.prices:
                total += copy.duration_ns * self.prices[copy.link].least(copy.release, copy.deadline)
        return total

    def savings(self) -> int:
        """Least of -saving + what the rows charge for it, over the sections that can be shortened."""
        total = 0
        for section in self.program.saving_sections:
            most, _ = self.program.saving_row(section, 0)
            total += min(0, -SCALE + self.stalled[section] + self.slack.get(section, 0)) * most
        return total


class _Prices:
    """Least price over any range of sections, by tables of ranges whose lengths are powers of two."""

    def __init__(self, prices: list[int]) -> None:
        self.tables = [prices]
        width = 1
        while 2 * width <= len(prices):
            last = self.tables[-1]
            self.tables.append([min(last[i], last[i + width]) for i in range(len(last) - width)])
            width *= 2

    def least(self, low: int, high: int) -> int:
        """Return the least price from `low` to `high`, both included."""
        level = (high - low + 1).bit_length() - 1
        table = self.tables[level]
        return min(table[low], table[high + 1 - (1 << level)])
