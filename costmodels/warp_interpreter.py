"""Runs a warp program on arrays, in a random interleaving: what it computes must not depend on the interleaving.

Asynchronous operations read their buffers at their issue or at their end, as chance has it, and their results are not
numbers until they end; so whatever is read too early, or overwritten too early, shows in the results.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from treadle.costmodels.warp_rules import Array
from treadle.costmodels.warp_semantics import Semantics
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.warp.execution import Execution, Flight
from treadle.ir.warp.facts import Facts
from treadle.ir.warp.program import Action, Instruction, Source, WarpProgram

Results = dict[tuple[str, int], Array]
"""Result of every operation of every iteration."""


class Stuck(TreadleError):
    """A warp program whose groups wait for each other."""

    code = "TRD522"
    template = "warp program `{program}` stops at {trips} iterations: {where}"
    hint = "check the program first: `check_warp_program` names the events that wait for each other"
    exit_code = ExitCode.UNMET


def interpret(program: WarpProgram, trips: int, semantics: Semantics, seed: int) -> Results:
    """Run a program for `trips` iterations, choosing among what can happen next with a generator seeded by `seed`.

    Raises:
        Stuck: nothing can happen and the program is not over.
    """
    chance = random.Random(seed)
    data = _Data(program, semantics, chance)
    execution = Execution(program, trips, data)
    while not execution.over:
        moves: list[int | Flight] = [*execution.ready(), *execution.landing()]
        if not moves:
            where = ", ".join(
                f"{group.name} at {lines[at][0].action.value} {lines[at][0].subject}"
                for group, lines, at in zip(program.groups, execution.lists, execution.counters, strict=True)
                if at < len(lines)
            )
            raise Stuck(program=program.name, trips=trips, where=where)
        move = chance.choice(moves)
        if isinstance(move, int):
            execution.step(move)
        else:
            execution.end(move)
    return data.results


def reference(facts: Facts, trips: int, semantics: Semantics) -> Results:
    """Compute every operation of every iteration one after the other, each once its operands are there."""
    results: Results = {}
    performed = {item.operation: item for item in facts.operations}

    def value(source: Source, iteration: int) -> Array:
        made = iteration - source.distance
        if source.invariant:
            return semantics.invariant(source.value)
        if made < 0:
            return semantics.initial(source.value)
        if (source.value, made) not in results:
            results[source.value, made] = result(source.value, made)
        return results[source.value, made]

    def result(name: str, iteration: int) -> Array:
        operands = [value(source, iteration) for source in performed[name].operands]
        return semantics.apply(name, iteration, operands)

    for iteration in range(trips):
        for name in performed:
            if (name, iteration) not in results:
                results[name, iteration] = result(name, iteration)
    return results


def differences(found: Results, expected: Results, tolerance: float = 1e-9) -> list[str]:
    """Return the operations whose results differ, with their iterations; relative to the largest element."""
    wrong = [f"{name} of iteration {iteration}" for name, iteration in sorted(expected.keys() ^ found.keys())]
    for (name, iteration), array in expected.items():
        other = found.get((name, iteration))
        if other is None:
            continue
        finite = np.abs(array[np.isfinite(array)])
        bound = tolerance * max(1.0, float(finite.max(initial=0.0)))
        if other.shape != array.shape or not np.allclose(other, array, rtol=0, atol=bound):
            wrong.append(f"{name} of iteration {iteration}")
    return wrong


@dataclass
class _Data:
    """Registers and slots, filled and read as the execution goes."""

    program: WarpProgram
    semantics: Semantics
    chance: random.Random
    registers: dict[tuple[int, str, int], Array] = field(default_factory=dict[tuple[int, str, int], Array])
    slots: dict[tuple[str, int], Array] = field(default_factory=dict[tuple[str, int], Array])
    early: dict[tuple[str, int], list[Array | None]] = field(default_factory=dict[tuple[str, int], list[Array | None]])
    results: Results = field(default_factory=dict[tuple[str, int], Array])

    def issued(self, group: int, instruction: Instruction, iteration: int) -> None:
        """Read, compute and write what is synchronous; poison where asynchronous results will be."""
        if instruction.action is Action.READ:
            source = instruction.operands[0]
            self.registers[group, source.value, iteration - source.distance] = self._read(group, source, iteration)
        elif instruction.action is Action.WRITE:
            self._store(instruction.result, iteration, self._register(group, instruction.subject, iteration))
        elif instruction.action is Action.PERFORM and instruction.asynchronous:
            self._depart(group, instruction, iteration)
        elif instruction.action is Action.PERFORM:
            self._finish(group, instruction, iteration, [None] * len(instruction.operands))

    def ended(self, flight: Flight) -> None:
        """Compute an asynchronous operation and let its result be seen."""
        early = self.early.pop((flight.instruction.subject, flight.iteration))
        self._finish(flight.group, flight.instruction, flight.iteration, early)

    def _depart(self, group: int, instruction: Instruction, iteration: int) -> None:
        in_place = any(source.buffer and source.buffer == instruction.result for source in instruction.operands)
        self.early[instruction.subject, iteration] = [
            self._read(group, source, iteration)
            if source.buffer
            and source.buffer != instruction.result
            and (self.program.copies(instruction.subject) or self.chance.random() < 0.5)
            else None
            for source in instruction.operands
        ]
        if not instruction.result:
            self.registers[group, instruction.subject, iteration] = np.full(1, np.nan)
        elif not in_place:
            self._store(instruction.result, iteration, np.full(1, np.nan))

    def _finish(self, group: int, instruction: Instruction, iteration: int, early: list[Array | None]) -> None:
        operands = [
            self._read(group, source, iteration) if read is None else read
            for source, read in zip(instruction.operands, early, strict=True)
        ]
        result = self.semantics.apply(instruction.subject, iteration, operands)
        self.results[instruction.subject, iteration] = result
        if instruction.result:
            self._store(instruction.result, iteration, result)
        else:
            self.registers[group, instruction.subject, iteration] = result

    def _read(self, group: int, source: Source, iteration: int) -> Array:
        made = iteration - source.distance
        if source.invariant:
            return self.semantics.invariant(source.value)
        if made < 0:
            return self.semantics.initial(source.value)
        if not source.buffer:
            return self._register(group, source.value, made)
        slot = made % self.program.buffer(source.buffer).slots
        return self.slots.get((source.buffer, slot), np.full(1, np.nan))

    def _register(self, group: int, value: str, iteration: int) -> Array:
        return self.registers.get((group, value, iteration), np.full(1, np.nan))

    def _store(self, buffer: str, iteration: int, array: Array) -> None:
        self.slots[buffer, iteration % self.program.buffer(buffer).slots] = array
