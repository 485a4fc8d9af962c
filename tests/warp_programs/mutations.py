"""Damaged warp programs: every mutation here makes a program illegal, or says that it changed nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from treadle.ir.warp.program import Action, Channel, Instruction, Step, WarpGroup, WarpProgram

Mutation = Callable[[WarpProgram, random.Random], WarpProgram | None]
"""Returns the damaged program, or None where it does not apply."""

_SIGNALS = (Action.PUT, Action.GET, Action.RELEASE, Action.ACQUIRE)
_PARTS = ("steady", "serial", "prologue", "epilogue")


def _places(program: WarpProgram, actions: tuple[Action, ...]) -> list[tuple[int, str, int, int]]:
    """Return (group, part, step, position) of every instruction with one of the actions."""
    found: list[tuple[int, str, int, int]] = []
    for index, group in enumerate(program.groups):
        for part in _PARTS:
            for step, instructions in enumerate(_steps(group, part)):
                found += [(index, part, step, at) for at, i in enumerate(instructions) if i.action in actions]
    return found


def _steps(group: WarpGroup, part: str) -> tuple[Step, ...]:
    if part == "steady":
        return (group.steady,)
    if part == "serial":
        return (group.serial,)
    return group.prologue if part == "prologue" else group.epilogue


def _with(program: WarpProgram, place: tuple[int, str, int, int], new: tuple[Instruction, ...]) -> WarpProgram:
    """Return the program with the instruction at a place replaced by others."""
    index, part, step, at = place
    group = program.groups[index]
    steps = list(_steps(group, part))
    steps[step] = (*steps[step][:at], *new, *steps[step][at + 1 :])
    if part == "steady":
        changed = replace(group, steady=steps[0])
    elif part == "serial":
        changed = replace(group, serial=steps[0])
    elif part == "prologue":
        changed = replace(group, prologue=tuple(steps))
    else:
        changed = replace(group, epilogue=tuple(steps))
    return replace(program, groups=(*program.groups[:index], changed, *program.groups[index + 1 :]))


def _at(program: WarpProgram, place: tuple[int, str, int, int]) -> Instruction:
    index, part, step, at = place
    return _steps(program.groups[index], part)[step][at]


def _drop(*actions: Action) -> Mutation:
    def mutate(program: WarpProgram, chance: random.Random) -> WarpProgram | None:
        places = _places(program, actions)
        return _with(program, chance.choice(places), ()) if places else None

    return mutate


def _double(*actions: Action) -> Mutation:
    def mutate(program: WarpProgram, chance: random.Random) -> WarpProgram | None:
        places = _places(program, actions)
        if not places:
            return None
        place = chance.choice(places)
        return _with(program, place, (_at(program, place),) * 2)

    return mutate


def _change(actions: tuple[Action, ...], change: Callable[[Instruction], Instruction | None]) -> Mutation:
    def mutate(program: WarpProgram, chance: random.Random) -> WarpProgram | None:
        places = [place for place in _places(program, actions) if change(_at(program, place)) is not None]
        if not places:
            return None
        place = chance.choice(places)
        changed = change(_at(program, place))
        return _with(program, place, (changed,)) if changed is not None else None

    return mutate


def _other_distance(instruction: Instruction) -> Instruction | None:
    if not instruction.operands or instruction.operands[0].invariant:
        return None
    first = instruction.operands[0]
    return replace(instruction, operands=(replace(first, distance=first.distance + 1), *instruction.operands[1:]))


def _other_value(instruction: Instruction) -> Instruction | None:
    if not instruction.operands or instruction.operands[0].invariant:
        return None
    operands = (replace(instruction.operands[0], value=instruction.subject), *instruction.operands[1:])
    return replace(instruction, operands=operands)


def _deeper(instruction: Instruction) -> Instruction:
    return replace(instruction, pending=instruction.pending + 1)


def _at_once(instruction: Instruction) -> Instruction | None:
    return replace(instruction, after="") if instruction.after else None


def _synchronous(instruction: Instruction) -> Instruction | None:
    return replace(instruction, asynchronous=False, queue="") if instruction.asynchronous else None


def _later_stage(instruction: Instruction) -> Instruction:
    return replace(instruction, stage=instruction.stage + 1)


def _no_result(instruction: Instruction) -> Instruction | None:
    return replace(instruction, result="") if instruction.result else None


def _channel(change: Callable[[Channel, int], Channel | None]) -> Mutation:
    def mutate(program: WarpProgram, chance: random.Random) -> WarpProgram | None:
        changes = {c.name: change(c, len(program.groups)) for c in program.channels}
        names = [name for name, changed in changes.items() if changed is not None]
        if not names:
            return None
        name = chance.choice(names)
        channels = tuple(changes[name] or c if c.name == name else c for c in program.channels)
        return replace(program, channels=channels)

    return mutate


def _fewer_consumers(channel: Channel, groups: int) -> Channel | None:
    return replace(channel, consumers=channel.consumers[1:]) if len(channel.consumers) > 1 else None


def _more_consumers(channel: Channel, groups: int) -> Channel | None:
    others = [group for group in range(groups) if group not in channel.consumers]
    return replace(channel, consumers=(*channel.consumers, others[0])) if others and not channel.one_way else None


def _other_producer(channel: Channel, groups: int) -> Channel | None:
    return replace(channel, producer=(channel.producer + 1) % groups) if groups > 1 else None


def _turned(program: WarpProgram, chance: random.Random) -> WarpProgram | None:
    if not program.turns:
        return None
    turn = program.turns[0]
    return replace(program, turns=(replace(turn, holders=turn.holders[1:]), *program.turns[1:]))


def _more_registers(program: WarpProgram, chance: random.Random) -> WarpProgram | None:
    group = program.groups[-1]
    return replace(program, groups=(*program.groups[:-1], replace(group, registers=1000)))


def _other_group(program: WarpProgram, chance: random.Random) -> WarpProgram | None:
    """Move an operation of the steady state to another group."""
    places = [place for place in _places(program, (Action.PERFORM,)) if place[1] == "steady"]
    if len(program.groups) < 2:
        return None
    place = chance.choice(places)
    moved = _at(program, place)
    left = _with(program, place, ())
    to = (place[0] + 1) % len(program.groups)
    group = left.groups[to]
    groups = (*left.groups[:to], replace(group, steady=(*group.steady, moved)), *left.groups[to + 1 :])
    return replace(left, groups=groups)


def _moved(program: WarpProgram, chance: random.Random) -> WarpProgram | None:
    """A get goes behind the operation that follows it."""
    places = [p for p in _places(program, (Action.GET,)) if p[1] != "epilogue"]
    for place in chance.sample(places, len(places)):
        index, part, step, at = place
        instructions = _steps(program.groups[index], part)[step]
        get = instructions[at]
        readers = [
            later
            for later, i in enumerate(instructions)
            if later > at
            and any(s.value == get.subject for s in i.operands)
            and all(s.distance == get.distance for s in i.operands if s.value == get.subject)
        ]
        if readers:
            reordered = (
                *instructions[:at],
                *instructions[at + 1 : readers[0] + 1],
                get,
                *instructions[readers[0] + 1 :],
            )
            head = (index, part, step, 0)
            emptied = program
            for _ in instructions:
                emptied = _with(emptied, head, ())
            return _insert(emptied, head, reordered)
    return None


def _insert(program: WarpProgram, place: tuple[int, str, int, int], new: tuple[Instruction, ...]) -> WarpProgram:
    index, part, step, _ = place
    group = program.groups[index]
    steps = list(_steps(group, part))
    steps[step] = new
    fields = {"steady": steps[0], "serial": steps[0], "prologue": tuple(steps), "epilogue": tuple(steps)}
    changed = replace(group, **{part: fields[part]})  # type: ignore[arg-type] # the field named by part has its type
    return replace(program, groups=(*program.groups[:index], changed, *program.groups[index + 1 :]))


MUTATIONS: dict[str, Mutation] = {
    "drop a wait": _drop(Action.WAIT),
    "deepen a wait": _change((Action.WAIT,), _deeper),
    "drop a signal": _drop(*_SIGNALS),
    "double a signal": _double(*_SIGNALS),
    "drop a turn": _drop(Action.TAKE, Action.PASS),
    "double a turn": _double(Action.TAKE, Action.PASS),
    "drop an operation": _drop(Action.PERFORM, Action.WRITE, Action.READ),
    "double an operation": _double(Action.PERFORM),
    "read another iteration": _change((Action.PERFORM, Action.READ), _other_distance),
    "read another value": _change((Action.PERFORM, Action.READ), _other_value),
    "signal at once": _change((Action.PUT, Action.RELEASE), _at_once),
    "call it synchronous": _change((Action.PERFORM,), _synchronous),
    "another stage": _change((Action.PERFORM, Action.PUT, Action.RELEASE), _later_stage),
    "write elsewhere": _change((Action.PERFORM, Action.WRITE), _no_result),
    "fewer consumers": _channel(_fewer_consumers),
    "more consumers": _channel(_more_consumers),
    "another producer": _channel(_other_producer),
    "another order of turns": _turned,
    "too many registers": _more_registers,
    "another group": _other_group,
    "get too late": _moved,
}
"""Every kind of damage by name."""


def mutants(program: WarpProgram, needed_slots: dict[str, int], each: int) -> Iterator[tuple[str, WarpProgram]]:
    """Yield `each` damaged programs of every kind that applies, none of them twice.

    `needed_slots` are the slots that the schedule's lifetimes need of every ring; one fewer is damage.
    """
    seen: list[WarpProgram] = [program]
    for name, mutate in MUTATIONS.items():
        for seed in range(each):
            damaged = mutate(program, random.Random(seed))
            if damaged is not None and damaged not in seen:
                seen.append(damaged)
                yield name, damaged
    for ring, slots in needed_slots.items():
        if slots > 1:
            buffers = tuple(replace(b, slots=slots - 1) if b.name == ring else b for b in program.buffers)
            yield "one slot too few", replace(program, buffers=buffers)
